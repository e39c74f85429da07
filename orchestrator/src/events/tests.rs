use common::infrastructure::Cause;
use common::request::Secret;

use common::event::{StepStarted, Summary};
use common::guest::GuestEvent;
use common::limits;
use tokio::sync::mpsc;

use super::*;

struct Story {
    log: EventLog,
    events: mpsc::Receiver<JobEvent>,
}

fn story(secrets: &[&str]) -> Story {
    let (sender, events) = mpsc::channel(1000);
    let masker = Masker::new(secrets.iter().copied());
    let mut log = EventLog::new(JobId::new(), 2, masker, Outlet::Direct(sender));
    log.begin_try(1);
    Story { log, events }
}

fn started(step: u32) -> GuestEvent {
    let time = Timestamp::now();
    GuestEvent::StepStarted(StepStarted { step, name: format!("step {step}"), time })
}

fn finished(step: u32, conclusion: Conclusion) -> GuestEvent {
    GuestEvent::StepFinished(StepFinished {
        step,
        name: format!("step {step}"),
        outcome: conclusion,
        conclusion,
        took: Duration::ZERO,
        time: Timestamp::now(),
    })
}

fn line(step: u32, text: &str) -> GuestEvent {
    let line = LogLine { time: Timestamp::now(), stream: Stream::Stdout, text: text.into() };
    GuestEvent::Log(LogBatch { step: Some(step), lines: vec![line] })
}

impl Story {
    async fn guest(&mut self, event: GuestEvent) -> &mut Self {
        self.log.record(event).unwrap();
        self.log.commit().await.unwrap();
        self
    }

