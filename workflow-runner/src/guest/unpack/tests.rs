use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;

/// An archive whose names need not be well-behaved.
struct Hostile(Builder<Vec<u8>>);

impl Hostile {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn add(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str) -> Self {
        self.add(EntryType::Regular, name, "", b"content")
    }

    fn link(self, name: &str, to: &str) -> Self {
        self.add(EntryType::Symlink, name, to, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// Unpacks into `tree` of a fresh directory in which `outside` lies beside it.
fn place(archive: &[u8]) -> (tempfile::TempDir, Result<(), GuestError>) {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("outside")).unwrap();
    let result = unpack(archive, &place.path().join("tree"), None);
    assert_eq!(fs::read_dir(place.path().join("outside")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    (place, result)
}

fn refused(archive: Hostile, message: &str) {
    let error = place(&archive.bytes()).1.unwrap_err();
    assert_eq!(error.exit_code(), 64, "{error}");
    assert!(error.to_string().contains(message), "{error}");
}

#[test]
fn a_tree_arrives_with_modes_and_times() {
    let source = tempfile::tempdir().unwrap();
    let long = "a-long-name/".repeat(20) + "file";
    fs::create_dir_all(source.path().join(&long).parent().unwrap()).unwrap();
    fs::write(source.path().join(&long), "deep").unwrap();
    fs::write(source.path().join("script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(source.path().join("script"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("/nowhere/at/all", source.path().join("link")).unwrap();
    fs::create_dir(source.path().join("sealed")).unwrap();
    fs::write(source.path().join("sealed/file"), "x").unwrap();
    fs::set_permissions(source.path().join("sealed/file"), fs::Permissions::from_mode(0o400))
        .unwrap();
    fs::set_permissions(source.path().join("sealed"), fs::Permissions::from_mode(0o555)).unwrap();
    for name in ["sealed/file", "sealed", "link"] {
        set_time(&source.path().join(name), 1_600_000_000).unwrap();
    }
    let mut builder = Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", source.path()).unwrap();
    fs::set_permissions(source.path().join("sealed"), fs::Permissions::from_mode(0o755)).unwrap();

    let (place, result) = place(&builder.into_inner().unwrap());
    result.unwrap();
    let tree = place.path().join("tree");
    assert_eq!(fs::read_to_string(tree.join(&long)).unwrap(), "deep");
    let mode = |name| fs::symlink_metadata(tree.join(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode("script"), 0o751, "set-user-id is not kept");
    assert_eq!((mode("sealed"), mode("sealed/file")), (0o555, 0o400));
    assert_eq!(fs::read_link(tree.join("link")).unwrap(), Path::new("/nowhere/at/all"));
    for name in ["sealed/file", "sealed", "link"] {
        assert_eq!(fs::symlink_metadata(tree.join(name)).unwrap().mtime(), 1_600_000_000, "{name}");
    }
    fs::set_permissions(tree.join("sealed"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn paths_out_of_the_directory_are_refused() {
    refused(Hostile::new().file("../outside/file"), "../outside/file: its path leads out");
    refused(Hostile::new().file("a/../../outside/file"), "its path leads out");
    refused(Hostile::new().file("/tmp/solstice-hostile"), "/tmp/solstice-hostile: its path leads");
    refused(
        Hostile::new().add(EntryType::Directory, "../outside/d", "", b""),
        "its path leads out",
    );
    refused(
        Hostile::new().add(EntryType::Link, "a", "../outside", b""),
        "links to a place outside",
    );
    refused(Hostile::new().add(EntryType::Link, "a", "/etc/passwd", b""), "to a place outside");
}

#[test]
fn nothing_is_written_through_a_link() {
    refused(Hostile::new().link("l", "../outside").file("l/file"), "l is there and no directory");
    refused(
        Hostile::new().link("l", "../outside").add(EntryType::Directory, "l/", "", b""),
        "no directory",
    );
    refused(
        Hostile::new().link("l", "../outside").add(EntryType::Link, "h", "l/x", b""),
        "no directory",
    );
    refused(
        Hostile::new().link("l", "/etc/passwd").add(EntryType::Link, "h", "l", b""),
        "links to something that is no file",
    );
    // A file in the place of a link replaces the link, not what it leads to.
    let (place, result) = place(&Hostile::new().link("l", "../outside/f").file("l").bytes());
    result.unwrap();
    assert_eq!(fs::read_to_string(place.path().join("tree/l")).unwrap(), "content");
}

#[test]
fn a_second_archive_replaces_files_and_keeps_directories() {
    let place = tempfile::tempdir().unwrap();
    let first = Hostile::new().file("d/a").file("d/b").link("d/c", "a").bytes();
    let second = Hostile::new().add(EntryType::Regular, "d/a", "", b"new").file("d/c").bytes();
    unpack(&first[..], place.path(), None).unwrap();
    unpack(&second[..], place.path(), None).unwrap();
    let read = |name| fs::read_to_string(place.path().join(name)).unwrap();
    assert_eq!(
        (read("d/a"), read("d/b"), read("d/c")),
        ("new".into(), "content".into(), "content".into())
    );
}

#[test]
fn devices_and_pipes_are_refused() {
    for kind in [EntryType::Fifo, EntryType::Char, EntryType::Block, EntryType::GNUSparse] {
        let error = place(&Hostile::new().add(kind, "thing", "", b"").bytes()).1.unwrap_err();
        assert!(matches!(error, GuestError::Archive { .. }), "{kind:?}: {error}");
    }
}

#[test]
fn names_have_a_bound() {
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let long = vec![b'x'; 8 << 20];
        for before in [Hostile::new(), Hostile::new().file("before")] {
            refused(before.add(kind, "x", "", &long).file("a"), "names and attributes");
        }
    }
    // Content has none, wherever an archive has it.
    let content = vec![0; 8 << 20];
    let archive = Hostile::new().add(EntryType::Regular, "a", "", &content);
    place(&archive.add(EntryType::Directory, "d", "", &content).file("b").bytes()).1.unwrap();
}

#[test]
fn a_path_has_a_bound() {
    // Each component would be a call deeper.
    let deep = "a/".repeat(200_000) + "a";
    refused(
        Hostile::new().add(EntryType::GNULongName, "x", "", deep.as_bytes()).file("a"),
        "too long",
    );
}

#[test]
fn hard_links_inside_stay_links() {
    let archive = Hostile::new().file("a").add(EntryType::Link, "d/b", "./a", b"").bytes();
    let (place, result) = place(&archive);
    result.unwrap();
    let inode = |name| fs::metadata(place.path().join("tree").join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("d/b"));
}

#[test]
fn an_unknown_owner_is_named() {
    let place = tempfile::tempdir().unwrap();
    let error = unpack(&b""[..], &place.path().join("tree"), Some("no such user")).unwrap_err();
    assert!(error.to_string().contains("there is no user \"no such user\""), "{error}");
    assert!(!place.path().join("tree").exists());
}

#[test]
fn everything_belongs_to_the_owner() {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let own = nix::unistd::geteuid();
    // Only root can give files away; others can at least keep them.
    let wanted = |user: &u32| if own.is_root() { *user != 0 } else { *user == own.as_raw() };
    let (name, user) = users
        .lines()
        .find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            Some((fields[0], fields[2].parse().ok().filter(wanted)?))
        })
        .unwrap();
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    let archive = Hostile::new().file("new/file").link("link", "/etc/passwd").bytes();
    unpack(&archive[..], &tree, Some(name)).unwrap();
    for path in ["", "new", "new/file", "link"] {
        assert_eq!(fs::symlink_metadata(tree.join(path)).unwrap().uid(), user, "{path:?}");
    }
    assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), 0);
}

proptest! {
    #[test]
    fn an_archive_that_is_cut_off_is_an_error(part in 0.0..1.0_f64) {
        let whole = Hostile::new().file("a").add(EntryType::Regular, "b", "", &[0; 3_000]).bytes();
        let cut = (part * (whole.len() - 1) as f64) as usize;
        prop_assert!(place(&whole[..cut]).1.is_err());
        prop_assert!(place(&whole).1.is_ok());
    }

    #[test]
    fn damaged_archives_never_panic_or_escape(
        at in 0..2_000_usize,
        byte in any::<u8>(),
    ) {
        let mut archive = Hostile::new().file("a").link("b", "../outside").file("c").bytes();
        let at = at % archive.len();
        archive[at] = byte;
        drop(place(&archive));
    }
}
