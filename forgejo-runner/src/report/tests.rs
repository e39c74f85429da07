//! Rows and steps as a user sees them.

use common::JobId;
use common::event::{Finished, LogLine, Stream};
use common::infrastructure::{Cause, Infrastructure};
use common::text::LogText;
use proptest::prelude::*;

use super::*;

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000_000 + micros)
}

/// A job whose events are told one after the other.
struct Story {
    report: Report,
    rows: Vec<String>,
    job: JobId,
    seq: u64,
}

impl Story {
    fn of(steps: usize) -> Self {
        let mut report = Report::new(steps);
        let rows = report.open(at(0), &["job x".to_owned()]);
        let rows = rows.into_iter().map(|row| row.text).collect();
        Self { report, rows, job: JobId::new(), seq: 0 }
    }

    fn tell(&mut self, event: EventBody) {
        self.tell_in(1, event);
    }

    fn tell_in(&mut self, try_number: u32, event: EventBody) {
        self.seq += 1;
        let event =
            JobEvent { job: self.job, try_number, seq: self.seq, time: at(self.seq), event };
        let rows = self.report.take(&event);
        self.rows.extend(rows.into_iter().map(|row| row.text));
    }

    fn log(&mut self, step: Option<u32>, lines: &[&str]) {
        let lines = lines.iter().map(|text| LogLine {
            time: at(self.seq),
            stream: Stream::Stdout,
            text: LogText::from(*text),
        });
        let lines = lines.collect();
        self.tell(EventBody::Log(LogBatch { step, lines }));
    }

    fn phase(&mut self, phase: Phase, took: Option<u64>, detail: Option<&str>) {
        let took = took.map(Duration::from_millis);
        self.tell(EventBody::Phase(PhaseEvent { phase, took, detail: detail.map(str::to_owned) }));
    }

    fn start(&mut self, step: u32) {
        let time = at(self.seq);
        self.tell(EventBody::StepStarted(StepStarted { step, name: String::new(), time }));
    }

    fn end(&mut self, step: u32, conclusion: Conclusion) {
        self.tell(EventBody::StepFinished(StepFinished {
            step,
            name: String::new(),
            outcome: conclusion,
            conclusion,
            took: Duration::ZERO,
            time: at(self.seq),
        }));
    }

    fn finish(&mut self, result: Conclusion) {
        self.tell(EventBody::Finished(Finished { result, infrastructure: None }));
    }

    /// The rows of each step, and how it ended.
    fn steps(&self) -> Vec<(Vec<&str>, TaskResult)> {
        let state = self.report.state(7, self.report.rows(), false);
        let steps = state.steps.iter().map(|step| {
            let from = usize::try_from(step.log_index).unwrap();
            let rows = &self.rows[from..from + usize::try_from(step.log_length).unwrap()];
            (rows.iter().map(String::as_str).collect(), step.result.as_known().unwrap())
        });
        steps.collect()
    }
}