    /// Everything that came out, as JSON, after checking the numbers.
    async fn end(mut self) -> String {
        self.log.finish(JobResult::Success, None).await.unwrap();
        let mut seen = Vec::new();
        while let Some(event) = self.events.recv().await {
            seen.push(event);
        }
        for (index, event) in seen.iter().enumerate() {
            assert_eq!(event.seq, index as u64 + 1, "numbers have no holes");
        }
        assert!(matches!(seen.last().unwrap().event, EventBody::Finished(_)));
        serde_json::to_string(&seen).unwrap()
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_masked_is_told_of() {
    let long = "x".repeat(limits::MASK_BYTES + 1);
    let mut story = story(&[&long]);
    story.guest(started(0)).await.guest(GuestEvent::Mask(Secret::new(&*long))).await;
    let text = story.end().await;
    assert_eq!(text.matches("Not every value can be masked").count(), 1, "{text}");
}

/// The guest waits until the first is on disk; nobody waits for the others.
#[tokio::test]
async fn the_first_step_of_a_job_is_not_kept_waiting() {
    let mut story = story(&[]);
    story.log.record(started(0)).unwrap();
    assert!(story.log.urgent);
    story.log.urgent = false;
    story.log.record(finished(0, Conclusion::Success)).unwrap();
    story.log.record(started(1)).unwrap();
    assert!(!story.log.urgent);
}

#[tokio::test]
async fn a_phase_ends_with_its_try_and_its_job() {
    let mut story = story(&[]);
    story.log.phase(Phase::Image, None).await.unwrap();
    story.log.begin_try(2);
    story.log.phase(Phase::Boot, None).await.unwrap();
    let (log, mut events) = (story.log, story.events);
    log.finish(JobResult::Failure, None).await.unwrap();
    let mut ended = Vec::new();
    while let Some(event) = events.recv().await {
        if let EventBody::Phase(PhaseEvent { phase, took: Some(_), .. }) = event.event {
            ended.push((event.try_number, phase));
        }
    }
    assert_eq!(ended, [(1, Phase::Image), (2, Phase::Boot)]);
}

#[tokio::test]
async fn a_secret_is_masked_wherever_a_guest_puts_it() {
    let mut story = story(&["hunter2"]);
    story.guest(started(0)).await.guest(line(0, "a hunter2 b")).await;
    story.guest(GuestEvent::Mask(Secret::new("late"))).await.guest(line(0, "too late")).await;
    let markdown = "# hunter2".to_owned();
    story.guest(GuestEvent::Summary(Summary { step: 0, markdown })).await;
    let outputs = [("good", "1"), ("bad", "x hunter2")];
    let outputs = outputs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    story.guest(finished(0, Conclusion::Success)).await.guest(GuestEvent::Outputs(outputs)).await;
    let seen = story.end().await;
    assert!(!seen.contains("hunter2") && !seen.contains("too late"), "{seen}");
    assert!(seen.contains("a *** b") && seen.contains("too ***"), "{seen}");
    assert!(seen.contains("output 'bad' is withheld") && seen.contains(r#""good":"1""#), "{seen}");
}

#[tokio::test]
async fn events_that_break_the_rules_are_refused() {
    let cases = [
        vec![started(2)],
        vec![started(0), started(1)],
        vec![finished(0, Conclusion::Success)],
        vec![started(0), finished(1, Conclusion::Success)],
        vec![started(0), GuestEvent::Finished(JobResult::Success)],
        vec![line(7, "x")],
        vec![line(0, "a\nb")],
        vec![GuestEvent::Outputs([("a".to_owned(), "x".repeat(limits::OUTPUT_BYTES))].into())],
    ];
    for (number, mut events) in cases.into_iter().enumerate() {
        let mut story = story(&[]);
        let last = events.pop().unwrap();
        for event in events {
            story.guest(event).await;
        }
        let result = story.log.record(last);
        assert!(result.is_err(), "case {number}: {result:?}");
    }
}

#[tokio::test]
async fn a_skipped_step_needs_no_start() {
    let mut story = story(&[]);
    story.guest(finished(0, Conclusion::Skipped)).await;
    assert!(!story.log.user_step_started());
    story.guest(started(1)).await.guest(finished(1, Conclusion::Success)).await;
    assert!(story.log.user_step_started());
    story.end().await;
}

#[tokio::test]
async fn the_log_ends_with_one_notice_when_it_is_full() {
    let mut story = story(&[]);
    story.guest(started(0)).await;
    story.log.state.counts.log_lines = limits::LOG_LINES - 1;
    story.guest(line(0, "last")).await.guest(line(0, "over")).await.guest(line(0, "over")).await;
    story.guest(finished(0, Conclusion::Success)).await;
    let seen = story.end().await;
    assert!(seen.contains("last") && !seen.contains("over"), "{seen}");
    assert_eq!(seen.matches("The log is full").count(), 1);
}

#[tokio::test]
async fn a_cut_line_does_not_end_in_half_a_secret() {
    let mut story = story(&["correct-horse"]);
    let start = "x".repeat(limits::LOG_LINE_BYTES - limits::CUT_NOTICE_BYTES - 7);
    story.guest(started(0)).await;
    story.guest(line(0, &format!("{start}correct [99 more bytes of this line were cut]"))).await;
    story.guest(line(0, &format!("{}correct", "y".repeat(2 * limits::LOG_LINE_BYTES)))).await;
    story.guest(finished(0, Conclusion::Success)).await;
    let seen = story.end().await;
    assert!(seen.contains("*** [99 more bytes") && !seen.contains("correct"), "cut wrongly");
}

#[tokio::test]
async fn a_running_step_is_ended_when_its_machine_is_lost() {
    let mut story = story(&[]);
    story.guest(started(1)).await;
    story.log.abandon_step(Conclusion::Failure, "##[error]the machine rebooted").await.unwrap();
    let cause = Infrastructure::new(Cause::GuestRebooted, "it rebooted");
    let result = story.log.finish(JobResult::Failure, Some(cause)).await.unwrap();
    assert_eq!(result.infrastructure.unwrap().cause, Cause::GuestRebooted);
    let mut kinds = Vec::new();
    while let Ok(event) = story.events.try_recv() {
        kinds.push(event.event);
    }
    assert!(matches!(
        kinds.as_slice(),
        [
            EventBody::StepStarted(_),
            EventBody::Log(_),
            EventBody::StepFinished(StepFinished { conclusion: Conclusion::Failure, .. }),
            EventBody::Finished(_),
        ]
    ));
}

#[tokio::test]
async fn a_guest_that_could_not_write_is_to_blame_for_a_failed_job_only() {
    for (result, expected) in [(JobResult::Failure, true), (JobResult::Success, false)] {
        let mut story = story(&["hunter2"]);
        story.guest(GuestEvent::DiskFull("cannot write /hunter2/x".to_owned())).await;
        assert!(story.log.failure().is_none(), "the job is not over");
        story.guest(GuestEvent::Finished(result)).await;
        let failure = story.log.failure();
        assert_eq!(failure.as_ref().map(|f| f.cause), expected.then_some(Cause::GuestDiskFull));
        let Some(failure) = failure else { continue };
        let finished = story.log.finish(result, Some(failure)).await.unwrap();
        assert_eq!(finished.infrastructure.unwrap().message, "cannot write /***/x");
    }
}

#[tokio::test]
async fn a_new_try_knows_nothing_of_the_full_disk_before() {
    let mut story = story(&[]);
    story.guest(GuestEvent::DiskFull("cannot write /x".to_owned())).await;
    story.log.begin_try(2);
    story.guest(GuestEvent::Finished(JobResult::Failure)).await;
    assert!(story.log.failure().is_none());
}
