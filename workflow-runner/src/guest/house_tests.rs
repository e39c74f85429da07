//! The conversation over a real socket, with an engine that does what a test says.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use common::event::{JobResult, LogBatch, LogLine, Stream};
use common::frame::{Decoder, encode};
use common::guest::{ATTACH_VERSION, FromGuest, GuestEvent, ToGuest};
use common::{JobId, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::calls::calls;
use super::house::House;
use super::spool::{Folder, Spool, SpoolLimits};

/// How long a test waits for anything before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a daemon goes on in a machine that goes down.
const GRACE: Duration = Duration::from_millis(200);

/// So small that the disk takes part.
const LIMITS: SpoolLimits =
    SpoolLimits { chunk: 2_000, window: 10_000, segment: 20_000, total: 100_000 };

/// A daemon in this process.
struct Machine {
    heard: watch::Sender<bool>,
    place: tempfile::TempDir,
    job: JobId,
    terminate: CancellationToken,
}

/// Runs a daemon with this engine beside this story of a host. The daemon must be over when the
/// story is.
async fn with_daemon<E, F, S, G>(engine: E, story: S)
where
    E: FnOnce(mpsc::Sender<GuestEvent>, CancellationToken) -> F,
    F: Future<Output = JobResult> + 'static,
    S: FnOnce(Rc<Machine>) -> G,
    G: Future<Output = ()>,
{
    with_lingering_daemon(PATIENCE, engine, story).await;
}

/// The same with a time for which the daemon waits for a host after the job.
async fn with_lingering_daemon<E, F, S, G>(linger: Duration, engine: E, story: S)
where
    E: FnOnce(mpsc::Sender<GuestEvent>, CancellationToken) -> F,
    F: Future<Output = JobResult> + 'static,
    S: FnOnce(Rc<Machine>) -> G,
    G: Future<Output = ()>,
{
    let place = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(place.path().join("socket")).unwrap();
    let spool = Spool::new(LIMITS, Folder(place.path().to_owned()));
    let machine = Machine {
        place,
        job: JobId::new(),
        terminate: CancellationToken::new(),
        heard: watch::Sender::new(false),
    };
    let house = House {
        job: machine.job,
        spool,
        listener,
        linger,
        grace: GRACE,
        terminate: machine.terminate.clone(),
        heard: machine.heard.clone(),
        switchboard: calls().1,
    };
    let machine = Rc::new(machine);
    let both = async { tokio::join!(house.run(engine), story(machine)) };
    tokio::time::timeout(PATIENCE, both).await.expect("the daemon and the story end");
}

/// What an engine does.
type Engine = Pin<Box<dyn Future<Output = JobResult>>>;

/// The host's end of a connection.
struct Host {
    stream: UnixStream,
    decoder: Decoder,
}

impl Host {
    async fn connect(machine: &Machine) -> Self {
        let stream = UnixStream::connect(machine.place.path().join("socket")).await.unwrap();
        Self { stream, decoder: Decoder::default() }
    }

    async fn attach(machine: &Machine, from: u64) -> Self {
        let mut host = Self::connect(machine).await;
        host.send(&ToGuest::Attach { version: ATTACH_VERSION, from }).await;
        let answer = host.receive().await.expect("an answer");
        let FromGuest::Attached { version, job, next } = answer else { panic!("{answer:?}") };
        assert_eq!((version, job, next), (ATTACH_VERSION, machine.job, from));
        host
    }

    async fn send(&mut self, frame: &ToGuest) {
        self.stream.write_all(&encode(frame).unwrap()).await.unwrap();
    }

    /// The next frame; `None` when the daemon closed the connection.
    async fn receive(&mut self) -> Option<FromGuest> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let mut buffer = [0; 1000];
            match self.stream.read(&mut buffer).await.unwrap_or(0) {
                0 => return None,
                bytes => self.decoder.push(&buffer[..bytes]),
            }
        }
    }

    async fn event(&mut self) -> (u64, GuestEvent) {
        match self.receive().await {
            Some(FromGuest::Event { seq, event }) => (seq, event),
            other => panic!("an event was expected: {other:?}"),
        }
    }

    async fn refusal(&mut self) -> String {
        loop {
            match self.receive().await {
                Some(FromGuest::Refused { reason }) => {
                    assert_eq!(self.receive().await, None, "nothing follows a refusal");
                    return reason;
                }
                Some(FromGuest::Event { .. }) => {}
                other => panic!("a refusal was expected: {other:?}"),
            }
        }
    }

    /// The daemon's answer to a connection whose first frame is this one.
    async fn refused(machine: &Machine, first: &ToGuest) -> String {
        let mut host = Self::connect(machine).await;
        host.send(first).await;
        host.refusal().await
    }

    /// Takes every event after these, acknowledges each, and sees the daemon end.
    async fn take_all(&mut self, events: &mut Vec<GuestEvent>, acknowledge: impl Fn(u64)) {
        while !matches!(events.last(), Some(GuestEvent::Finished(_))) {
            let (seq, event) = self.event().await;
            events.push(event);
            assert_eq!(seq, events.len() as u64);
            acknowledge(seq);
            self.send(&ToGuest::Ack { seq }).await;
        }
        assert_eq!(self.receive().await, None);
    }

    /// Takes every event from `next` on, acknowledges the last, and sees the daemon end.
    async fn finish(&mut self, mut next: u64) -> Vec<GuestEvent> {
        let mut events = Vec::new();
        loop {
            let (seq, event) = self.event().await;
            assert_eq!(seq, next);
            next += 1;
            events.push(event);
            if let Some(GuestEvent::Finished(_)) = events.last() {
                self.send(&ToGuest::Ack { seq }).await;
                assert_eq!(self.receive().await, None);
                return events;
            }
        }
    }
}

