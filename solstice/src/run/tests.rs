//! Whole runs against a host that only pretends: a workflow in, what was run when, and the report.

mod called;

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use clap::Parser;
use common::event::{EventBody, Finished, JobEvent, JobResult};
use common::infrastructure::{Cause, Infrastructure};
use common::request::JobRequest;
use tokio::sync::{Notify, mpsc};

use super::execute::JobControl;
use super::*;
use crate::cli::{Cli, Command};
use crate::render::{Item, JobReport, Report};

/// How long a run that only pretends may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What becomes of a job.
#[derive(Clone)]
enum End {
    Passes(&'static [(&'static str, &'static str)]),
    Fails,
    Breaks,
    /// Runs until it is cancelled.
    Hangs,
    /// Runs until it is destroyed.
    Resists,
}

/// Ends each job as the story says, success where it says nothing.
#[derive(Default)]
struct FakeHost {
    ends: BTreeMap<&'static str, End>,
    requests: Mutex<Vec<JobRequest>>,
    running: Mutex<usize>,
    most: Mutex<usize>,
    started: Notify,
}

impl Labels for FakeHost {
    fn has_label(&self, label: &str) -> Result<(), String> {
        match label {
            "tiny" | "debian-12" => Ok(()),
            _ => Err(format!("no image has the label {label:?}")),
        }
    }
}

impl Runner for FakeHost {
    async fn run(
        &self,
        request: JobRequest,
        events: mpsc::Sender<JobEvent>,
        control: JobControl,
    ) -> Finished {
        let (job, name) = (request.envelope.job, request.body.plan.name.clone());
        self.requests.lock().unwrap().push(request);
        let now = {
            let mut running = self.running.lock().unwrap();
            *running += 1;
            *running
        };
        {
            let mut most = self.most.lock().unwrap();
            *most = now.max(*most);
        }
        self.started.notify_waiters();
        // Others that may run get their turn, so that `most` sees them.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let end = self.ends.get(name.as_str()).cloned().unwrap_or(End::Passes(&[]));
        let (result, outputs, infrastructure) = match end {
            End::Passes(outputs) => (JobResult::Success, outputs, None),
            End::Fails => (JobResult::Failure, &[][..], None),
            End::Breaks => {
                let cause = Infrastructure::new(Cause::BootTimeout, "no answer");
                (JobResult::Failure, &[][..], Some(cause))
            }
            End::Hangs => {
                control.cancel.cancelled().await;
                (JobResult::Cancelled, &[][..], None)
            }
            End::Resists => {
                control.destroy.cancelled().await;
                (JobResult::Cancelled, &[][..], None)
            }
        };
        *self.running.lock().unwrap() -= 1;
        let finished = Finished { result, infrastructure };
        let outputs = outputs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let bodies = [EventBody::Outputs(outputs), EventBody::Finished(finished.clone())];
        for (seq, event) in (1..).zip(bodies) {
            let time = Timestamp::now();
            let event = JobEvent { job, try_number: 1, seq, time, event };
            if events.send(event).await.is_err() {
                break;
            }
        }
        finished
    }
}

/// Keeps what was shown.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<Item>>>);

impl Render for Shown {
    fn item(&mut self, item: Item) -> io::Result<()> {
        self.0.lock().unwrap().push(item);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Nobody reads what is shown.
struct Closed;

impl Render for Closed {
    fn item(&mut self, _: Item) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Story {
    workflow: String,
    /// Further files of the repository.
    files: Vec<(String, String)>,
    arguments: Vec<String>,
    ends: BTreeMap<&'static str, End>,
}

struct Ended {
    exit: Exit,
    report: Report,
    notices: Vec<String>,
    host: Arc<FakeHost>,
}

/// A workflow with these jobs.
fn jobs(jobs: &str) -> Story {
    let jobs: String = jobs.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    Story {
        workflow: format!("on: push\njobs:\n{jobs}"),
        files: Vec::new(),
        arguments: Vec::new(),
        ends: BTreeMap::new(),
    }
}

impl Story {
    /// Starts on these events instead of a push.
    fn on(mut self, events: &str) -> Self {
        self.workflow = self.workflow.replacen("on: push", &format!("on: {events}"), 1);
        self
    }

    /// Adds a workflow that can be called.
    fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((format!(".github/workflows/{name}"), text.to_owned()));
        self
    }

    fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|text| (*text).to_owned()));
        self
    }

