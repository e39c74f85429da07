//! The name of a template: a digest of everything that a clone has in common with it.

use std::fmt;

use sha2::{Digest, Sha256};

/// Raised when templates are made in another way.
const FORMAT: &str = "solstice-template 2";

/// The name of a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TemplateKey(String);

/// What a template and its clones have in common.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a> {
    /// The digest of the image.
    pub image: &'a str,
    /// The build of QEMU: its version, and what tells two builds of a version apart.
    pub qemu: &'a str,
    /// QEMU's command line, without what differs from machine to machine.
    pub command_line: &'a [String],
    /// What makes a clone a machine of its own.
    pub script: &'a str,
    /// What was done in the guest before it was frozen.
    pub prepare: &'a str,
    /// The digest of the guest program in it.
    pub program: &'a str,
}

impl KeyParts<'_> {
    /// The name of the template that has these.
    #[must_use]
    pub fn key(&self) -> TemplateKey {
        let mut digest = Sha256::new();
        let mut part = |text: &str| {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text);
        };
        for text in [FORMAT, self.image, self.qemu, self.script, self.prepare, self.program] {
            part(text);
        }
        for word in self.command_line {
            part(word);
        }
        TemplateKey(hex::encode(&digest.finalize()[..16]))
    }
}

impl TemplateKey {
    /// Reads the name of a directory in the store.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        (name.len() == 32 && name.chars().all(is_digit)).then(|| Self(name.to_owned()))
    }
}

impl fmt::Display for TemplateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts_and_none_runs_into_the_next() {
        let line = ["-m".to_owned(), "256M".to_owned()];
        let joined = ["-m2".to_owned(), "56M".to_owned()];
        let parts = KeyParts {
            image: "i",
            qemu: "q",
            command_line: &line,
            script: "s",
            prepare: "",
            program: "p",
        };
        let others = [
            KeyParts { image: "x", ..parts },
            KeyParts { qemu: "x", ..parts },
            KeyParts { command_line: &joined, ..parts },
            KeyParts { command_line: &line[..1], ..parts },
            KeyParts { script: "x", ..parts },
            KeyParts { prepare: "x", ..parts },
            KeyParts { program: "x", ..parts },
            KeyParts { script: "sp", program: "", ..parts },
        ];
        let key = parts.key();
        assert_eq!(key, parts.key());
        assert_eq!(TemplateKey::parse(&key.to_string()), Some(key.clone()));
        for other in others {
            assert_ne!(key, other.key(), "{other:?}");
        }
        for name in ["", "../../../../../../../../../../../etc", "ABCDEF0123456789ABCDEF0123456789"]
        {
            assert_eq!(TemplateKey::parse(name), None);
        }
    }
}