#[test]
fn rows_are_the_set_up_then_the_steps_then_the_completion() {
    let mut story = Story::of(3);
    story.phase(Phase::Boot, None, Some("tiny with 1 CPU"));
    story.log(None, &["Running under tcg"]);
    story.phase(Phase::Boot, Some(2100), None);
    story.phase(Phase::Steps, None, None);
    story.start(0);
    story.log(Some(0), &["a", "b"]);
    story.end(0, Conclusion::Success);
    story.log(None, &["a notice between"]);
    story.end(1, Conclusion::Skipped);
    story.start(2);
    story.log(Some(2), &["c"]);
    story.end(2, Conclusion::Failure);
    story.log(None, &["post"]);
    story.phase(Phase::Steps, Some(10), None);
    story.phase(Phase::Cleanup, Some(300), None);
    story.finish(Conclusion::Failure);
    assert_eq!(
        story.rows,
        [
            "##[group]Set up the machine",
            "job x",
            "boot ... (tiny with 1 CPU)",
            "Running under tcg",
            "boot: 2.1 s",
            "##[endgroup]",
            "a",
            "b",
            "a notice between",
            "c",
            "post",
            "cleanup: 0.3 s",
            "The job failed",
        ]
    );
    assert_eq!(
        story.steps(),
        [
            (vec!["a", "b"], TaskResult::RESULT_SUCCESS),
            (vec![], TaskResult::RESULT_SKIPPED),
            (vec!["a notice between", "c"], TaskResult::RESULT_FAILURE),
        ]
    );
    let state = story.report.state(7, story.report.rows(), false);
    assert_eq!(state.result.as_known(), Some(TaskResult::RESULT_FAILURE));
    assert!(state.stopped_at.as_option().is_some());
    let early = story.report.state(7, 8, false);
    assert_eq!(early.result.as_known(), Some(TaskResult::RESULT_UNSPECIFIED));
    assert_eq!((early.steps[0].log_index, early.steps[0].log_length), (6, 2));
    assert_eq!(early.steps[2].result.as_known(), Some(TaskResult::RESULT_UNSPECIFIED));
}

#[test]
fn more_than_can_wait_between_two_steps_belongs_to_the_first() {
    let mut story = Story::of(2);
    story.phase(Phase::Steps, None, None);
    story.start(0);
    story.end(0, Conclusion::Success);
    let lines = vec!["between"; HELD_ROWS];
    story.log(None, &lines);
    let before = story.rows.len();
    story.log(None, &["one more"]);
    assert_eq!(story.rows.len(), before + HELD_ROWS + 1);
    story.log(None, &["the next waits again"]);
    story.start(1);
    story.log(Some(1), &["x"]);
    story.end(1, Conclusion::Success);
    story.finish(Conclusion::Success);
    let steps = story.steps();
    assert_eq!(steps[0].0.len(), HELD_ROWS + 1);
    assert_eq!(steps[1].0, ["the next waits again", "x"]);
}

#[test]
fn the_console_has_a_fold_of_its_own() {
    let mut story = Story::of(1);
    let console =
        |text: &str| LogLine { time: at(0), stream: Stream::Console, text: LogText::from(text) };
    let tell = |story: &mut Story, lines| {
        story.tell(EventBody::Log(LogBatch { step: None, lines }));
    };
    tell(&mut story, vec![console("kernel")]);
    tell(&mut story, vec![console("more")]);
    story.log(None, &["a notice"]);
    tell(&mut story, vec![console("again")]);
    story.start(0);
    tell(&mut story, vec![console("late")]);
    assert_eq!(
        story.rows[2..],
        [
            "##[group]Console",
            "kernel",
            "more",
            "##[endgroup]",
            "a notice",
            "##[group]Console",
            "again",
            "##[endgroup]",
            "##[endgroup]",
            "console: late",
        ]
    );
}

#[test]
fn steps_without_an_end_get_one() {
    let mut story = Story::of(3);
    story.start(0);
    story.end(0, Conclusion::Success);
    story.start(1);
    story.log(Some(1), &["running"]);
    let lost = Infrastructure::new(Cause::SshLost, "gone");
    let (result, infrastructure) = (Conclusion::Failure, Some(lost));
    story.tell_in(2, EventBody::Finished(Finished { result, infrastructure }));
    let ends: Vec<TaskResult> = story.steps().into_iter().map(|(_, end)| end).collect();
    use TaskResult::{RESULT_CANCELLED, RESULT_FAILURE, RESULT_SUCCESS};
    assert_eq!(ends, [RESULT_SUCCESS, RESULT_FAILURE, RESULT_CANCELLED]);
    assert_eq!(story.rows.last().unwrap(), "The infrastructure failed, not the job: SOL-SSH-LOST");

    let mut skipped = Report::new(2);
    let rows = skipped.end_without_job(at(0), Conclusion::Skipped, &[]);
    assert_eq!(rows.len(), 1, "no_more needs a row");
    let state = skipped.state(1, 1, false);
    assert!(state.steps.iter().all(|s| s.result.as_known() == Some(TaskResult::RESULT_SKIPPED)));
}