    fn when(mut self, name: &'static str, end: End) -> Self {
        self.ends.insert(name, end);
        self
    }

    async fn start(
        self,
        stop: &Stop,
        host: Arc<FakeHost>,
        render: Box<dyn Render>,
    ) -> Result<Exit, CommandError> {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join(".github/workflows");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ci.yml"), self.workflow).unwrap();
        for (path, text) in &self.files {
            std::fs::write(directory.path().join(path), text).unwrap();
        }
        let line = ["solstice", "run", "ci.yml"].map(str::to_owned);
        let line = line.into_iter().chain(self.arguments);
        let Command::Run(arguments) = Cli::try_parse_from(line).unwrap().command else {
            panic!("not run");
        };
        let prepared = prepare(directory.path(), &arguments).await?;
        let run = execute(&prepared, &arguments, host, stop, CancellationToken::new(), |_| render);
        tokio::time::timeout(PATIENCE, run).await.expect("the run ends")
    }

    async fn run_with(mut self, stop: &Stop, host: FakeHost) -> Result<Ended, String> {
        let host = FakeHost { ends: std::mem::take(&mut self.ends), ..host };
        let (host, shown) = (Arc::new(host), Shown::default());
        let exit = self.start(stop, Arc::clone(&host), Box::new(shown.clone())).await;
        let exit = exit.map_err(|error| {
            assert_eq!(error.exit(), Exit::Usage);
            let hint = error.advice().map(|hint| format!(" | {hint}")).unwrap_or_default();
            format!("{error}{hint}")
        })?;
        let (mut report, mut notices) = (None, Vec::new());
        for item in shown.0.lock().unwrap().drain(..) {
            match item {
                Item::Report(last) => report = Some(last),
                Item::Notice(text) => notices.push(text),
                _ => {}
            }
        }
        Ok(Ended { exit, report: report.unwrap(), notices, host })
    }

    async fn run(self) -> Ended {
        self.run_with(&Stop::default(), FakeHost::default()).await.unwrap()
    }

    async fn refused(self) -> String {
        let host = FakeHost::default();
        match self.run_with(&Stop::default(), host).await {
            Err(message) => message,
            Ok(ended) => panic!("it ran: {:?}", ended.report),
        }
    }
}

impl Ended {
    /// The names of the jobs that the host was given, in order.
    fn ran(&self) -> Vec<String> {
        let requests = self.host.requests.lock().unwrap();
        requests.iter().map(|request| request.body.plan.name.clone()).collect()
    }

    /// The names of all jobs, in the order in which they ended.
    fn names(&self) -> Vec<&str> {
        self.report.jobs.iter().map(|job| job.name.as_str()).collect()
    }

    fn job(&self, name: &str) -> &JobReport {
        self.report.jobs.iter().find(|job| job.name == name).unwrap()
    }

    fn result(&self, name: &str) -> JobResult {
        self.job(name).result
    }

    fn request(&self, name: &str) -> JobRequest {
        let requests = self.host.requests.lock().unwrap();
        requests.iter().find(|request| request.body.plan.name == name).unwrap().clone()
    }

    /// The exit code is this, and the report says the same.
    fn exits(self, exit: Exit) -> Self {
        assert_eq!(self.exit, exit, "{:?}", self.report);
        assert_eq!(self.report.exit_code, exit.code());
        self
    }
}

const BUILD: &str = "{ runs-on: tiny, steps: [{ run: make }]";

