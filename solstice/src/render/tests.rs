//! Recorded events against what they look like. `SOLSTICE_UPDATE_GOLDEN=1` writes the files anew.

use std::io::Write;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use common::event::{EventBody, Kept};
use common::event::{Finished, JobResult, LogBatch, LogLine, Phase, Stream};
use common::infrastructure::{Cause, Infrastructure};
use common::time::Timestamp;

use super::progress::{Progress, Shared};
use super::*;

/// How long a thread that renders may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/render")).join(name)
}

fn recorded(name: &str) -> Vec<JobEvent> {
    let text = std::fs::read_to_string(file(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The items of a recorded run: each job is named when it is first seen.
fn items(name: &str, names: &[&str], report: Report) -> Vec<Item> {
    let mut seen = Vec::new();
    let mut items = Vec::new();
    for event in recorded(name) {
        if !seen.contains(&event.job) {
            let name = names[seen.len()].to_owned();
            items.push(Item::Started(StartedJob { id: event.job, name }));
            seen.push(event.job);
        }
        items.push(Item::Event(event));
    }
    items.push(Item::Report(report));
    items
}

fn output(sink: &Shared, colours: bool) -> Output {
    let progress = Progress::plain(Box::new(sink.clone()));
    Output::new(Box::new(sink.clone()), colours, progress)
}

fn rendered(mut render: impl Render, items: Vec<Item>, sink: &Shared) -> String {
    for item in items {
        render.item(item).unwrap();
    }
    render.flush().unwrap();
    let bytes = sink.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    String::from_utf8(bytes).unwrap()
}

fn check(golden: &str, text: &str) {
    let path = file(golden);
    if std::env::var_os("SOLSTICE_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(expected == text, "{golden} differs from:\n{text}");
}

fn job(name: &str, result: JobResult, took_ms: u64) -> JobReport {
    JobReport {
        id: Some("01890000-0000-7000-8000-00000000000a".parse().unwrap()),
        job: "build".to_owned(),
        name: name.to_owned(),
        matrix: serde_json::Value::Null,
        result,
        failure_counts: true,
        infrastructure: None,
        took_ms,
        phases_ms: Vec::new(),
        outputs: Default::default(),
        kept: None,
    }
}

fn one_job() -> Report {
    let until = serde_json::from_str("\"2026-11-01T14:00:00Z\"").unwrap();
    let build = JobReport {
        phases_ms: vec![(Phase::Image, 100), (Phase::Boot, 8_250), (Phase::Steps, 80_000)],
        kept: Some(Kept { machine: "build-1f2e3d".to_owned(), until, frozen: false }),
        ..job("build", JobResult::Failure, 89_500)
    };
    Report {
        workflow: "ci.yml".to_owned(),
        jobs: vec![build],
        result: JobResult::Failure,
        exit_code: 1,
        took_ms: 89_500,
    }
}

fn two_jobs() -> Report {
    let cause = Infrastructure::new(Cause::BootTimeout, "no answer in 60 s");
    let mut jobs = vec![
        JobReport { infrastructure: Some(cause), ..job("test (ü)", JobResult::Failure, 120_000) },
        job("a", JobResult::Cancelled, 6_000),
        JobReport { failure_counts: false, ..job("lint", JobResult::Failure, 1_000) },
        JobReport { id: None, ..job("deploy", JobResult::Skipped, 0) },
    ];
    jobs[0].outputs.insert("version".to_owned(), "1".to_owned());
    Report {
        workflow: "ci.yml".to_owned(),
        jobs,
        result: JobResult::Failure,
        exit_code: 2,
        took_ms: 126_000,
    }
}

#[test]
fn one_job_as_text() {
    let sink = Shared::default();
    let human = Human::new(output(&sink, false), false, false);
    check("one-job.txt", &rendered(human, items("one-job.jsonl", &["build"], one_job()), &sink));
}

#[test]
fn one_job_in_colours() {
    let sink = Shared::default();
    let human = Human::new(output(&sink, true), false, true);
    let text = rendered(human, items("one-job.jsonl", &["build"], one_job()), &sink);
    // Escapes as text, so that the file can be read and compared anywhere.
    check("one-job-colours.txt", &text.replace('\x1b', "<ESC>"));
}

#[test]
fn two_jobs_have_their_names_in_front() {
    let sink = Shared::default();
    let human = Human::new(output(&sink, false), true, false);
    let items = items("two-jobs.jsonl", &["a", "test (ü)"], two_jobs());
    check("two-jobs.txt", &rendered(human, items, &sink));
}

#[test]
fn as_json_the_events_are_what_they_were_and_the_report_is_last() {
    let sink = Shared::default();
    let text = rendered(
        Json::new(output(&sink, false)),
        items("one-job.jsonl", &["build"], one_job()),
        &sink,
    );
    let (events, last) = text.trim_end().rsplit_once('\n').unwrap();
    let events: Vec<JobEvent> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events, recorded("one-job.jsonl"));
    assert!(
        text.lines().all(|line| line == last || line.starts_with(r#"{"name":"build","job":""#))
    );
    check("one-job-summary.json", &format!("{last}\n"));
}

fn line(job: JobId, seq: u64, text: &str) -> Item {
    let time = Timestamp::from_micros(0);
    let line = LogLine { time, stream: Stream::Stdout, text: text.into() };
    let batch = LogBatch { step: Some(0), lines: vec![line] };
    Item::Event(JobEvent { job, try_number: 1, seq, time, event: EventBody::Log(batch) })
}

/// Tells when something was written.
struct Written(std::sync::mpsc::Sender<Vec<u8>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).unwrap();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_single_line_is_written_at_once() {
    let (sender, written) = std::sync::mpsc::channel();
    let output = Output::new(Box::new(Written(sender)), false, Progress::Hidden);
    let never = CancellationToken::new();
    let screen =
        Screen::start(Box::new(Human::new(output, false, false)), CancellationToken::new())
            .unwrap();
    let id = JobId::new();
    screen.show(Item::Started(StartedJob { id, name: "a".to_owned() }), &never).await;
    for seq in 1..4 {
        let text = format!("line {seq}");
        screen.show(line(id, seq, &text), &never).await;
        let got = written.recv_timeout(PATIENCE).unwrap();
        assert_eq!(got, format!("  {text}\n").as_bytes());
    }
    screen.finish(&never).await;
}

#[test]
fn a_flood_costs_few_writes() {
    let (sender, written) = std::sync::mpsc::channel();
    let output = Output::new(Box::new(Written(sender)), false, Progress::Hidden);
    let mut human = Human::new(output, false, false);
    let id = JobId::new();
    human.item(Item::Started(StartedJob { id, name: "a".to_owned() })).unwrap();
    for seq in 1..=20_000 {
        human.item(line(id, seq, "twenty-two bytes a line")).unwrap();
    }
    human.flush().unwrap();
    drop(human);
    let writes: Vec<usize> = written.iter().map(|bytes| bytes.len()).collect();
    assert_eq!(writes.iter().sum::<usize>(), 20_000 * 26);
    assert!(writes.len() <= 9, "{} writes", writes.len());
}

/// Standard output that was closed.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_closed_output_is_reported_and_blocks_nobody() {
    let output = Output::new(Box::new(Closed), false, Progress::Hidden);
    let (closed, never) = (CancellationToken::new(), CancellationToken::new());
    let screen = Screen::start(Box::new(Human::new(output, false, false)), closed.clone()).unwrap();
    let id = JobId::new();
    screen.show(Item::Started(StartedJob { id, name: "a".to_owned() }), &never).await;
    for seq in 1..100 {
        screen.show(line(id, seq, "text"), &never).await;
    }
    tokio::time::timeout(PATIENCE, screen.closed()).await.unwrap();
    tokio::time::timeout(PATIENCE, screen.finish(&never)).await.unwrap();
    assert!(closed.is_cancelled());
}

#[tokio::test]
async fn a_terminal_that_nobody_reads_does_not_hold_up_the_end() {
    /// Blocks until the test ends.
    struct Stuck(std::sync::mpsc::Receiver<()>);
    impl Render for Stuck {
        fn item(&mut self, _: Item) -> io::Result<()> {
            self.0.recv().map_err(|_| io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (release, stuck) = std::sync::mpsc::channel();
    let give_up = CancellationToken::new();
    let screen = Screen::start(Box::new(Stuck(stuck)), CancellationToken::new()).unwrap();
    let id = JobId::new();
    for seq in 1..=WAITING_ITEMS as u64 + 1 {
        screen.show(line(id, seq, "text"), &give_up).await;
    }
    give_up.cancel();
    let rest = async {
        screen.show(line(id, 99, "dropped"), &give_up).await;
        screen.finish(&give_up).await;
    };
    tokio::time::timeout(PATIENCE, rest).await.unwrap();
    drop(release);
}

#[test]
fn events_of_a_job_that_nobody_started_are_dropped() {
    let sink = Shared::default();
    let mut human = Human::new(output(&sink, false), false, false);
    human.item(line(JobId::new(), 1, "stray")).unwrap();
    let finished = Finished { result: JobResult::Success, infrastructure: None };
    let time = Timestamp::from_micros(0);
    let event = EventBody::Finished(finished);
    let stray = JobEvent { job: JobId::new(), try_number: 1, seq: 1, time, event };
    assert_eq!(rendered(human, vec![Item::Event(stray)], &sink), "");
}
