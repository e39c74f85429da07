//! Files against OpenSSH: over SFTP, and with `cat` where there is none.

use std::os::unix::fs::PermissionsExt;

use super::PATIENCE;
use super::sshd::Sshd;
use crate::ssh::{Guest, SshError};

/// A server with SFTP, one without, and one whose SFTP program is missing.
const SERVERS: [&str; 3] =
    ["Subsystem sftp internal-sftp", "", "Subsystem sftp /nonexistent/sftp-server"];

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|number| (number % 251) as u8).collect()
}

async fn upload(guest: &Guest, bytes: &[u8], path: &str, mode: u32) -> Result<(), SshError> {
    guest.upload(bytes, bytes.len() as u64, path, mode, PATIENCE).await
}

/// The names in the server's directory that a transfer made.
fn leftovers(sshd: &Sshd) -> Vec<String> {
    std::fs::read_dir(sshd.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".part-"))
        .collect()
}

#[tokio::test]
async fn files_go_both_ways() {
    for server in SERVERS {
        let sshd = Sshd::with(server).await;
        let guest = sshd.login().await;
        let path = sshd.path("it's a $file; \"really\"");
        for size in [0, 1, 32 * 1024, 20 << 20] {
            let bytes = content(size);
            upload(&guest, &bytes, &path, 0o755).await.unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes, "{server:?}, {size}");
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o755, "{server:?}");
            let mut back = Vec::new();
            let limit = bytes.len() as u64;
            let count = guest.download(&path, &mut back, limit, PATIENCE).await.unwrap();
            assert!(back == bytes && count == limit, "{server:?}, {size}");
        }
        assert_eq!(leftovers(&sshd), Vec::<String>::new());
        drop(guest);
        sshd.stop().await;
    }
}