fn line(number: usize) -> GuestEvent {
    let time = Timestamp::from_micros(0);
    let text = format!("line {number}").into();
    GuestEvent::Log(LogBatch {
        step: Some(0),
        lines: vec![LogLine { time, stream: Stream::Stdout, text }],
    })
}

async fn lines(count: usize, events: mpsc::Sender<GuestEvent>) {
    for number in 1..=count {
        events.send(line(number)).await.unwrap();
    }
}

/// An engine that prints so many lines.
fn prints(count: usize) -> impl FnOnce(mpsc::Sender<GuestEvent>, CancellationToken) -> Engine {
    move |events, _| {
        Box::pin(async move {
            lines(count, events).await;
            JobResult::Success
        })
    }
}

/// The same, and then it runs until it is cancelled.
fn prints_and_waits(
    count: usize,
) -> impl FnOnce(mpsc::Sender<GuestEvent>, CancellationToken) -> Engine {
    move |events, cancel| {
        Box::pin(async move {
            lines(count, events).await;
            cancel.cancelled().await;
            JobResult::Success
        })
    }
}

/// An engine that prints one line once it is cancelled.
async fn prints_when_cancelled(
    events: mpsc::Sender<GuestEvent>,
    cancel: CancellationToken,
) -> JobResult {
    cancel.cancelled().await;
    lines(1, events).await;
    JobResult::Cancelled
}

fn all_lines(count: usize, result: JobResult) -> Vec<GuestEvent> {
    (1..=count).map(line).chain([GuestEvent::Finished(result)]).collect()
}

#[tokio::test]
async fn a_connection_cut_at_any_event_loses_and_doubles_nothing() {
    with_daemon(prints(3_000), async |machine| {
        let mut events = Vec::new();
        let mut acknowledged = 0;
        // Each connection takes some events, acknowledges fewer, and is cut.
        for (take, acknowledge) in [(1, 0), (700, 300), (0, 0), (5, 5), (900, 0), (33, 32)] {
            events.truncate(acknowledged);
            let mut host = Host::attach(&machine, acknowledged as u64 + 1).await;
            for _ in 0..take {
                let (seq, event) = host.event().await;
                events.push(event);
                assert_eq!(seq, events.len() as u64);
            }
            if acknowledge > 0 {
                acknowledged += acknowledge;
                host.send(&ToGuest::Ack { seq: acknowledged as u64 }).await;
                // An answer to something later shows that the acknowledgement arrived.
                host.send(&ToGuest::Ack { seq: u64::MAX }).await;
                host.refusal().await;
            }
        }
        events.truncate(acknowledged);
        let mut host = Host::attach(&machine, acknowledged as u64 + 1).await;
        // More than the spool holds: acknowledge on the way.
        host.take_all(&mut events, |_| ()).await;
        assert_eq!(events, all_lines(3_000, JobResult::Success));
    })
    .await;
}

#[tokio::test]
async fn a_job_without_a_host_waits_at_the_limit_and_goes_on() {
    const LINES: usize = 5_000;
    let frame = encode(&FromGuest::Event { seq: 1, event: line(1) }).unwrap().len();
    // What the spool holds, what waits between engine and spool, and the line in the engine's hand.
    let most = LIMITS.total as usize / frame + 100;
    assert!(most < LINES / 2);
    let acknowledged = Rc::new(Cell::new(0));
    let seen = Rc::clone(&acknowledged);
    let (reached, mut progress) = tokio::sync::watch::channel(0);
    let engine = move |events: mpsc::Sender<GuestEvent>, _| async move {
        for number in 1..=LINES {
            events.send(line(number)).await.unwrap();
            assert!(number <= seen.get() as usize + most, "the engine must wait");
            reached.send_replace(number);
        }
        JobResult::Success
    };
    with_daemon(engine, async |machine| {
        // Nobody takes the events, and yet the job goes on for a while.
        progress.wait_for(|number| *number >= most / 2).await.unwrap();
        let mut host = Host::attach(&machine, 1).await;
        let mut events = Vec::new();
        host.take_all(&mut events, |seq| acknowledged.set(seq)).await;
        assert_eq!(events, all_lines(LINES, JobResult::Success));
    })
    .await;
}

