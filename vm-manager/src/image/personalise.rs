//! The scripts that make a clone of a frozen guest a machine of its own, one for each system.

/// The scripts by their names in the catalogue. They are POSIX shell, and described in
/// [`common::personal`].
pub(super) const SCRIPTS: [(&str, &str); 1] =
    [("linux", include_str!("../../../images/personalise/linux.sh"))];

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
