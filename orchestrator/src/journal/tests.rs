mod crash;
mod publish;

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::event::{
    Conclusion, EventBody, JobEvent, JobResult, LogBatch, LogLine, StepFinished, StepStarted,
    Stream,
};
use common::guest::GuestEvent;
use futures_util::future::BoxFuture;
use queue::QueueError;
use queue::message::EventBatch;
use tokio::sync::watch;

use super::*;
use crate::events::{EventLog, Outlet, ReceiverGone};
use crate::masking::Masker;

/// How long any of these tests may take before something is stuck; by the paused clock, so never.
const STUCK: Duration = Duration::from_secs(3600);

const SECRET: &str = "canary-secret-9f2c";
/// A secret of several lines: what may be its beginning is held back.
const HELD: &str = "{\nab\n}";
const LINE: &str = "canary line in plain text";

/// A directory of journals that can be opened again and again.
struct Host {
    directory: tempfile::TempDir,
    keys: KeyRing,
    id: HostId,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, keys: KeyRing::ephemeral(), id: HostId::new() }
    }

    fn settings(&self) -> JournalSettings {
        let directory = self.directory.path().join("journals");
        JournalSettings { directory, host: self.id, days: 14, bytes: 5 << 30 }
    }

    fn open(&self) -> Arc<Journals> {
        Journals::open(self.settings(), self.keys.clone(), None).unwrap()
    }

    fn open_with(&self, transport: &Arc<Runner>) -> Arc<Journals> {
        let transport: Arc<dyn Transport> = Arc::<Runner>::clone(transport);
        Journals::with_transport(self.settings(), self.keys.clone(), Some(transport)).unwrap()
    }

    fn file(&self, job: JobId) -> PathBuf {
        retention::find(&self.settings().directory, job).expect("the job has a file")
    }
}

/// A forge runner, on a queue that can fail.
struct Runner {
    keys: KeyRing,
    failures: AtomicUsize,
    attempts: AtomicUsize,
    seen: Mutex<Vec<JobEvent>>,
    /// Parts that were taken, and their bytes.
    taken: watch::Sender<(usize, u64)>,
}

impl Runner {
    fn new(host: &Host) -> Arc<Self> {
        Arc::new(Self {
            keys: host.keys.clone(),
            failures: AtomicUsize::new(0),
            attempts: AtomicUsize::new(0),
            seen: Mutex::default(),
            taken: watch::Sender::new((0, 0)),
        })
    }

    fn seen(&self) -> Vec<JobEvent> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until what it has seen is as wished.
    async fn wait(&self, wish: impl Fn(&[JobEvent]) -> bool) {
        let mut taken = self.taken.subscribe();
        let reached = taken.wait_for(|_| wish(&self.seen.lock().unwrap()));
        drop(tokio::time::timeout(STUCK, reached).await.expect("the events come").unwrap());
    }
}

impl Transport for Runner {
    fn publish<'a>(
        &'a self,
        to: &'a Address,
        batch: &'a EventBatch,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            self.attempts.fetch_add(1, Ordering::Relaxed);
            let fail = |left: usize| left.checked_sub(1);
            if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fail).is_ok() {
                let queue = to.to_string();
                return Err(QueueError::Unroutable { what: "events", queue });
            }
            let mut bytes = 0;
            for part in &batch.parts {
                bytes += part.message_bytes() as u64;
                self.seen.lock().unwrap().extend(part.open(&self.keys).unwrap());
            }
            self.taken.send_modify(|taken| {
                taken.0 += batch.parts.len();
                taken.1 += bytes;
            });
            Ok(())
        })
    }
}

fn address() -> Option<Address> {
    Some("runner-1".parse().unwrap())
}

fn new_log(job: JobId, sender: JournalSender) -> EventLog {
    let mut log = EventLog::new(job, 3, Masker::new([SECRET, HELD]), Outlet::Journal(sender));
    log.begin_try(1);
    log
}