#[tokio::test]
async fn jobs_follow_their_needs() {
    let ended =
        jobs(&format!("c: {BUILD}, needs: [a, b] }}\nb: {BUILD}, needs: a }}\na: {BUILD} }}"))
            .run()
            .await
            .exits(Exit::Passed);
    assert_eq!(ended.ran(), ["a", "b", "c"]);
}

#[tokio::test]
async fn outputs_make_the_matrix_of_a_later_job() {
    let ended = jobs(
        "
plan:
  runs-on: tiny
  steps: [{ run: make }]
  outputs: { list: x }
test:
  needs: plan
  runs-on: ${{ matrix.image }}
  strategy: { matrix: { image: '${{ fromJSON(needs.plan.outputs.list) }}' } }
  steps: [{ run: make }]
",
    )
    .when("plan", End::Passes(&[("list", r#"["tiny", "debian-12"]"#)]))
    .run()
    .await
    .exits(Exit::Passed);
    assert_eq!(ended.ran(), ["plan", "test (tiny)", "test (debian-12)"]);
    let request = ended.request("test (debian-12)");
    assert_eq!(request.envelope.label, "debian-12");
    assert_eq!(request.body.contexts.matrix["image"], "debian-12");
    assert_eq!(request.body.contexts.strategy["job-total"], 2);
    assert_eq!(request.body.contexts.needs["plan"]["result"], "success");
}

#[tokio::test]
async fn the_outputs_of_legs_are_merged() {
    let ended = jobs(
        "
legs:
  runs-on: tiny
  strategy: { max-parallel: 1, matrix: { n: [1, 2, 3] } }
  steps: [{ run: make }]
  outputs: { a: x }
last: { runs-on: tiny, needs: legs, steps: [{ run: make }] }
",
    )
    .when("legs (1)", End::Passes(&[("a", "one"), ("b", "only")]))
    .when("legs (2)", End::Passes(&[("a", "two"), ("b", "")]))
    .when("legs (3)", End::Passes(&[("a", "")]))
    .run()
    .await;
    let needs = ended.request("last").body.contexts.needs;
    assert_eq!(needs["legs"]["outputs"], serde_json::json!({ "a": "two", "b": "only" }));
    assert_eq!(*ended.host.most.lock().unwrap(), 1);
}

#[tokio::test]
async fn independent_jobs_and_legs_run_side_by_side() {
    let ended =
        jobs(&format!("a: {BUILD}, strategy: {{ matrix: {{ n: [1, 2] }} }} }}\nb: {BUILD} }}"))
            .run()
            .await;
    assert_eq!(*ended.host.most.lock().unwrap(), 3);
}

#[tokio::test]
async fn a_failed_leg_cancels_the_others() {
    let text =
        format!("t: {BUILD}, strategy: {{ max-parallel: 2, matrix: {{ n: [1, 2, 3] }} }} }}");
    let ended = jobs(&text)
        .when("t (1)", End::Fails)
        .when("t (2)", End::Hangs)
        .run()
        .await
        .exits(Exit::Failed);
    assert_eq!(ended.ran(), ["t (1)", "t (2)"]);
    assert_eq!(ended.result("t (2)"), JobResult::Cancelled);
    assert_eq!(ended.result("t (3)"), JobResult::Cancelled);
    assert_eq!(ended.job("t (3)").id, None);
}

#[tokio::test]
async fn without_fail_fast_the_others_go_on() {
    let ended = jobs(
        "
t:
  runs-on: tiny
  strategy: { fail-fast: false, max-parallel: 1, matrix: { n: [1, 2] } }
  steps: [{ run: make }]
after: { runs-on: tiny, needs: t, steps: [{ run: make }] }
",
    )
    .when("t (1)", End::Fails)
    .run()
    .await
    .exits(Exit::Failed);
    assert_eq!(ended.result("t (2)"), JobResult::Success);
    assert_eq!(ended.result("after"), JobResult::Skipped);
}

#[tokio::test]
async fn conditions_decide_and_skipped_jobs_cost_no_machine() {
    let ended = jobs(&format!(
        "
fails: {BUILD} }}
skipped: {BUILD}, needs: fails }}
further: {BUILD}, needs: skipped }}
never: {BUILD}, if: '${{{{ false }}}}' }}
cleanup: {BUILD}, needs: [fails, further], if: always() }}
report: {BUILD}, needs: fails, if: \"failure() && needs.fails.result == 'failure'\" }}
"
    ))
    .when("fails", End::Fails)
    .run()
    .await
    .exits(Exit::Failed);
    let mut ran = ended.ran();
    ran.sort();
    assert_eq!(ran, ["cleanup", "fails", "report"]);
    for skipped in ["skipped", "further", "never"] {
        assert_eq!(ended.result(skipped), JobResult::Skipped);
    }
}

