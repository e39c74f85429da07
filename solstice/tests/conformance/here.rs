//! A job on this host: the engine here, and between it and its events everything that is between a
//! guest and a forge.

use std::sync::Arc;
use std::time::Duration;

use common::event::{JobEvent, JobResult};
use common::frame::{Decoder, encode};
use common::guest::{ATTACH_VERSION, FromGuest, JobDocument, ToGuest};
use orchestrator::attach::Conversation;
use orchestrator::events::{EventLog, Outlet};
use orchestrator::masking::Masker;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use workflow_runner::engine;
use workflow_runner::system::Local;

use super::actions::{Shelf, put_node, write_node};

/// How long a job may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The events of a job, and its result.
pub(super) struct Played {
    pub(super) events: Vec<JobEvent>,
    pub(super) result: JobResult,
}

/// Runs a job to its end, in a directory of its own.
pub(super) async fn play(mut document: JobDocument, has_node: bool) -> Played {
    let directory = tempfile::tempdir().unwrap();
    if has_node {
        let node = directory.path().join("node");
        write_node(&node);
        put_node(&mut document.plan, node.to_str().unwrap());
    }
    document.work_directory = directory.path().join("work").to_str().unwrap().to_owned();
    let (ours, theirs) = duplex(64 * 1024);
    let guest = tokio::spawn(serve(document.clone(), theirs));
    let (reader, writer) = tokio::io::split(ours);
    let played = listen(&document, reader, writer);
    let played = timeout(PATIENCE, played).await.expect("the job ends");
    guest.await.unwrap();
    played
}

/// The host's side of the conversation, from its begin to the end of the job.
pub(super) async fn listen(
    document: &JobDocument,
    reader: impl tokio::io::AsyncRead + Unpin,
    writer: impl tokio::io::AsyncWrite + Unpin,
) -> Played {
    let masker = Masker::new(document.secrets.values().map(|secret| secret.expose()));
    let (sender, mut receiver) = mpsc::channel(64);
    let outlet = Outlet::Direct(sender);
    let mut log = EventLog::new(document.job, document.plan.steps.len(), masker, outlet);
    log.begin_try(1);
    let hold = async move {
        let mut conversation = Conversation::new(document.job, 1);
        let cancel = CancellationToken::new();
        let held = conversation.hold(reader, writer, &mut log, &cancel, Instant::now).await;
        log.flush_lines();
        log.commit().await.unwrap();
        held.unwrap()
    };
    let collect = async {
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            events.push(event);
        }
        events
    };
    let (result, events) = tokio::join!(hold, collect);
    Played { events, result }
}

/// What the guest program does, without its daemon: answers the attach, and sends every event.
async fn serve(document: JobDocument, mut stream: DuplexStream) {
    let mut decoder = Decoder::default();
    let ToGuest::Attach { .. } = receive(&mut stream, &mut decoder).await else {
        panic!("the first frame is an attach");
    };
    let attached = FromGuest::Attached { version: ATTACH_VERSION, job: document.job, next: 1 };
    stream.write_all(&encode(&attached).unwrap()).await.unwrap();
    let (sender, mut events) = mpsc::channel(4);
    let job = engine::run(
        document,
        Arc::new(Local::new()),
        Arc::new(Shelf),
        sender,
        CancellationToken::new(),
    );
    let send = async {
        let mut seq = 0;
        while let Some(event) = events.recv().await {
            seq += 1;
            stream.write_all(&encode(&FromGuest::Event { seq, event }).unwrap()).await.unwrap();
        }
        while receive(&mut stream, &mut decoder).await != (ToGuest::Ack { seq }) {}
    };
    tokio::join!(job, send);
}

async fn receive(stream: &mut DuplexStream, decoder: &mut Decoder) -> ToGuest {
    let mut buffer = [0; 4096];
    loop {
        if let Some(frame) = decoder.next_frame().unwrap() {
            return frame;
        }
        let count = stream.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "the host hung up");
        decoder.push(&buffer[..count]);
    }
}
