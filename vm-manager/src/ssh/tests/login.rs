//! Who may log in where.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::PATIENCE;
use super::sshd::{Sshd, user};
use crate::ssh::{Guest, Keys, SshError};

#[tokio::test]
async fn another_host_key_is_refused_with_both_fingerprints() {
    let sshd = Sshd::start().await;
    let other = Keys::generate().unwrap();
    let mixed =
        Keys::from_login(&sshd.keys.login_private_openssh(), &other.host_public_line()).unwrap();
    let error = Guest::connect(sshd.address, &user(), &mixed, PATIENCE).await.unwrap_err();
    let SshError::HostKey { expected, found, .. } = error else { panic!("{error}") };
    assert_eq!(expected, other.host_fingerprint());
    assert_eq!(found, sshd.keys.host_fingerprint());
    sshd.stop().await;
}

#[tokio::test]
async fn another_login_key_is_refused() {
    let sshd = Sshd::start().await;
    let other = Keys::generate().unwrap();
    let mixed =
        Keys::from_login(&other.login_private_openssh(), &sshd.keys.host_public_line()).unwrap();
    let error = Guest::connect(sshd.address, &user(), &mixed, PATIENCE).await.unwrap_err();
    assert!(matches!(error, SshError::Refused { .. }), "{error}");
    assert!(!error.is_disconnected());
    sshd.stop().await;
}

#[tokio::test]
async fn keys_of_a_kept_machine_log_in() {
    let sshd = Sshd::start().await;
    let kept = Keys::from_login(&sshd.keys.login_private_openssh(), &sshd.keys.host_public_line())
        .unwrap();
    let guest = Guest::connect(sshd.address, &user(), &kept, PATIENCE).await.unwrap();
    assert!(guest.run("true", None, PATIENCE).await.unwrap().success());
    drop(guest);
    sshd.stop().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_unreachable() {
    let keys = Keys::generate().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let login = Guest::connect(address, "root", &keys, PATIENCE);
    // As the forwarding does while nothing in the guest listens.
    let (error, accepted) = tokio::join!(login, async { drop(listener.accept().await) });
    let ((), error) = (accepted, error.unwrap_err());
    assert!(matches!(error, SshError::Unreachable { .. }), "{error}");
    assert!(error.is_disconnected());

    drop(listener);
    let error = Guest::connect(address, "root", &keys, PATIENCE).await.unwrap_err();
    assert!(matches!(error, SshError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_runs_into_the_deadline() {
    let keys = Keys::generate().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let deadline = Duration::from_millis(100);
    let error = Guest::connect(address, "root", &keys, deadline).await.unwrap_err();
    assert!(matches!(error, SshError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn a_server_of_another_protocol_is_told_apart() {
    let keys = Keys::generate().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let web = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"SSH-2.0-x\r\n\0\0\0\x0cnot a packet at all").await.unwrap();
        drop(socket.read_to_end(&mut Vec::new()).await);
    };
    let (error, ()) = tokio::join!(Guest::connect(address, "root", &keys, PATIENCE), web);
    let error = error.unwrap_err();
    assert!(matches!(error, SshError::Protocol(_)), "{error:?}");
}