#[tokio::test]
async fn a_condition_guards_a_matrix_that_could_not_be_made() {
    let ended = jobs(
        "
a: { runs-on: tiny, steps: [{ run: make }] }
b:
  needs: a
  if: needs.a.outputs.list != ''
  runs-on: tiny
  strategy: { matrix: { n: '${{ fromJSON(needs.a.outputs.list) }}' } }
  steps: [{ run: make }]
",
    )
    .run()
    .await
    .exits(Exit::Passed);
    assert_eq!(ended.result("b"), JobResult::Skipped);
}

#[tokio::test]
async fn a_forgiven_failure_fails_nothing() {
    let ended = jobs(&format!("a: {BUILD}, continue-on-error: true }}\nb: {BUILD}, needs: a }}"))
        .when("a", End::Fails)
        .run()
        .await
        .exits(Exit::Passed);
    assert_eq!(ended.result("a"), JobResult::Failure);
    assert_eq!(ended.request("b").body.contexts.needs["a"]["result"], "success");
}

#[tokio::test]
async fn an_infrastructure_failure_wins() {
    let ended = jobs(&format!("a: {BUILD} }}\nb: {BUILD}, continue-on-error: true }}"))
        .when("a", End::Fails)
        .when("b", End::Breaks)
        .run()
        .await
        .exits(Exit::Infrastructure);
    assert_eq!(ended.job("b").infrastructure.as_ref().unwrap().cause, Cause::BootTimeout);
}

#[tokio::test]
async fn a_cancel_ends_what_runs_and_starts_nothing_more() {
    let host = FakeHost::default();
    let stop = Stop::default();
    let story = jobs(&format!("a: {BUILD} }}\nb: {BUILD}, needs: a, if: always() }}"))
        .when("a", End::Hangs);
    let token = stop.cancel.clone();
    let cancel = async {
        tokio::time::sleep(Duration::ZERO).await;
        token.cancel();
    };
    let (ended, ()) = tokio::join!(story.run_with(&stop, host), cancel);
    let ended = ended.unwrap().exits(Exit::Cancelled);
    assert_eq!(ended.result("b"), JobResult::Cancelled);
    assert!(ended.ran().len() <= 1);
    assert!(ended.notices.iter().any(|notice| notice.contains("Ctrl-C")), "{:?}", ended.notices);
}

#[tokio::test]
async fn a_second_signal_destroys_what_resists() {
    let (stop, host) = (Stop::default(), Arc::new(FakeHost::default()));
    let story = jobs(&format!("a: {BUILD} }}"));
    let host_with =
        Arc::new(FakeHost { ends: BTreeMap::from([("a", End::Resists)]), ..FakeHost::default() });
    drop(host);
    let watched = Arc::clone(&host_with);
    let signals = async {
        watched.started.notified().await;
        stop.cancel.cancel();
        tokio::task::yield_now().await;
        stop.destroy.cancel();
    };
    let run = story.start(&stop, host_with, Box::new(Shown::default()));
    let (exit, ()) = tokio::join!(run, signals);
    assert_eq!(exit.unwrap(), Exit::Cancelled);
}