#[test]
fn a_second_try_is_seen_and_changes_nothing_else() {
    let mut story = Story::of(1);
    story.phase(Phase::Boot, Some(100), None);
    story.tell_in(2, EventBody::Phase(PhaseEvent { phase: Phase::Boot, took: None, detail: None }));
    assert_eq!(story.rows.last().unwrap(), "Try 2 on a fresh machine");
    story.tell_in(
        2,
        EventBody::StepStarted(StepStarted { step: 0, name: String::new(), time: at(9) }),
    );
    story.finish(Conclusion::Success);
    assert_eq!(story.report.conclusion(), Some(Conclusion::Success));
}

#[test]
fn outputs_that_no_server_keeps_are_dropped_with_a_notice() {
    let mut story = Story::of(0);
    let large = "x".repeat(OUTPUT_VALUE_BYTES + 1);
    let long = "n".repeat(OUTPUT_NAME_BYTES + 1);
    let outputs =
        [("a".to_owned(), large), (long, "v".to_owned()), ("b".to_owned(), "1".to_owned())];
    story.tell(EventBody::Outputs(BTreeMap::from(outputs)));
    story.finish(Conclusion::Success);
    assert_eq!(story.report.sent_outputs().keys().collect::<Vec<_>>(), ["b"]);
    let dropped = story.rows.iter().filter(|row| row.contains("was dropped")).count();
    assert_eq!(dropped, 2);
}

#[test]
fn a_row_is_text_of_a_size_that_servers_keep() {
    let line = |bytes: Vec<u8>| LogLine {
        time: at(0),
        stream: Stream::Stdout,
        text: LogText::from(bytes),
    };
    assert_eq!(Row::of_line(&line(b"a\xff b\r".to_vec()), false).text, "a\u{fffd} b");
    let cut = Row::of_line(&line(vec![0xff; ROW_BYTES]), false).text;
    assert!(cut.len() <= ROW_BYTES && cut.ends_with(CUT_END), "{}", cut.len());
    assert_eq!(Row::new(at(0), "a\nb").text, "a b");
}

const CUT_END: &str = " [cut]";

proptest! {
    /// The ranges of the steps follow each other from the end of the set-up to the begin of the
    /// completion, whatever happens in between.
    #[test]
    fn ranges_have_neither_gaps_nor_overlaps(
        story in prop::collection::vec((0..6_u8, 0..4_u32, 0..3_usize), 0..60),
        steps in 0..4_usize,
    ) {
        let mut told = Story::of(steps);
        let (mut current, mut next) = (None, 0);
        let count = u32::try_from(steps).unwrap();
        for (what, _, lines) in story {
            match (what, current) {
                (0, None) if next < count => { told.start(next); current = Some(next); }
                (0 | 1, Some(step)) => { told.end(step, Conclusion::Success); current = None; next = step + 1; }
                (2, None) if next < count => { told.end(next, Conclusion::Skipped); next += 1; }
                (3, _) => told.log(None, &["n"; 3][..lines]),
                (4, Some(step)) => told.log(Some(step), &["l"; 3][..lines]),
                _ => told.phase(Phase::Boot, Some(1), None),
            }
        }
        told.finish(Conclusion::Success);
        prop_assert_eq!(told.rows.len() as u64, told.report.rows());
        let state = told.report.state(1, told.report.rows(), false);
        prop_assert_eq!(state.steps.len(), steps);
        let ran: Vec<_> = state.steps.iter().filter(|step| step.log_length > 0).collect();
        for pair in ran.windows(2) {
            prop_assert_eq!(pair[0].log_index + pair[0].log_length, pair[1].log_index);
        }
        for row in &told.rows[..] {
            prop_assert!(!row.contains('\n'));
        }
    }
}
