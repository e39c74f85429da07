use common::event::{JobEvent, LogBatch, LogLine, StepStarted, Stream};
use common::guest::GuestEvent;
use common::time::Timestamp;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use super::*;
use crate::masking::Masker;

/// A guest program that sends what a test tells it to.
struct Guest {
    stream: DuplexStream,
    decoder: Decoder,
}

impl Guest {
    async fn receive(&mut self) -> ToGuest {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return frame;
            }
            let count = self.stream.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "the host hung up");
            self.decoder.push(&buffer[..count]);
        }
    }

    async fn send(&mut self, frame: &FromGuest) {
        self.stream.write_all(&encode(frame).unwrap()).await.unwrap();
    }

    async fn line(&mut self, seq: u64) {
        let line = LogLine {
            time: Timestamp::now(),
            stream: Stream::Stdout,
            text: format!("line {seq}").into(),
        };
        let event = GuestEvent::Log(LogBatch { step: None, lines: vec![line] });
        self.send(&FromGuest::Event { seq, event }).await;
    }
}

struct Host {
    conversation: Conversation,
    log: EventLog,
    events: mpsc::Receiver<JobEvent>,
    cancel: CancellationToken,
    job: JobId,
}

fn host() -> Host {
    let job = JobId::new();
    let (sender, events) = mpsc::channel(1000);
    let mut log = EventLog::new(job, 1, Masker::default(), sender);
    log.begin_try();
    let cancel = CancellationToken::new();
    Host { conversation: Conversation::new(job), log, events, cancel, job }
}

impl Host {
    /// Holds one stream against a guest whose side of the story is `guest`.
    async fn hold<F, G>(&mut self, guest: G) -> Result<JobResult, Interrupted>
    where
        G: FnOnce(Guest, JobId) -> F,
        F: Future<Output = ()>,
    {
        let (ours, theirs) = duplex(64 * 1024);
        let (reader, writer) = tokio::io::split(ours);
        let guest = guest(Guest { stream: theirs, decoder: Decoder::default() }, self.job);
        let held = self.conversation.hold(reader, writer, &mut self.log, &self.cancel);
        tokio::join!(held, guest).0
    }

    fn seen(&mut self) -> String {
        let mut seen = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            seen.push(event);
        }
        serde_json::to_string(&seen).unwrap()
    }
}

async fn attach(guest: &mut Guest, job: JobId) -> u64 {
    let ToGuest::Attach { version, from } = guest.receive().await else {
        panic!("the first frame is an attach");
    };
    guest.send(&FromGuest::Attached { version, job, next: from }).await;
    from
}

#[tokio::test]
async fn a_cut_stream_loses_nothing_and_doubles_nothing() {
    let mut host = host();
    let cut = host.hold(async |mut guest: Guest, job| {
        assert_eq!(attach(&mut guest, job).await, 1);
        guest.line(1).await;
        guest.line(2).await;
    });
    assert!(matches!(cut.await, Err(Interrupted::Lost(_))));
    let done = host.hold(async |mut guest: Guest, job| {
        assert_eq!(attach(&mut guest, job).await, 3);
        guest.line(3).await;
        let event = GuestEvent::Finished(JobResult::Failure);
        guest.send(&FromGuest::Event { seq: 4, event }).await;
        while guest.receive().await != (ToGuest::Ack { seq: 4 }) {}
    });
    assert_eq!(done.await.unwrap(), JobResult::Failure);
    let seen = host.seen();
    for number in 1..=3 {
        assert_eq!(seen.matches(&format!("line {number}")).count(), 1, "{seen}");
    }
}

#[tokio::test]
async fn a_cancel_is_passed_on_and_said_again_on_a_new_stream() {
    let mut host = host();
    host.cancel.cancel();
    for _ in 0..2 {
        let cut = host.hold(async |mut guest: Guest, job| {
            attach(&mut guest, job).await;
            assert_eq!(guest.receive().await, ToGuest::Cancel);
        });
        assert!(matches!(cut.await, Err(Interrupted::Lost(_))));
    }
}

#[tokio::test]
async fn a_guest_that_breaks_the_rules_is_not_believed() {
    let mut host = host();
    let wrong_job = host.hold(async |mut guest: Guest, _| {
        attach(&mut guest, JobId::new()).await;
    });
    assert!(matches!(wrong_job.await, Err(Interrupted::Violation(_))));
    let hole = host.hold(async |mut guest: Guest, job| {
        attach(&mut guest, job).await;
        guest.line(2).await;
    });
    assert!(matches!(hole.await, Err(Interrupted::Violation(_))));
    let garbage = host.hold(async |mut guest: Guest, job| {
        attach(&mut guest, job).await;
        guest.stream.write_all(b"\0\0\0\x04spam").await.unwrap();
    });
    assert!(matches!(garbage.await, Err(Interrupted::Violation(_))));
    let rules = host.hold(async |mut guest: Guest, job| {
        attach(&mut guest, job).await;
        let time = Timestamp::now();
        let event = GuestEvent::StepStarted(StepStarted { step: 9, name: String::new(), time });
        guest.send(&FromGuest::Event { seq: 1, event }).await;
    });
    assert!(matches!(rules.await, Err(Interrupted::Violation(_))));
}

#[tokio::test]
async fn a_refusal_is_told_from_a_lost_stream() {
    let refused = host()
        .hold(async |mut guest: Guest, _| {
            guest.receive().await;
            guest.send(&FromGuest::Refused { reason: "gone".to_owned() }).await;
        })
        .await;
    assert!(matches!(refused, Err(Interrupted::Refused(reason)) if reason == "gone"));
}