#[tokio::test]
async fn when_nobody_reads_the_jobs_are_cancelled() {
    let host =
        Arc::new(FakeHost { ends: BTreeMap::from([("a", End::Hangs)]), ..FakeHost::default() });
    let story = jobs(&format!("a: {BUILD} }}"));
    let exit = story.start(&Stop::default(), host, Box::new(Closed)).await;
    assert_eq!(exit.unwrap(), Exit::Cancelled);
}

#[tokio::test]
async fn a_chosen_job_brings_those_that_it_needs() {
    let text =
        format!("a: {BUILD} }}\nb: {BUILD}, needs: a }}\nc: {BUILD} }}\nd: {BUILD}, needs: b }}");
    let ended = jobs(&text).with(&["--job", "b"]).run().await;
    assert_eq!(ended.ran(), ["a", "b"]);
    let message = jobs(&text).with(&["--job", "x"]).refused().await;
    assert!(message.ends_with("there is no job \"x\" | the jobs are a, b, c, d"), "{message}");
}

#[tokio::test]
async fn legs_can_be_chosen() {
    let text = format!(
        "t: {BUILD}, strategy: {{ matrix: {{ os: [x, y], n: [1, 2] }} }} }}\nother: {BUILD} }}"
    );
    let ended = jobs(&text).with(&["--matrix", "os=y", "--matrix", "n=2"]).run().await;
    let mut ran = ended.ran();
    ran.sort();
    assert_eq!(ran, ["other", "t (y, 2)"]);
    let message = jobs(&text).with(&["--matrix", "os=z"]).refused().await;
    assert_eq!(
        message,
        "no leg of the job \"t\" has os=z | its legs are (x, 1), (x, 2), (y, 1), (y, 2)"
    );
    let message = jobs(&text).with(&["--matrix", "arch=z"]).refused().await;
    assert_eq!(message, "no job has the matrix value \"arch\"");
}

#[tokio::test]
async fn what_the_user_asks_for_reaches_the_host() {
    let text = "
a:
  runs-on: [self-hosted, somewhere]
  env: { A: '1' }
  steps: [{ uses: actions/checkout@v4 }]
b: { runs-on: tiny, steps: [{ run: 'echo ${{ secrets.GITHUB_TOKEN }}' }] }
";
    let ended = jobs(text)
        .with(&["--image", "debian-12", "--cpus", "3", "--memory", "1G", "--timeout", "5m"])
        .with(&["--keep", "--env", "X=${{ not evaluated }}", "--var", "V=1"])
        .run()
        .await;
    let request = ended.request("a");
    assert_eq!(request.envelope.label, "debian-12");
    assert_eq!(request.envelope.size.cpus, Some(3));
    assert_eq!(request.envelope.deadlines.running, Duration::from_secs(300));
    assert_eq!(request.body.keep, Some(Duration::from_secs(7200)));
    assert_eq!(request.body.contexts.vars["V"], "1");
    let last = request.body.plan.env.last().unwrap();
    let literal = common::plan::Value::literal;
    assert_eq!(
        *last,
        common::plan::Value::Mapping(vec![(literal("X"), literal("${{ not evaluated }}"))])
    );
    assert!(request.body.has_checkout);
    assert!(!ended.request("b").body.has_checkout);
    assert_eq!(ended.request("b").body.secrets["GITHUB_TOKEN"].expose(), "");
}

#[tokio::test]
async fn the_event_is_the_first_of_on_unless_one_is_chosen() {
    for (arguments, event) in [
        (&[][..], "pull_request"),
        (&["--event", "push"], "push"),
        // A forge would not start it: that is a warning.
        (&["--event", "release"], "release"),
    ] {
        let story = jobs(&format!("a: {BUILD} }}")).on("[pull_request, push]");
        let github = story.with(arguments).run().await.request("a").body.contexts.github;
        assert_eq!(github["event_name"], event);
        assert_eq!(github["event"]["number"].is_number(), event == "pull_request", "{event}");
    }
}

