//! A client that sends what it is told to, byte by byte.

use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::within;

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: bytes[end..].to_vec() }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The sentence and the hint of an error.
    pub(super) fn error(&self) -> String {
        let json = self.json();
        format!("{} / {}", json["error"].as_str().unwrap(), json["hint"].as_str().unwrap_or("-"))
    }
}

/// A request of HTTP/1.0, whose answer ends with the connection.
pub(super) fn request(method: &str, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes =
        format!("{method} {target} HTTP/1.0\r\ncontent-length: {length}\r\n{headers}\r\n")
            .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Sends bytes and takes everything that comes back.
pub(super) async fn exchange(socket: &Path, bytes: &[u8]) -> Answer {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // The service may have refused and closed before all was sent.
    drop(stream.write_all(bytes).await);
    let mut answer = Vec::new();
    drop(within(stream.read_to_end(&mut answer)).await);
    Answer::parse(&answer)
}

pub(super) async fn get(socket: &Path, target: &str) -> Answer {
    exchange(socket, &request("GET", target, "", b"")).await
}

pub(super) async fn post(socket: &Path, target: &str, body: &[u8]) -> Answer {
    exchange(socket, &request("POST", target, "", body)).await
}
