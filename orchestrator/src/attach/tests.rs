use common::event::{EventBody, JobEvent, LogBatch, LogLine, StepStarted, Stream};
use common::guest::GuestEvent;
use common::time::Timestamp;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use super::*;
use crate::events::Outlet;
use crate::journal::{JournalSettings, Journals};
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
    let mut log = EventLog::new(job, 1, Masker::default(), Outlet::Direct(sender));
    log.begin_try(1);
    let cancel = CancellationToken::new();
    Host { conversation: Conversation::new(job, 1), log, events, cancel, job }
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
        let held =
            self.conversation.hold(reader, writer, &mut self.log, &self.cancel, Instant::now);
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

/// A host whose events go into a journal.
fn journalled(directory: &std::path::Path) -> (Host, std::sync::Arc<Journals>) {
    let settings = JournalSettings {
        directory: directory.to_owned(),
        host: common::ids::HostId::new(),
        days: 1,
        bytes: 1,
    };
    let journals = Journals::open(settings, queue::seal::KeyRing::ephemeral(), None).unwrap();
    let mut host = host();
    let outlet = Outlet::Journal(journals.create(host.job, None).unwrap());
    host.log = EventLog::new(host.job, 1, Masker::default(), outlet);
    host.log.begin_try(1);
    (host, journals)
}

#[tokio::test(start_paused = true)]
async fn only_what_is_on_disk_is_acknowledged_also_while_nothing_more_comes() {
    let directory = tempfile::tempdir().unwrap();
    let (mut host, journals) = journalled(directory.path());
    let done = host.hold(async |mut guest: Guest, job| {
        attach(&mut guest, job).await;
        let begun = Instant::now();
        guest.line(1).await;
        guest.line(2).await;
        // Both are written at once, and synced together a second later.
        assert_eq!(guest.receive().await, ToGuest::Ack { seq: 2 });
        assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
        // For the last event nobody waits that long.
        let begun = Instant::now();
        let event = GuestEvent::Finished(JobResult::Success);
        guest.send(&FromGuest::Event { seq: 3, event }).await;
        assert_eq!(guest.receive().await, ToGuest::Ack { seq: 3 });
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    });
    assert_eq!(done.await.unwrap(), JobResult::Success);
    journals.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_stream_begins_with_what_may_be_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let (mut host, journals) = journalled(directory.path());
    let cut = host.hold(async |mut guest: Guest, job| {
        attach(&mut guest, job).await;
        guest.line(1).await;
    });
    assert!(matches!(cut.await, Err(Interrupted::Lost(_))));
    // It is synced while no stream is there.
    let mut synced = host.log.synced();
    drop(synced.wait_for(|seq| *seq == 1).await.unwrap());
    let cut = host.hold(async |mut guest: Guest, job| {
        assert_eq!(attach(&mut guest, job).await, 2);
        assert_eq!(guest.receive().await, ToGuest::Ack { seq: 1 });
    });
    assert!(matches!(cut.await, Err(Interrupted::Lost(_))));
    journals.close().await;
}

#[tokio::test(start_paused = true)]
async fn events_that_cause_none_of_ours_are_acknowledged_all_the_same() {
    let mut host = host();
    let cut = host.hold(async |mut guest: Guest, job| {
        attach(&mut guest, job).await;
        let begun = Instant::now();
        let event = GuestEvent::Mask(common::request::Secret::new("hidden"));
        guest.send(&FromGuest::Event { seq: 1, event }).await;
        assert_eq!(guest.receive().await, ToGuest::Ack { seq: 1 });
        assert!(begun.elapsed() >= QUIET, "a guest cannot make the file grow with them");
    });
    assert!(matches!(cut.await, Err(Interrupted::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_passed_on_while_the_receiver_is_slow() {
    let mut host = host();
    let (sender, mut events) = mpsc::channel(1);
    host.log = EventLog::new(host.job, 1, Masker::default(), Outlet::Direct(sender));
    host.log.begin_try(1);
    let cancel = host.cancel.clone();
    let done = host.hold(async |mut guest: Guest, job| {
        attach(&mut guest, job).await;
        guest.line(1).await;
        assert_eq!(guest.receive().await, ToGuest::Ack { seq: 1 });
        // There is no room for this one.
        guest.line(2).await;
        cancel.cancel();
        assert_eq!(guest.receive().await, ToGuest::Cancel);
        let event = GuestEvent::Finished(JobResult::Cancelled);
        guest.send(&FromGuest::Event { seq: 3, event }).await;
        for _ in 0..2 {
            drop(events.recv().await.unwrap());
        }
        while guest.receive().await != (ToGuest::Ack { seq: 3 }) {}
    });
    assert_eq!(done.await.unwrap(), JobResult::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn silence_is_said_once_and_so_is_its_end() {
    let mut host = host();
    let begun = Instant::now();
    // Below the stream there is a sign of life until minute 5, and again from minute 20 on.
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let heard = move || match begun.elapsed() {
        now if now < minutes(5) || now > minutes(20) => Instant::now(),
        _ => begun + minutes(5),
    };
    let (ours, theirs) = duplex(64 * 1024);
    let (reader, writer) = tokio::io::split(ours);
    let mut guest = Guest { stream: theirs, decoder: Decoder::default() };
    let job = host.job;
    let story = async {
        attach(&mut guest, job).await;
        sleep(minutes(30)).await;
        drop(guest);
    };
    let held = host.conversation.hold(reader, writer, &mut host.log, &host.cancel, heard);
    assert!(matches!(tokio::join!(held, story).0, Err(Interrupted::Lost(_))));
    let mut said = Vec::new();
    while let Ok(event) = host.events.try_recv() {
        let after = event.time;
        let EventBody::Log(batch) = event.event else { panic!("{event:?} at {after}") };
        said.extend(batch.lines.iter().map(|line| line.text.to_text().into_owned()));
    }
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("has not answered for 60 s"), "{said:?}");
    assert!(said[1].contains("answers again after 90"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_slow_is_no_silence() {
    let mut host = host();
    let (sender, mut events) = mpsc::channel(1);
    host.log = EventLog::new(host.job, 1, Masker::default(), Outlet::Direct(sender));
    host.log.begin_try(1);
    let begun = Instant::now();
    let (ours, theirs) = duplex(64 * 1024);
    let (reader, writer) = tokio::io::split(ours);
    let mut guest = Guest { stream: theirs, decoder: Decoder::default() };
    let job = host.job;
    let story = async {
        attach(&mut guest, job).await;
        for seq in 1..=3 {
            guest.line(seq).await;
        }
        // Nothing is read from the connection meanwhile, so nothing is heard of it.
        sleep(Duration::from_secs(600)).await;
        for seq in 1..=3 {
            assert!(format!("{:?}", events.recv().await).contains(&format!("line {seq}")));
        }
        sleep(Duration::from_secs(30)).await;
        drop(guest);
        assert!(events.try_recv().is_err(), "nothing is said");
    };
    let held = host.conversation.hold(reader, writer, &mut host.log, &host.cancel, || begun);
    assert!(matches!(tokio::join!(held, story).0, Err(Interrupted::Lost(_))));
}