#[tokio::test]
async fn a_payload_from_a_file_is_the_event() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let payload = serde_json::json!({ "number": 7, "pull_request": { "number": 7, "x": [true] } });
    std::fs::write(file.path(), payload.to_string()).unwrap();
    let story = jobs(&format!("a: {BUILD} }}")).on("pull_request");
    let story = story.with(&["--event-file", file.path().to_str().unwrap()]);
    let github = story.run().await.request("a").body.contexts.github;
    assert_eq!(github["event"], payload);
    assert_eq!(github["ref"], "refs/pull/7/merge");
}

#[tokio::test]
async fn inputs_are_those_of_the_command_line_or_their_defaults() {
    let events = "{ workflow_dispatch: { inputs: { who: { default: world }, \
                  loud: { type: boolean } } } }";
    for (arguments, inputs) in [
        (&[][..], serde_json::json!({ "who": "world", "loud": false })),
        (
            &["--input", "who=you=me", "--input", "LOUD=true"],
            serde_json::json!({ "who": "you=me", "loud": true }),
        ),
    ] {
        let story = jobs(&format!("a: {BUILD} }}")).on(events);
        let contexts = story.with(arguments).run().await.request("a").body.contexts;
        assert_eq!(contexts.github["event_name"], "workflow_dispatch");
        assert_eq!(serde_json::Value::Object(contexts.inputs), inputs);
    }
}

#[tokio::test]
async fn the_dialect_is_that_of_the_folder_unless_one_is_chosen() {
    for (arguments, dialect) in [
        (&[][..], Dialect::Github),
        (&["--dialect", "forgejo"], Dialect::Forgejo),
        (&["--dialect", "gitea"], Dialect::Gitea),
    ] {
        let story = jobs(&format!("a: {BUILD} }}"));
        let request = story.with(arguments).run().await.request("a");
        assert_eq!(request.body.plan.dialect, dialect);
    }
}

#[tokio::test]
async fn secrets_of_a_file_reach_the_host() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "# The team's.\nkey=\"two\\nlines\"\nUNUSED=1\nGITHUB_TOKEN=of-a-person\n";
    std::fs::write(file.path(), text).unwrap();
    let text = "a: { runs-on: tiny, steps: [{ run: 'x ${{ secrets.KEY }}' }] }";
    let story = jobs(text).with(&["--secrets-file", file.path().to_str().unwrap()]);
    let body = story.run().await.request("a").body;
    assert_eq!(body.secrets["KEY"].expose(), "two\nlines");
    assert_eq!(body.secrets["UNUSED"].expose(), "1");
    assert_eq!(body.contexts.github["token"], "of-a-person");
}

#[tokio::test]
async fn bad_labels_are_found_before_anything_runs() {
    let text = format!("a: {BUILD} }}\nb: {{ runs-on: tinny, needs: a, steps: [{{ run: x }}] }}");
    let message = jobs(&text).refused().await;
    assert_eq!(
        message,
        ".github/workflows/ci.yml:4:17: no image has the label \"tinny\"\n  \
         4 |   b: { runs-on: tinny, needs: a, steps: [{ run: x }] }\n    \
         |                 ^ | choose an image for every job with --image LABEL"
    );
    for (labels, sentence) in [
        ("self-hosted", "the label \"self-hosted\" names no image"),
        ("[self-hosted, linux]", "no image has the label \"linux\""),
    ] {
        let text = format!("a: {{ runs-on: {labels}, steps: [{{ run: x }}] }}");
        let message = jobs(&text).refused().await;
        let start = format!(".github/workflows/ci.yml:3:17: {sentence}\n");
        assert!(message.starts_with(&start), "{message}");
    }
    let text = format!("a: {BUILD} }}");
    let message = jobs(&text).with(&["--image", "nope"]).refused().await;
    assert_eq!(message, "no image has the label \"nope\"");
}