fn resume(job: JobId, reopened: Reopened) -> EventLog {
    let outlet = Outlet::Journal(reopened.sender);
    let state = reopened.state.unwrap_or_default();
    EventLog::resume(job, 3, Masker::new([SECRET, HELD]), outlet, state)
}

fn started(step: u32) -> GuestEvent {
    let time = Timestamp::from_micros(1);
    GuestEvent::StepStarted(StepStarted { step, name: format!("step {step}"), time })
}

fn ended(step: u32) -> GuestEvent {
    GuestEvent::StepFinished(StepFinished {
        step,
        name: format!("step {step}"),
        outcome: Conclusion::Success,
        conclusion: Conclusion::Success,
        took: Duration::ZERO,
        time: Timestamp::from_micros(1),
    })
}

fn line(step: u32, text: &str) -> GuestEvent {
    let time = Timestamp::from_micros(1);
    let line = LogLine { time, stream: Stream::Stdout, text: text.into() };
    GuestEvent::Log(LogBatch { step: Some(step), lines: vec![line] })
}

/// The texts of all lines.
fn lines(events: &[JobEvent]) -> Vec<String> {
    let batches = events.iter().filter_map(|event| match &event.event {
        EventBody::Log(batch) => Some(&batch.lines),
        _ => None,
    });
    batches.flatten().map(|line| line.text.to_text().into_owned()).collect()
}

async fn read_all(journals: &Journals, job: JobId) -> Vec<JobEvent> {
    let mut follower = journals.follow(job).unwrap().expect("there is a journal");
    let mut all = Vec::new();
    while let Some(events) = follower.next_written().await.unwrap() {
        all.extend(events);
    }
    all
}

/// Waits until the guest's events up to this one are on disk.
async fn synced(log: &EventLog, seq: u64) {
    let mut synced = log.synced();
    let waited = tokio::time::timeout(STUCK, synced.wait_for(|now| *now >= seq)).await;
    drop(waited.expect("what is written is synced").unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_job_is_followed_while_it_is_written_and_kept_after_it() {
    let host = Host::new();
    let journals = host.open();
    let job = JobId::new();
    let sender = journals.create(job, None).unwrap();
    assert!(journals.has(job) && !journals.has(JobId::new()));
    let mut follower = journals.follow(job).unwrap().unwrap();
    assert_eq!(follower.next_written().await.unwrap(), None);
    let following = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(events) = follower.next().await.unwrap() {
            all.extend(events);
        }
        all
    });
    let mut log = new_log(job, sender);
    for event in [started(0), line(0, LINE), line(0, &format!("x {SECRET} y")), ended(0)] {
        log.record(event).unwrap();
        log.commit().await.unwrap();
        // The follower has its turn in between.
        tokio::task::yield_now().await;
    }
    let finished = log.finish(JobResult::Success, None).await.unwrap();
    // It returned, so the final event is in the file.
    let written = read_all(&journals, job).await;
    assert_eq!(written.last().unwrap().event, EventBody::Finished(finished));
    let followed = following.await.unwrap();
    assert_eq!(followed, written);
    assert_eq!(lines(&followed), [LINE, "x *** y"]);
    let bytes = std::fs::read(host.file(job)).unwrap();
    for canary in [SECRET, LINE] {
        assert!(!bytes.windows(canary.len()).any(|window| window == canary.as_bytes()));
    }
    journals.close().await;
    let path = host.file(job);
    assert!(path.extension().is_some_and(|extension| extension == "done"), "{path:?}");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path) & 0o777, 0o600);
    assert_eq!(mode(path.parent().unwrap()) & 0o777, 0o700);
    assert_eq!(read_all(&host.open(), job).await, written);
}

