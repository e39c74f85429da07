//! The messages and services of Forgejo's runner protocol (forgejo-runner-protocol 2), generated from
//! the files in `proto/` by `scripts/protocol.sh`. Gitea's servers speak the same.
//!
//! Nothing here is written by hand but this file: [`runner`] is what runners call, [`ping`] tells
//! whether a server is there. Clients and simulated servers share it, and nothing else.

#[rustfmt::skip]
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::manual_let_else,
    clippy::semicolon_if_nothing_returned,
    clippy::uninlined_format_args,
    clippy::needless_pass_by_value,
    clippy::if_not_else,
    clippy::format_push_string,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    let_underscore_drop,
    unsafe_code,
    reason = "generated"
)]
mod generated;

pub use buffa_types::google::protobuf;
pub use connectrpc;
pub use generated::{ping::v1 as ping, runner::v1 as runner};

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    #[test]
    fn what_is_generated_is_of_these_files() {
        let files = [
            ("ping/v1/ping.proto", include_str!("../proto/ping/v1/ping.proto")),
            ("runner/v1/runner.proto", include_str!("../proto/runner/v1/runner.proto")),
        ];
        let sums: String = files
            .iter()
            .map(|(name, text)| format!("{}  {name}\n", hex::encode(Sha256::digest(text))))
            .collect();
        assert_eq!(sums, include_str!("generated/sources"), "run scripts/protocol.sh");
    }
}
