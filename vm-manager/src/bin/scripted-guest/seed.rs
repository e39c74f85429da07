//! What the guest reads on its seed disk.
//!
//! The documents are searched for in the raw bytes, as they are text and lie in one piece: a guest
//! as small as this one has no file system.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use russh::keys::{PrivateKey, PublicKey};

/// A seed has some 370 KiB; of a larger one only this much is looked at.
const SEED_BYTES: u64 = 1024 * 1024;

/// What the guest learns about itself.
#[derive(Debug)]
pub(crate) struct Seed {
    /// The host name.
    pub(crate) hostname: String,
    /// The key that the SSH server shows.
    pub(crate) host_key: PrivateKey,
    /// The key that may log in.
    pub(crate) login_key: PublicKey,
    /// Whether others than root may log in.
    pub(crate) default_user: bool,
}

impl Seed {
    /// Reads the disk; the error is a sentence.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(SEED_BYTES).read_to_end(&mut bytes))
            .map_err(|error| format!("the seed {} cannot be read: {error}", path.display()))?;
        Self::parse(&bytes).map_err(|what| format!("the seed {} has no {what}", path.display()))
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let meta = document(bytes, "instance-id: ").ok_or("meta-data")?;
        let user = document(bytes, "#cloud-config\n").ok_or("user-data")?;
        let hostname = value(meta, "local-hostname: ").ok_or("local-hostname")?;
        let key: Vec<&str> = user
            .lines()
            .map(str::trim)
            .skip_while(|line| *line != "-----BEGIN OPENSSH PRIVATE KEY-----")
            .collect();
        let end = key.iter().position(|line| *line == "-----END OPENSSH PRIVATE KEY-----");
        let key = end.map(|end| key[..=end].join("\n") + "\n").ok_or("host key")?;
        let host_key = PrivateKey::from_openssh(key).map_err(|_| "host key that can be read")?;
        let login = value(user, "- ssh-ed25519 ").ok_or("login key")?;
        let login_key = PublicKey::from_openssh(&format!("ssh-ed25519 {login}"))
            .map_err(|_| "login key that can be read")?;
        let default_user = user.lines().any(|line| line.trim() == "- default");
        Ok(Self { hostname: hostname.to_owned(), host_key, login_key, default_user })
    }
}

/// The text that begins with `start`, to the zero byte behind it.
fn document<'a>(bytes: &'a [u8], start: &str) -> Option<&'a str> {
    let start = start.as_bytes();
    let at = bytes.windows(start.len()).position(|window| window == start)?;
    let text = &bytes[at..];
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).ok()
}

/// What follows `key` on the first line that begins with it.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim_start().strip_prefix(key)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_manager::seed;
    use vm_manager::ssh::Keys;

    fn written(user: &str) -> (Keys, Result<Seed, String>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seed.iso");
        let keys = Keys::generate().unwrap();
        let seed = seed::Seed {
            instance_id: "i-1".to_owned(),
            hostname: "some-host".to_owned(),
            user: user.to_owned(),
            authorized_key: keys.login_public_line(),
            host_key_private_openssh: keys.host_private_openssh().unwrap(),
        };
        seed::write_iso(&path, &seed).unwrap();
        (keys, Seed::read(&path))
    }

    #[test]
    fn a_seed_as_the_host_writes_it() {
        let (keys, seed) = written("root");
        let seed = seed.unwrap();
        assert_eq!(seed.hostname, "some-host");
        let public = seed.host_key.public_key().to_openssh().unwrap();
        assert_eq!(public.trim(), keys.host_public_line());
        assert_eq!(seed.login_key.to_openssh().unwrap().trim(), keys.login_public_line());
        assert!(!seed.default_user);
        assert!(written("admin").1.unwrap().default_user);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (bytes, expected) in [
            (&b""[..], "meta-data"),
            (b"instance-id: x\n\0", "user-data"),
            (b"instance-id: x\n\0#cloud-config\n", "local-hostname"),
            (b"instance-id: x\nlocal-hostname: h\n\0#cloud-config\n", "host key"),
        ] {
            assert_eq!(Seed::parse(bytes).unwrap_err(), expected);
        }
    }
}