#[tokio::test]
async fn a_program_that_runs_is_replaced() {
    for server in SERVERS {
        let sshd = Sshd::with(server).await;
        let guest = sshd.login().await;
        let path = sshd.path("program");
        let cat = std::fs::read("/bin/cat").unwrap();
        upload(&guest, &cat, &path, 0o755).await.unwrap();
        let session = guest.exec(&path).await.unwrap();
        upload(&guest, b"#!/bin/sh\necho new\n", &path, 0o755).await.unwrap();
        let done = guest.run(&path, None, PATIENCE).await.unwrap();
        assert_eq!(done.stdout, b"new\n", "{server:?}");
        drop((session, guest));
        sshd.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_told_and_leaves_nothing() {
    for server in SERVERS {
        let sshd = Sshd::with(server).await;
        let guest = sshd.login().await;
        std::fs::create_dir(sshd.path("directory")).unwrap();
        for name in ["missing/file", "directory"] {
            let error = upload(&guest, b"text", &sshd.path(name), 0o644).await.unwrap_err();
            assert!(matches!(error, SshError::Transfer { action: "write", .. }), "{error}");
        }
        assert_eq!(std::fs::read_dir(sshd.path("directory")).unwrap().count(), 0);

        let path = sshd.path("file");
        std::fs::write(&path, "old").unwrap();
        for said in [0, 3, 5] {
            let error = guest.upload(&b"text"[..], said, &path, 0o644, PATIENCE).await.unwrap_err();
            assert!(matches!(error, SshError::Local(_)), "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        // The guest's end of a transfer that was given up is cleaned by the guest: a command that
        // comes after it on the same connection may run before.
        let gone = async {
            while !leftovers(&sshd).is_empty() {
                drop(guest.run("true", None, PATIENCE).await);
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("nothing is left");
        assert!(matches!(upload(&guest, b"", "a\0b", 0o644).await, Err(SshError::Nul(_))));
        assert!(upload(&guest, b"", "", 0o644).await.is_err());
        drop(guest);
        sshd.stop().await;
    }
}

/// Where Debian has OpenSSH's SFTP server.
const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

fn program(path: &str, script: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_full_disk_behind_sftp_is_told() {
    // The server has a small disk of its own, which nobody else sees.
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let (disk, server) = (disk.to_str().unwrap(), directory.path().join("server"));
    let server = server.to_str().unwrap();
    let user = if nix::unistd::geteuid().is_root() { "" } else { "--map-root-user" };
    let prepare = format!("mount -t tmpfs -o size=4M none {disk} && exec {SFTP_SERVER}");
    program(server, &format!("exec unshare {user} --mount sh -c '{prepare}'"));

    let sshd = Sshd::with(&format!("Subsystem sftp {server}")).await;
    let guest = sshd.login().await;
    let path = format!("{disk}/file");
    upload(&guest, &content(1 << 20), &path, 0o644).await.unwrap();
    let error = upload(&guest, &content(8 << 20), &path, 0o644).await.unwrap_err();
    assert!(matches!(error, SshError::Full { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains(&path) && error.contains("of 4 MiB are free"), "{error}");
    // What is wrong with room on the disk is something else.
    let missing = format!("{disk}/missing/file");
    let error = upload(&guest, b"text", &missing, 0o644).await.unwrap_err();
    assert!(matches!(error, SshError::Transfer { .. }), "{error}");
    drop(guest);
    sshd.stop().await;
}

#[tokio::test]
async fn a_full_disk_behind_cat_is_told() {
    let sshd = Sshd::with("").await;
    let (bin, prefix) = (sshd.path("bin"), sshd.path("prefix"));
    std::fs::create_dir(&bin).unwrap();
    program(&format!("{bin}/cat"), "exec /bin/cat >/dev/full");
    program(&prefix, &format!("PATH={bin}:$PATH exec \"$@\""));
    let guest = sshd.login().await.with_privilege(&[prefix]);
    let path = sshd.path("file");
    let error = upload(&guest, b"text", &path, 0o644).await.unwrap_err();
    assert!(matches!(error, SshError::Full { .. }), "{error}");
    assert!(error.to_string().contains(&path), "{error}");
    assert_eq!(leftovers(&sshd), Vec::<String>::new());
    drop(guest);
    sshd.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_told() {
    for server in SERVERS {
        let sshd = Sshd::with(server).await;
        let guest = sshd.login().await;
        std::fs::create_dir(sshd.path("directory")).unwrap();
        for name in ["missing", "directory"] {
            let read = guest.download(&sshd.path(name), Vec::new(), 100, PATIENCE).await;
            let error = read.unwrap_err();
            assert!(matches!(error, SshError::Transfer { action: "read", .. }), "{error}");
        }
        let read = guest.download("/dev/zero", tokio::io::sink(), 1 << 20, PATIENCE).await;
        let error = read.unwrap_err().to_string();
        assert_eq!(
            error, "cannot read `/dev/zero` in the guest: it has more than 1048576 bytes",
            "{server:?}"
        );
        drop(guest);
        sshd.stop().await;
    }
}

#[tokio::test]
async fn a_cut_connection_ends_a_transfer() {
    for server in SERVERS {
        let sshd = Sshd::with(server).await;
        let guest = sshd.login().await;
        let (source, mut feed) = tokio::io::duplex(1024);
        let path = sshd.path("file");
        let upload = guest.upload(source, 1 << 20, &path, 0o644, PATIENCE);
        let cut = async {
            let half = content(1 << 19);
            tokio::io::AsyncWriteExt::write_all(&mut feed, &half).await.unwrap();
            sshd.cut();
            guest.closed().await;
            // What is still missing comes after the cut.
            drop(tokio::io::AsyncWriteExt::write_all(&mut feed, &half).await);
        };
        let (result, ()) = tokio::join!(upload, cut);
        let error = result.unwrap_err();
        assert!(!matches!(error, SshError::Timeout { .. }), "{error}");
        assert!(!std::path::Path::new(&path).exists());
        drop(guest);
        sshd.stop().await;
    }
}

#[tokio::test]
async fn a_prefix_counts_for_files_as_well() {
    let sshd = Sshd::start().await;
    let marker = sshd.path("marker");
    let script = sshd.path("become");
    std::fs::write(&script, format!("#!/bin/sh\ntouch '{marker}'\nexec \"$@\"\n")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let guest = sshd.login().await.with_privilege(&[script]);
    upload(&guest, b"text", &sshd.path("file"), 0o600).await.unwrap();
    assert!(std::path::Path::new(&marker).exists());
    drop(guest);
    sshd.stop().await;
}