#[tokio::test]
async fn a_cancel_reaches_the_engine() {
    with_daemon(prints_when_cancelled, async |machine| {
        let mut host = Host::attach(&machine, 1).await;
        host.send(&ToGuest::Cancel).await;
        assert_eq!(host.finish(1).await, all_lines(1, JobResult::Cancelled));
    })
    .await;
}

#[tokio::test]
async fn a_new_connection_replaces_the_old_but_only_when_it_attaches() {
    with_daemon(prints_and_waits(2), async |machine| {
        let mut old = Host::attach(&machine, 1).await;
        let silent = Host::connect(&machine).await;
        drop(Host::connect(&machine).await);
        assert_eq!(old.event().await, (1, line(1)));
        let mut new = Host::attach(&machine, 2).await;
        assert_eq!(new.event().await, (2, line(2)));
        assert_eq!(old.event().await, (2, line(2)), "sent before it was replaced");
        assert_eq!(old.receive().await, None);
        drop(silent);
        new.send(&ToGuest::Cancel).await;
        assert_eq!(new.finish(3).await, vec![GuestEvent::Finished(JobResult::Success)]);
    })
    .await;
}

#[tokio::test]
async fn faults_of_a_host_are_refused_and_harm_nothing() {
    with_daemon(prints(3), async |machine| {
        let refused = [
            (ToGuest::Attach { version: 99, from: 1 }, "the host version 99"),
            (ToGuest::Attach { version: ATTACH_VERSION, from: 0 }, "numbered from 1"),
            (ToGuest::Cancel, "must be an attach"),
            (ToGuest::Attach { version: ATTACH_VERSION, from: 1_000 }, "event 1000 is wanted"),
        ];
        for (first, reason) in refused {
            let refusal = Host::refused(&machine, &first).await;
            assert!(refusal.contains(reason), "{refusal}");
        }

        let mut host = Host::connect(&machine).await;
        host.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(host.refusal().await.contains("over the limit"));

        let mut host = Host::attach(&machine, 1).await;
        host.send(&ToGuest::Attach { version: ATTACH_VERSION, from: 1 }).await;
        assert!(host.refusal().await.contains("is attached"));

        let mut host = Host::attach(&machine, 1).await;
        assert_eq!(host.event().await.0, 1);
        host.send(&ToGuest::Ack { seq: 1_000 }).await;
        assert!(host.refusal().await.contains("event 1000 was not sent"));

        let mut host = Host::attach(&machine, 1).await;
        assert_eq!(host.finish(1).await, all_lines(3, JobResult::Success));
    })
    .await;
}

#[tokio::test]
async fn what_was_acknowledged_is_gone() {
    with_daemon(prints_and_waits(5), async |machine| {
        let mut host = Host::attach(&machine, 1).await;
        while host.event().await.0 < 5 {}
        host.send(&ToGuest::Ack { seq: 3 }).await;
        host.send(&ToGuest::Ack { seq: u64::MAX }).await;
        host.refusal().await;

        let mut host = Host::connect(&machine).await;
        host.send(&ToGuest::Attach { version: ATTACH_VERSION, from: 1 }).await;
        let answer = host.receive().await;
        assert!(matches!(answer, Some(FromGuest::Attached { next: 4, .. })), "{answer:?}");
        assert_eq!(host.event().await, (4, line(4)));
        host.send(&ToGuest::Cancel).await;
        host.finish(5).await;
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_breaks_or_tells_its_end_itself_ends_the_job_once() {
    let breaks = |events, _| async {
        lines(1, events).await;
        panic!("as the test wants it");
    };
    with_daemon(breaks, async |machine| {
        let events = Host::attach(&machine, 1).await.finish(1).await;
        let [_, GuestEvent::Log(notice), GuestEvent::Finished(JobResult::Failure)] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert!(notice.lines[0].text.to_text().contains("the step engine broke"));
    })
    .await;

    let tells = |events: mpsc::Sender<GuestEvent>, _| async move {
        events.send(GuestEvent::Finished(JobResult::Failure)).await.unwrap();
        // A task that the engine forgot and that holds on to the channel does not hold the job.
        tokio::task::spawn_local(async move { events.closed().await });
        JobResult::Success
    };
    with_daemon(tells, async |machine| {
        let events = Host::attach(&machine, 1).await.finish(1).await;
        assert_eq!(events, vec![GuestEvent::Finished(JobResult::Success)]);
    })
    .await;
}

#[tokio::test]
async fn the_end_of_the_machine_cancels_the_job_and_ends_the_daemon() {
    with_daemon(prints_when_cancelled, async |machine| {
        let mut host = Host::attach(&machine, 1).await;
        machine.terminate.cancel();
        assert_eq!(host.event().await, (1, line(1)));
        assert_eq!(host.event().await.1, GuestEvent::Finished(JobResult::Cancelled));
        // Never acknowledged: the grace ends it.
        assert_eq!(host.receive().await, None);
    })
    .await;
}

#[tokio::test]
async fn a_daemon_to_which_nobody_comes_ends_in_time() {
    with_lingering_daemon(Duration::from_millis(10), prints(3), async |_| {}).await;
}
