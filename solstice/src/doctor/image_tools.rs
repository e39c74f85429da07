//! What building images needs: the tools of the recipes, and Debian's keys.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Check;

/// The commands of the recipes, and the Debian package of each.
const COMMANDS: &[(&str, &str)] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("debugfs", "e2fsprogs"),
    ("dpkg-deb", "dpkg"),
    ("apt-get", "apt"),
    ("apt-config", "apt"),
    ("gzip", "gzip"),
    ("tar", "tar"),
];

/// The keys that the packages of an image are verified with.
const KEYRING: &str = "usr/share/keyrings/debian-archive-keyring.gpg";

/// What the check looks at.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// Where commands are looked up.
    pub(super) search: Vec<PathBuf>,
    /// The root of the file system.
    pub(super) root: PathBuf,
    /// Who builds: nobody needs user name spaces as root.
    pub(super) user: Option<User>,
}

/// Somebody who is not root.
#[derive(Debug)]
pub(super) struct User {
    /// The name, where there is one.
    pub(super) name: Option<String>,
    /// The number.
    pub(super) id: u32,
}

impl Surroundings {
    /// Those of this process.
    pub(super) fn of_host() -> Self {
        let id = nix::unistd::geteuid();
        let user = (!id.is_root()).then(|| User {
            name: nix::unistd::User::from_uid(id).ok().flatten().map(|user| user.name),
            id: id.as_raw(),
        });
        let search = env::split_paths(&vm_manager::image::helper_path()).collect();
        Self { search, root: PathBuf::from("/"), user }
    }

    fn has_command(&self, name: &str) -> bool {
        self.search.iter().any(|directory| is_program(&directory.join(name)))
    }

    /// Whether a file of ranges, such as `/etc/subuid`, has one for the user.
    fn has_range(&self, file: &str, user: &User) -> bool {
        let text = fs::read_to_string(self.root.join(file)).unwrap_or_default();
        let id = user.id.to_string();
        text.lines()
            .filter_map(|line| line.split(':').next())
            .any(|owner| owner == id || user.name.as_deref().is_some_and(|name| name == owner))
    }
}

/// Whether images can be built from their recipes. Images that are here already run without.
pub(super) fn check(host: &Surroundings) -> Check {
    let id = "image-tools";
    let mut missing = Vec::new();
    let mut packages = Vec::new();
    let mut lacks = |what: String, package: &'static str| {
        missing.push(what);
        if !packages.contains(&package) {
            packages.push(package);
        }
    };
    for (command, package) in COMMANDS {
        if !host.has_command(command) {
            lacks((*command).to_owned(), package);
        }
    }
    if fs::File::open(host.root.join(KEYRING)).is_err() {
        lacks(format!("/{KEYRING}"), "debian-archive-keyring");
    }
    let mut cures = Vec::new();
    if let Some(user) = &host.user {
        if !host.has_command("newuidmap") {
            lacks("newuidmap".to_owned(), "uidmap");
        }
        if !["etc/subuid", "etc/subgid"].iter().all(|file| host.has_range(file, user)) {
            missing.push("a range of this user in /etc/subuid and /etc/subgid".to_owned());
            let name = user.name.clone().unwrap_or_else(|| user.id.to_string());
            cures.push(format!(
                "give a range: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \
                 {name}"
            ));
        }
    }
    if missing.is_empty() {
        return Check::ok(id, "images can be built");
    }
    if !packages.is_empty() {
        cures.insert(0, format!("install {} (scripts/setup.sh does)", packages.join(", ")));
    }
    let finding = format!("images cannot be built without {}", missing.join(", "));
    Check::warning(id, finding, cures.join("; "))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn put(root: &Path, path: &str, text: &str, mode: u32) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let root = tempfile::tempdir().unwrap();
        let mut host = Surroundings {
            search: vec![root.path().join("bin")],
            root: root.path().to_owned(),
            user: None,
        };
        for (command, _) in COMMANDS {
            put(root.path(), &format!("bin/{command}"), "", 0o755);
        }
        put(root.path(), KEYRING, "", 0o644);
        assert_eq!(check(&host).verdict, Verdict::Ok);

        // Ordinary users need more; somebody else's range is not theirs.
        put(root.path(), "etc/subuid", "joan:100000:65536\n", 0o644);
        put(root.path(), "etc/subgid", "1000:100000:65536\n", 0o644);
        host.user = Some(User { name: Some("jo".to_owned()), id: 1000 });
        let found = check(&host);
        assert_eq!(found.verdict, Verdict::Warning);
        assert!(found.finding.contains("newuidmap, a range of this user"), "{found:?}");
        let cure = found.cure.unwrap();
        assert!(cure.starts_with("install uidmap") && cure.ends_with(" jo"), "{cure}");
        put(root.path(), "etc/subuid", "joan:1:2\njo:100000:65536\n", 0o644);
        put(root.path(), "bin/newuidmap", "", 0o755);
        assert_eq!(check(&host).verdict, Verdict::Ok);

        // What cannot be run is not there.
        put(root.path(), "bin/debugfs", "", 0o644);
        fs::remove_file(root.path().join(KEYRING)).unwrap();
        let found = check(&host);
        assert!(found.finding.ends_with("debugfs, /usr/share/keyrings/debian-archive-keyring.gpg"));
        assert!(found.cure.unwrap().starts_with("install e2fsprogs, debian-archive-keyring ("));
    }
}
