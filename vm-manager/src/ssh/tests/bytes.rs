//! Commands as byte streams against OpenSSH.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::PATIENCE;
use super::sshd::{Sshd, user};
use crate::ssh::connection::Connection;
use crate::ssh::{ExitStatus, Guest};

#[tokio::test]
async fn a_stream_goes_both_ways_to_its_end() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let (mut reader, mut stdin) =
        guest.exec_stream("echo complaint >&2; cat; exit 9").await.unwrap();
    let input: Vec<u8> = (0..20_u32 << 20).map(|number| (number % 251) as u8).collect();
    let mut output = Vec::with_capacity(input.len());
    let feed = async {
        stdin.write_all(&input).await.unwrap();
        stdin.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(reader.read_to_end(&mut output), feed);
    read.unwrap();
    assert!(output == input);
    let ending = reader.finish().await.unwrap();
    assert_eq!(ending.status, Some(ExitStatus::Code(9)));
    assert_eq!(ending.stderr, b"complaint\n");
    drop((stdin, guest));
    sshd.stop().await;
}

/// A connection lives longer than its session keys, which are made anew every hour.
#[tokio::test]
async fn new_session_keys_disturb_nothing() {
    let sshd = Sshd::with("RekeyLimit 1M").await;
    let socket = tokio::net::TcpStream::connect(sshd.address).await.unwrap();
    let limits = russh::Limits::new(256 * 1024, 256 * 1024, PATIENCE);
    let connection =
        Connection::over(socket, sshd.address, &user(), &sshd.keys, limits).await.unwrap();
    let guest = Guest::new(connection);
    let input: Vec<u8> = (0..8_u32 << 20).map(|number| (number % 251) as u8).collect();
    let (mut reader, mut stdin) = guest.exec_stream("cat").await.unwrap();
    let mut output = Vec::new();
    let feed = async {
        stdin.write_all(&input).await.unwrap();
        stdin.shutdown().await.unwrap();
    };
    let both = async { tokio::join!(reader.read_to_end(&mut output), feed).0.unwrap() };
    tokio::time::timeout(PATIENCE, both).await.expect("it goes on");
    assert!(output == input);
    assert_eq!(reader.finish().await.unwrap().status, Some(ExitStatus::Code(0)));
    drop((stdin, guest));
    sshd.stop().await;
}

#[tokio::test]
async fn dropping_the_input_ends_it() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let (mut reader, mut stdin) = guest.exec_stream("cat").await.unwrap();
    stdin.write_all(b"some").await.unwrap();
    drop(stdin);
    let mut text = String::new();
    reader.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "some");
    drop((reader, guest));
    sshd.stop().await;
}

#[tokio::test]
async fn a_cut_connection_is_an_error_and_no_end() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let (mut reader, stdin) = guest.exec_stream("printf half; cat").await.unwrap();
    let mut half = [0; 4];
    reader.read_exact(&mut half).await.unwrap();
    sshd.cut();
    let read = tokio::time::timeout(PATIENCE, reader.read(&mut half)).await.expect("it ends");
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(reader.finish().await.is_err());
    drop((stdin, guest));
    sshd.stop().await;
}
