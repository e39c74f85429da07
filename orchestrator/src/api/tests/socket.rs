//! The socket's place: who can reach it, and what lies there before and after.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::backend::TestBackend;
use super::http::get;
use super::{bind_unix, serve};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn entries(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn only_its_user_can_reach_it_and_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("new");
    let path = place.join("api.sock");
    let socket = bind_unix(&path).unwrap();
    assert_eq!((mode(&place), mode(&path)), (0o700, 0o600));
    assert_eq!(entries(&place), ["api.sock", "api.sock.lock"]);
    let service = serve(tempfile::tempdir().unwrap(), socket, TestBackend::new());
    assert_eq!(get(&path, "/health").await.status, 200);
    service.stop().await;
    assert_eq!(entries(&place), [""; 0]);
}

#[tokio::test]
async fn what_a_killed_service_left_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    // Closing a listener leaves its socket.
    drop(UnixListener::bind(&path).unwrap());
    fs::write(directory.path().join("api.sock.lock"), "1").unwrap();
    let socket = bind_unix(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    drop(socket);
    assert_eq!(entries(directory.path()), [""; 0]);
}

#[tokio::test]
async fn a_live_service_is_left_alone_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let first = bind_unix(&path).unwrap();
    let error = bind_unix(&path).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let start =
        format!("cannot make the socket {}: process {} (", path.display(), std::process::id());
    assert!(error.to_string().starts_with(&start), "{error}");
    let end = ") answers there; end it first, or choose another socket";
    assert!(error.to_string().ends_with(end), "{error}");
    let service = serve(tempfile::tempdir().unwrap(), first, TestBackend::new());
    assert_eq!(get(&path, "/health").await.status, 200);
    service.stop().await;
    drop(bind_unix(&path).unwrap());
}

#[tokio::test]
async fn somebody_who_answers_without_the_lock_is_left_alone_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let foreign = UnixListener::bind(&path).unwrap();
    let error = bind_unix(&path).unwrap_err().to_string();
    assert!(error.contains(&format!("process {} (", std::process::id())), "{error}");
    drop(foreign);
    assert!(path.exists());
}

#[tokio::test]
async fn what_is_no_socket_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    fs::write(&path, "precious").unwrap();
    let error = bind_unix(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("something else lies there already; remove it or choose another place")
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    // A link is not followed to somebody else's socket.
    let (link, target) = (directory.path().join("link"), directory.path().join("target"));
    drop(UnixListener::bind(&target).unwrap());
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert!(bind_unix(&link).is_err());
}

#[tokio::test]
async fn a_path_that_no_socket_can_have_is_refused_with_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let error = bind_unix(&directory.path().join("x".repeat(107))).unwrap_err().to_string();
    assert!(error.contains("at most 107 bytes; choose a shorter one"), "{error}");
    assert_eq!(entries(directory.path()), [""; 0]);
}