#[tokio::test]
async fn the_shorter_limit_of_time_counts() {
    let minutes = |text: &str| Some(common::plan::Value::literal(text));
    for (job, arguments, plan, seconds) in [
        ("", &[][..], None, 6 * 3600),
        ("", &["--timeout", "90s"], minutes("1.5"), 90),
        ("", &["--timeout", "12h"], None, 6 * 3600),
        ("timeout-minutes: 2,", &[], minutes("2"), 120),
        ("timeout-minutes: 2,", &["--timeout", "1m"], minutes("1"), 60),
        ("timeout-minutes: 2,", &["--timeout", "1h"], minutes("2"), 120),
        ("timeout-minutes: 9000,", &[], minutes("7200"), 5 * 24 * 3600),
    ] {
        let text = format!("a: {{ {job} runs-on: tiny, steps: [{{ run: x }}] }}");
        let request = jobs(&text).with(arguments).run().await.request("a");
        assert_eq!(request.body.plan.timeout_minutes, plan, "{job} {arguments:?}");
        let running = request.envelope.deadlines.running;
        assert_eq!(running, Duration::from_secs(seconds), "{job} {arguments:?}");
    }
    // Only the guest knows `env`; nothing but the host's own limit is certain here.
    let text = "a: { timeout-minutes: '${{ env.X }}', runs-on: tiny, steps: [{ run: x }] }";
    let story = jobs(text).with(&["--timeout", "1m", "--dialect", "forgejo"]);
    let request = story.run().await.request("a");
    assert!(matches!(
        request.body.plan.timeout_minutes,
        Some(common::plan::Value::Expression(_) | common::plan::Value::Template(_))
    ));
    assert_eq!(request.envelope.deadlines.running, Duration::from_secs(60));
}

#[tokio::test]
async fn a_mistake_that_shows_late_ends_the_run_as_a_usage_error() {
    let ended = jobs(
        "
a: { runs-on: tiny, steps: [{ run: make }] }
b: { runs-on: '${{ needs.a.outputs.label }}', needs: a, steps: [{ run: make }] }
c: { runs-on: tiny, needs: b, steps: [{ run: make }] }
",
    )
    .when("a", End::Passes(&[("label", "nope")]))
    .run()
    .await
    .exits(Exit::Usage);
    assert_eq!(ended.ran(), ["a"]);
    assert_eq!(ended.result("b"), JobResult::Failure);
    assert_eq!(ended.result("c"), JobResult::Skipped);
    assert!(ended.notices[0].contains("\"nope\""), "{:?}", ended.notices);
    let place = "error: .github/workflows/ci.yml:4:17: no image has the label";
    assert!(ended.notices[0].starts_with(place), "{:?}", ended.notices);
}

#[tokio::test]
async fn a_late_mistake_wins_over_a_failed_job_and_not_over_the_infrastructure() {
    let text = "
a: { runs-on: tiny, steps: [{ run: make }] }
b: { runs-on: '${{ needs.a.outputs.label }}', needs: a, steps: [{ run: make }] }
c: { runs-on: tiny, steps: [{ run: make }] }
";
    let a = || jobs(text).when("a", End::Passes(&[("label", "nope")]));
    a().when("c", End::Fails).run().await.exits(Exit::Usage);
    a().when("c", End::Breaks).run().await.exits(Exit::Infrastructure);
}

#[tokio::test]
async fn missing_secrets_and_unknown_inputs_are_named() {
    let text =
        "a: { runs-on: tiny, steps: [{ run: 'x ${{ secrets.KEY }} ${{ secrets.other }}' }] }";
    let message = jobs(text).refused().await;
    assert!(
        message.starts_with("the workflow uses secrets that were not given: KEY, OTHER"),
        "{message}"
    );
    let text = format!("a: {BUILD} }}");
    let message = jobs(&text).with(&["--input", "x=1"]).refused().await;
    assert!(message.contains("no inputs"), "{message}");
}
