//! The scripts that make a clone of a frozen guest a machine of its own, one for each system.

/// The script of a system: the keys, which are the same everywhere, then its names.
macro_rules! script {
    ($name:literal) => {
        (
            $name,
            concat!(
                include_str!("../../../images/personalise/keys.sh"),
                include_str!(concat!("../../../images/personalise/", $name, ".sh"))
            ),
        )
    };
}

/// The scripts by their names in the catalogue. They are POSIX shell, and described in
/// [`common::personal`].
pub(super) const SCRIPTS: [(&str, &str); 4] =
    [script!("linux"), script!("illumos"), script!("freebsd"), script!("bsd")];

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_scripts_are_posix_shell() {
        for (name, script) in SCRIPTS {
            let mut dash = Command::new("dash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
            dash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            assert!(dash.wait().unwrap().success(), "{name}");
        }
    }
}
