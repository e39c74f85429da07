//! The recipes in the binary: scripts that build an image from a distribution's packages.

use common::limits::{GIB, MIB};
use common::size::ByteSize;

use super::digest::{Digest, digest_of};

/// The names that a catalogue may write under `recipe`.
pub const RECIPES: [&str; 4] = ["debian-12", "debian-12-node", "debian-12-podman", "tiny"];

/// A recipe: `build.sh` and the files that it reads, which lie beside it when it runs.
pub(super) struct Recipe {
    /// Name and content.
    pub(super) files: &'static [(&'static str, &'static str)],
    /// What a build needs on disk while it runs, its result included, in bytes.
    pub(super) work: ByteSize,
}

macro_rules! file {
    ($folder:literal, $name:literal) => {
        ($name, include_str!(concat!("../../../images/recipes/", $folder, "/", $name)))
    };
}

/// Debian 12, and what an image has beyond it: its `more.sh`, which `build.sh` reads.
macro_rules! debian_12 {
    ($work:expr $(, $more:expr)*) => {
        Recipe {
            files: &[
                file!("common", "debian.sh"),
                file!("common", "disk.sh"),
                file!("common", "initrd-init"),
                file!("common", "initrd.sh"),
                file!("debian-12", "build.sh"),
                file!("debian-12", "cloud-init.conf"),
                file!("debian-12", "cloud.cfg"),
                file!("debian-12", "dhcp.network"),
                file!("debian-12", "pam-sshd"),
                file!("debian-12", "sshd_config"),
                $($more,)*
            ],
            work: ByteSize($work),
        }
    };
}

static DEBIAN_12: Recipe = debian_12!(3 * GIB);

static DEBIAN_12_NODE: Recipe = debian_12!(4 * GIB, file!("debian-12-node", "more.sh"));

static DEBIAN_12_PODMAN: Recipe = debian_12!(4 * GIB, file!("debian-12-podman", "more.sh"));

static TINY: Recipe = Recipe {
    files: &[
        file!("common", "debian.sh"),
        file!("common", "disk.sh"),
        file!("common", "initrd-init"),
        file!("common", "initrd.sh"),
        file!("tiny", "build.sh"),
        file!("tiny", "dhcp"),
        file!("tiny", "init"),
    ],
    work: ByteSize(512 * MIB),
};

/// The recipe of this name.
pub(super) fn find(name: &str) -> Option<&'static Recipe> {
    match name {
        "debian-12" => Some(&DEBIAN_12),
        "debian-12-podman" => Some(&DEBIAN_12_PODMAN),
        "debian-12-node" => Some(&DEBIAN_12_NODE),
        "tiny" => Some(&TINY),
        _ => None,
    }
}

impl Recipe {
    /// Names what the recipe would make: any change to its files or its parameters gives another
    /// key, and so another build.
    pub(super) fn key(&self, disk: ByteSize) -> Digest {
        let disk = disk.0.to_string();
        let files = self.files.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]);
        digest_of(["recipe".as_bytes(), disk.as_bytes()].into_iter().chain(files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;
    use std::process::Command;

    #[test]
    fn every_name_has_a_recipe() {
        for name in RECIPES {
            let recipe = find(name).unwrap();
            assert!(recipe.files.iter().any(|(file, _)| *file == "build.sh"), "{name}");
        }
        assert!(find("nothing").is_none());
    }

    /// A file that lies beside a recipe and is not in the binary would be missed on other hosts.
    #[test]
    fn every_file_is_in_the_binary() {
        let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/recipes");
        for name in RECIPES {
            let embedded: Vec<_> =
                find(name).unwrap().files.iter().map(|(file, _)| *file).collect();
            for folder in [name, "common"] {
                for file in std::fs::read_dir(recipes.join(folder)).unwrap() {
                    let file = file.unwrap().file_name().into_string().unwrap();
                    assert!(embedded.contains(&file.as_str()), "{name} lacks {file}");
                }
            }
        }
    }

    #[test]
    fn the_key_follows_files_and_parameters() {
        static OTHER: Recipe =
            Recipe { files: &[("build.sh", "true"), ("a", "b")], work: ByteSize(0) };
        static CHANGED: Recipe =
            Recipe { files: &[("build.sh", "true"), ("a", "c")], work: ByteSize(0) };
        let size = ByteSize(GIB);
        assert_eq!(OTHER.key(size), OTHER.key(size));
        assert_ne!(OTHER.key(size), OTHER.key(ByteSize(2 * GIB)));
        assert_ne!(OTHER.key(size), CHANGED.key(size));
        assert_ne!(TINY.key(size), DEBIAN_12.key(size));
        assert_ne!(DEBIAN_12_NODE.key(size), DEBIAN_12.key(size));
    }

    /// The scripts run on hosts whose `sh` is dash and in guests whose `sh` is busybox.
    #[test]
    fn scripts_are_plain_sh() {
        for name in RECIPES {
            for (file, text) in find(name).unwrap().files {
                if !text.starts_with("#!/bin/sh") && !file.ends_with(".sh") {
                    continue;
                }
                assert!(!text.contains("[[ "), "{name}/{file}");
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join(file);
                std::fs::write(&path, text).unwrap();
                let result = Command::new("dash").arg("-n").arg(&path).output().unwrap();
                let complaint = String::from_utf8_lossy(&result.stderr);
                assert!(result.status.success() && complaint.is_empty(), "{name}: {complaint}");
            }
        }
    }
}