#[tokio::test(start_paused = true)]
async fn closing_brings_everything_on_disk_and_a_new_process_goes_on() {
    let host = Host::new();
    let job = JobId::new();
    let journals = host.open();
    let mut log = new_log(job, journals.create(job, None).unwrap());
    log.record(started(0)).unwrap();
    log.record(GuestEvent::Mask("late-secret".into_secret())).unwrap();
    log.commit().await.unwrap();
    let acknowledged = log.synced();
    journals.close().await;
    assert_eq!(*acknowledged.borrow(), 2);
    assert_eq!(log.notice("too late").await, Err(ReceiverGone));
    // Twice, so that what was taken over is taken over again.
    for number in 0..2 {
        let journals = host.open();
        let reopened = journals.reopen(job, None).unwrap().unwrap();
        assert!(reopened.finished.is_none());
        let mut log = resume(job, reopened);
        assert!(log.user_step_started());
        assert_eq!(log.next_guest_event(), 3 + number);
        log.record(line(0, &format!("{number} late-secret"))).unwrap();
        log.commit().await.unwrap();
        journals.close().await;
    }
    let journals = host.open();
    let mut log = resume(job, journals.reopen(job, None).unwrap().unwrap());
    log.record(ended(0)).unwrap();
    assert_eq!(log.record(GuestEvent::Finished(JobResult::Failure)), Ok(Some(JobResult::Failure)));
    log.commit().await.unwrap();
    journals.close().await;
    let journals = host.open();
    let reopened = journals.reopen(job, None).unwrap().unwrap();
    assert_eq!(reopened.state.as_ref().unwrap().result, Some(JobResult::Failure));
    resume(job, reopened).finish(JobResult::Failure, None).await.unwrap();
    let events = read_all(&journals, job).await;
    assert_eq!(lines(&events), ["0 ***", "1 ***"]);
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    journals.close().await;
    let reopened = host.open().reopen(job, None).unwrap().unwrap();
    assert_eq!(reopened.finished.unwrap().result, JobResult::Failure);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_is_open_can_be_reopened_and_cuts_the_sender_off() {
    let host = Host::new();
    let journals = host.open();
    let job = JobId::new();
    let mut before = new_log(job, journals.create(job, None).unwrap());
    assert!(matches!(journals.create(job, None), Err(JournalError::Exists { .. })));
    let mut follower = journals.follow(job).unwrap().unwrap();
    before.notice("before").await.unwrap();
    // It may still wait for the writer: reopening writes it.
    let mut after = resume(job, journals.reopen(job, None).unwrap().unwrap());
    assert_eq!(before.notice("lost").await, Err(ReceiverGone));
    after.begin_try(2);
    after.notice("after").await.unwrap();
    after.finish(JobResult::Success, None).await.unwrap();
    let mut all = Vec::new();
    while let Some(events) = follower.next().await.unwrap() {
        all.extend(events);
    }
    assert_eq!(lines(&all), ["before", "after"], "who follows does not notice");
    let places: Vec<_> = all.iter().map(|event| (event.try_number, event.seq)).collect();
    assert_eq!(places, [(1, 1), (2, 1), (2, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_try_whose_begin_was_lost_begins() {
    let host = Host::new();
    let job = JobId::new();
    drop(host.open().create(job, None).unwrap());
    let journals = host.open();
    let reopened = journals.reopen(job, None).unwrap().unwrap();
    assert!(reopened.state.is_none(), "nothing was written");
    let mut log = resume(job, reopened);
    log.go_on_in_try(1);
    log.record(started(0)).unwrap();
    log.go_on_in_try(1);
    assert_eq!((log.try_number(), log.next_guest_event()), (1, 2));
    log.commit().await.unwrap();
    log.go_on_in_try(2);
    assert_eq!((log.try_number(), log.next_guest_event()), (2, 1));
    // Events without a try cannot be written.
    log.finish(JobResult::Failure, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_given_up_loses_and_doubles_nothing() {
    let host = Host::new();
    let journals = host.open();
    let job = JobId::new();
    let mut log = new_log(job, journals.create(job, None).unwrap());
    log.record(started(0)).unwrap();
    let mut expected = Vec::new();
    for number in 0..200 {
        let text = format!("{number} {}", "x".repeat(4000));
        log.record(line(0, &text)).unwrap();
        expected.push(text);
        // The writer has no turn in between, so that there is no room soon.
        let commit = log.commit();
        tokio::pin!(commit);
        drop(futures_util::poll!(&mut commit));
    }
    log.record(ended(0)).unwrap();
    log.finish(JobResult::Success, None).await.unwrap();
    assert_eq!(lines(&read_all(&journals, job).await), expected);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_finished_jobs_go_first_and_others_stay() {
    let host = Host::new();
    let journals = host.open();
    let now = Timestamp::now();
    let mut finished = Vec::new();
    for number in 0..4_u64 {
        let job = JobId::new();
        let log = new_log(job, journals.create(job, None).unwrap());
        log.finish(JobResult::Success, None).await.unwrap();
        finished.push((job, number));
    }
    let running = JobId::new();
    let _log = new_log(running, journals.create(running, None).unwrap());
    journals.close().await;
    let day = 24 * 3600 * 1_000_000;
    let set_age = |job: JobId, days: u64| {
        let time = Timestamp::from_micros(now.as_micros() - days * day);
        let file = std::fs::OpenOptions::new().write(true).open(host.file(job)).unwrap();
        file.set_modified(time.into()).unwrap();
    };
    for (job, number) in &finished {
        set_age(*job, 4 - number);
    }
    let size = std::fs::metadata(host.file(finished[0].0)).unwrap().len();
    let settings = JournalSettings { bytes: 3 * size, days: 3, ..host.settings() };
    let journals = Journals::open(settings, host.keys.clone(), None).unwrap();
    let _sender = journals.reopen(running, None).unwrap().unwrap();
    set_age(running, 100);
    journals.sweep(now).await;
    let left = |journals: &Journals| -> Vec<u64> {
        finished.iter().filter(|(job, _)| journals.has(*job)).map(|(_, number)| *number).collect()
    };
    assert_eq!(left(&journals), [1, 2, 3], "the first is older than three days");
    assert!(journals.has(running), "it is not finished, and somebody works on it");
    journals.close().await;
    let settings = JournalSettings { bytes: 2 * size, ..host.settings() };
    let journals = Journals::open(settings, host.keys.clone(), None).unwrap();
    journals.sweep(now).await;
    assert_eq!(left(&journals), [2, 3], "three take too much room");
    assert!(!journals.has(running), "nobody has gone on with it for a hundred days");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_the_job_that_writes_and_loses_nothing() {
    let host = Host::new();
    let journals = host.open();
    let job = JobId::new();
    let mut log = new_log(job, journals.create(job, None).unwrap());
    log.record(started(0)).unwrap();
    log.commit().await.unwrap();
    synced(&log, 1).await;
    let shared = journals.shared.jobs().get(&job).cloned().unwrap();
    let good = shared.swap_file(crate::segment::tests::full_disk());
    let mut expected = Vec::new();
    let mut bytes = 0;
    loop {
        let text = format!("{} {}", expected.len(), "x".repeat(10_000));
        bytes += text.len();
        log.record(line(0, &text)).unwrap();
        expected.push(text);
        // Long enough for many attempts.
        if tokio::time::timeout(Duration::from_secs(60), log.commit()).await.is_err() {
            break;
        }
        assert!(bytes < 1 << 20, "what waits is bounded");
    }
    assert_eq!(*log.synced().borrow(), 1, "nothing more may be forgotten by the guest");
    // The others go on.
    let other = JobId::new();
    let mut fine = new_log(other, journals.create(other, None).unwrap());
    fine.record(started(0)).unwrap();
    fine.commit().await.unwrap();
    synced(&fine, 1).await;
    drop(shared.swap_file(good));
    log.record(ended(0)).unwrap();
    log.commit().await.unwrap();
    synced(&log, expected.len() as u64 + 2).await;
    assert_eq!(lines(&read_all(&journals, job).await), expected);
}

/// A value to mask.
trait IntoSecret {
    fn into_secret(self) -> common::request::Secret;
}

impl IntoSecret for &str {
    fn into_secret(self) -> common::request::Secret {
        common::request::Secret::new(self)
    }
}
