//! A web server of a few lines, which does what a test tells it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server does with a request for a path.
#[derive(Clone)]
pub(crate) enum Answer {
    /// Sends these bytes.
    Bytes(Vec<u8>),
    /// Announces all of these bytes and closes the connection after half of them.
    Half(Vec<u8>),
    /// Announces all of these bytes, sends half of them and waits for [`Server::go_on`].
    Stall(Vec<u8>),
    /// Sends the client elsewhere.
    Redirect(String),
    /// An error of the server.
    Status(u16),
}

pub(crate) struct Server {
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    requests: AtomicUsize,
    stalled: Notify,
    go_on: Notify,
}

impl Server {
    pub(crate) async fn start(answers: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let answers: HashMap<_, _> = answers.into_iter().collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(serve(stream, answers.clone(), Arc::clone(&shared)));
                }
            }
        });
        Self { address, shared, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many requests came.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Waits until an [`Answer::Stall`] has sent its half.
    pub(crate) async fn stalled(&self) {
        let stalled = self.shared.stalled.notified();
        tokio::time::timeout(PATIENCE, stalled).await.expect("a client that asks");
    }

    /// Lets the stalled answers send the rest.
    pub(crate) fn go_on(&self) {
        self.shared.go_on.notify_waiters();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, answers: HashMap<&'static str, Answer>, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let answer = answers.get(path).cloned().unwrap_or(Answer::Status(404));
    let (status, extra, body) = match &answer {
        Answer::Bytes(body) | Answer::Half(body) | Answer::Stall(body) => {
            (200, String::new(), &**body)
        }
        Answer::Redirect(to) => (302, format!("location: {to}\r\n"), b"".as_slice()),
        Answer::Status(status) => (*status, String::new(), b"".as_slice()),
    };
    let head = format!(
        "HTTP/1.1 {status} x\r\n{extra}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let (first, rest) = match &answer {
        Answer::Half(_) | Answer::Stall(_) => body.split_at(body.len() / 2),
        _ => (body, b"".as_slice()),
    };
    // A client that goes away is no fault of the server.
    let send = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(first).await?;
        stream.flush().await?;
        if let Answer::Stall(_) = answer {
            let go_on = shared.go_on.notified();
            let mut go_on = std::pin::pin!(go_on);
            go_on.as_mut().enable();
            shared.stalled.notify_one();
            go_on.await;
            stream.write_all(rest).await?;
        }
        stream.shutdown().await
    };
    send.await.unwrap_or_default();
}
