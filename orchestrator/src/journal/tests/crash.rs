//! Crashes at any point, with a guest that keeps what was not acknowledged.

use common::event::{Annotation, AnnotationLevel};
use proptest::prelude::*;

use super::*;

/// Another one, which the guest names on the way.
const LATE: &str = "[\nab\n]";

/// What one process does before it crashes.
#[derive(Clone, Debug)]
struct Life {
    /// The guest's events that it takes.
    events: usize,
    /// Whether each of them is committed by itself.
    commits: Vec<bool>,
    /// Turns that the other tasks get.
    turns: usize,
    /// Waits until everything that is committed is on disk.
    waits: bool,
    /// How much of what is not on disk is lost, in thousandths.
    lost: u64,
}

fn life() -> impl Strategy<Value = Life> {
    let commits = prop::collection::vec(any::<bool>(), 8);
    (0..12_usize, commits, 0..30_usize, prop::bool::weighted(0.3), 0..1000_u64).prop_map(
        |(events, commits, turns, waits, lost)| Life { events, commits, turns, waits, lost },
    )
}

/// A whole job as its guest tells it.
fn story() -> impl Strategy<Value = Vec<GuestEvent>> {
    let texts = prop::sample::select(vec![
        "{",
        "ab",
        "}",
        "x{",
        "} y",
        "plain",
        "late",
        "has late in it",
        SECRET,
        "",
    ]);
    let said = (texts, any::<bool>(), 0..12_u8);
    prop::collection::vec(said, 0..40).prop_map(|said| {
        let mut events = vec![started(0)];
        for (text, is_error, kind) in said {
            match kind {
                0 => events.push(GuestEvent::Mask("late".into_secret())),
                1 => events.push(GuestEvent::Mask(LATE.into_secret())),
                2 => events.push(GuestEvent::Annotation(annotation(text))),
                3..6 => events.extend(HELD.lines().map(|text| output(text, is_error))),
                6 => events.extend(LATE.lines().map(|text| output(text, is_error))),
                _ => events.push(output(text, is_error)),
            }
        }
        events.push(ended(0));
        events.push(GuestEvent::Finished(JobResult::Success));
        events
    })
}

fn output(text: &str, is_error: bool) -> GuestEvent {
    let stream = if is_error { Stream::Stderr } else { Stream::Stdout };
    let line = LogLine { time: Timestamp::from_micros(1), stream, text: text.into() };
    GuestEvent::Log(LogBatch { step: Some(0), lines: vec![line] })
}

fn annotation(text: &str) -> Annotation {
    Annotation {
        step: 0,
        level: AnnotationLevel::Notice,
        message: text.to_owned(),
        title: None,
        file: None,
        line: None,
        end_line: None,
        column: None,
        end_column: None,
    }
}

/// What comes out when nothing goes wrong.
async fn undisturbed(job: JobId, story: &[GuestEvent]) -> Vec<EventBody> {
    let (sender, mut events) = mpsc::channel(1000);
    let outlet = Outlet::Direct(sender);
    let mut log = EventLog::new(job, 3, Masker::new([SECRET, HELD]), outlet);
    log.begin_try(1);
    for event in story {
        log.record(event.clone()).unwrap();
    }
    log.finish(JobResult::Success, None).await.unwrap();
    let mut all = Vec::new();
    while let Some(event) = events.recv().await {
        all.push(event.event);
    }
    all
}

/// Lives one process and crashes it.
async fn live(host: &Host, job: JobId, story: &[GuestEvent], life: &Life) {
    let journals = host.open();
    let mut log = match journals.reopen(job, None).unwrap() {
        Some(reopened) if reopened.state.is_some() => resume(job, reopened),
        Some(reopened) => new_log(job, reopened.sender),
        None => new_log(job, journals.create(job, None).unwrap()),
    };
    let mut acknowledged = log.synced();
    let from = usize::try_from(log.next_guest_event()).unwrap() - 1;
    for (index, event) in story[from..].iter().take(life.events).enumerate() {
        log.record(event.clone()).unwrap();
        if life.commits[index % life.commits.len()] {
            log.commit().await.unwrap();
        }
    }
    for _ in 0..life.turns {
        tokio::task::yield_now().await;
    }
    if life.waits {
        log.commit().await.unwrap();
        synced(&log, log.next_guest_event() - 1).await;
    }
    journals.crash().await;
    let on_disk = journals.shared.jobs().get(&job).map_or(0, |job| job.synced_length());
    let file = std::fs::OpenOptions::new().write(true).open(host.file(job)).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - (length - on_disk) * life.lost / 1000).unwrap();
    // What the guest was told it may forget must be there.
    let acknowledged = *acknowledged.borrow_and_update();
    let journals = host.open();
    let state = journals.reopen(job, None).unwrap().and_then(|reopened| reopened.state);
    assert!(state.unwrap_or_default().guest_seq >= acknowledged);
    journals.crash().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_job_that_crashes_anywhere_tells_the_same_story(
        story in story(),
        lives in prop::collection::vec(life(), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let host = Host::new();
            let job = JobId::new();
            for life in &lives {
                live(&host, job, &story, life).await;
            }
            let journals = host.open();
            let mut log = match journals.reopen(job, None).unwrap() {
                Some(reopened) if reopened.state.is_some() => resume(job, reopened),
                Some(reopened) => new_log(job, reopened.sender),
                None => new_log(job, journals.create(job, None).unwrap()),
            };
            let from = usize::try_from(log.next_guest_event()).unwrap() - 1;
            for event in &story[from..] {
                log.record(event.clone()).unwrap();
                log.commit().await.unwrap();
            }
            assert_eq!(log.result(), Some(JobResult::Success));
            log.finish(JobResult::Success, None).await.unwrap();
            let seen = read_all(&journals, job).await;
            for (index, event) in seen.iter().enumerate() {
                assert_eq!((event.try_number, event.seq), (1, index as u64 + 1));
            }
            let seen: Vec<EventBody> = seen.into_iter().map(|event| event.event).collect();
            assert_eq!(seen, undisturbed(job, &story).await);
            // The file of a job whose events are all delivered gets another name.
            journals.crash().await;
            let bytes = std::fs::read(host.file(job)).unwrap();
            let canaries: [&[u8]; 3] = [SECRET.as_bytes(), b"has late in it", HELD.as_bytes()];
            for canary in canaries {
                assert!(!bytes.windows(canary.len()).any(|window| window == canary));
            }
        });
    }
}
