//! jobs, show, cancel, retry, hosts, drain: what they print and how they end.

use std::time::{Duration, SystemTime};

use common::event::{Finished, JobResult, Phase};
use common::ids::JobId;
use common::infrastructure::{Cause, Infrastructure};
use common::size::ByteSize;
use common::time::Timestamp;
use orchestrator::store::{JobDetail, JobState, Size, TryRow};
use serde_json::{Value, json};

use crate::backend::{detail, finished, host};
use crate::harness::Place;

fn id(last: char) -> String {
    format!("0192f0c1-0000-7000-8000-{}", last.to_string().repeat(12))
}

/// A job with an id that is known beforehand.
fn job(last: char, state: JobState) -> JobDetail {
    let mut detail = detail(state);
    detail.job.id = id(last).parse().unwrap();
    detail.envelope.job = detail.job.id;
    detail
}

/// So many seconds ago, and a half, so that a slow test still sees the same minute.
fn ago(seconds: u64) -> Timestamp {
    (SystemTime::now() - Duration::from_millis(seconds * 1000 + 500)).into()
}

/// One job of each kind that a list shows differently.
fn some_jobs(place: &Place) {
    let builder = place.backend.state().hosts[0].report.host;
    let mut over = job('c', JobState::Done);
    over.job.host = Some(builder);
    over.job.created = ago(3 * 3600);
    over.job.claimed = Some(ago(2 * 3600));
    over.job.ended = Some(ago(2 * 3600 - 75));
    let cause = Infrastructure::new(Cause::BootTimeout, "no answer within 90 s\nconsole: none");
    over.job.finished = Some(Finished { result: JobResult::Failure, infrastructure: Some(cause) });
    over.job.size = Some(Size { cpus: 2, memory: ByteSize(1 << 30) });
    over.tries = vec![
        TryRow {
            number: 1,
            host: builder,
            vm: Some("0192f0c1-0000-7000-8000-eeeeeeeeeeee".parse().unwrap()),
            began: ago(7200),
            ended: Some(ago(7140)),
            cause: Some("SOL-QEMU-KILLED".to_owned()),
            phases: vec![
                (Phase::Image, Duration::from_millis(200)),
                (Phase::Boot, Duration::from_millis(48_100)),
            ],
        },
        TryRow {
            number: 2,
            host: builder,
            vm: None,
            began: ago(7140),
            ended: Some(ago(7125)),
            cause: Some("SOL-BOOT-TIMEOUT".to_owned()),
            phases: Vec::new(),
        },
    ];
    let mut running = job('b', JobState::Running);
    running.job.host = Some(builder);
    running.job.created = ago(2 * 3600 + 330);
    running.job.claimed = Some(ago(2 * 3600 + 330));
    let mut queued = job('a', JobState::Queued);
    queued.job.repository = "me/\u{1b}[31mother".to_owned();
    queued.job.created = ago(90);
    for detail in [over, running, queued] {
        place.backend.add(detail);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_jobs() {
    let place = Place::new();
    some_jobs(&place);
    let done = place.solstice(&["jobs"]).await;
    assert_eq!(done.stderr, "");
    assert_eq!(
        done.stdout,
        "\
JOB           STATE    REPOSITORY     LABEL  HOST       AGE     TOOK
aaaaaaaaaaaa  queued   me/␛[31mother  tiny              1m
bbbbbbbbbbbb  running  me/app         tiny   builder-1  2h 05m  2h 05m
"
    );
    let done = place.solstice(&["jobs", "--all", "--repository", "me/app"]).await;
    assert_eq!(
        done.stdout,
        "JOB           STATE             REPOSITORY  LABEL  HOST       AGE     TOOK\n\
         bbbbbbbbbbbb  running           me/app      tiny   builder-1  2h 05m  2h 05m\n\
         cccccccccccc  SOL-BOOT-TIMEOUT  me/app      tiny   builder-1  3h 00m  1m 15s\n"
    );
    let short = |text: &str| text.lines().map(|line| line[..12].to_owned()).collect::<Vec<_>>();
    let done = place.solstice(&["jobs", "--state", "queued", "--state", "done"]).await;
    assert_eq!(short(&done.stdout), ["JOB         ", "aaaaaaaaaaaa", "cccccccccccc"]);
    let done = place.solstice(&["jobs", "--all", "--most", "1"]).await;
    assert_eq!(short(&done.stdout), ["JOB         ", "aaaaaaaaaaaa"]);
    let done = place.solstice(&["jobs", "--label", "other"]).await;
    assert_eq!(done.stdout, "JOB  STATE  REPOSITORY  LABEL  HOST  AGE  TOOK\n");
    let done = place.solstice(&["jobs", "--all", "--json"]).await;
    let jobs: Value = serde_json::from_str(&done.stdout).unwrap();
    let expected: Vec<_> =
        place.backend.state().jobs.iter().map(|detail| detail.job.clone()).collect();
    assert_eq!(jobs, json!(expected));
    assert_eq!(place.solstice(&["jobs", "--state", "dead"]).await.code, 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_terminals() {
    let place = Place::new();
    some_jobs(&place);
    assert!(place.coloured(&["jobs"]).await.stdout.contains("\u{1b}[36mrunning\u{1b}[0m"));
    assert!(place.coloured(&["jobs", "--json"]).await.stdout.starts_with("[\n"));
    // What others wrote is never obeyed.
    assert!(!place.coloured(&["jobs"]).await.stdout.contains("\u{1b}[31mother"));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_about_a_job() {
    let place = Place::new();
    some_jobs(&place);
    let created = place.backend.state().jobs[2].job.created;
    let ended = place.backend.state().jobs[2].job.ended.unwrap();
    let rfc = |time: Timestamp| humantime::format_rfc3339_seconds(time.into()).to_string();
    let done = place.solstice(&["show", "cccc"]).await;
    assert_eq!(
        done.stdout,
        format!(
            "\
job         {}
state       SOL-BOOT-TIMEOUT
cause       no answer within 90 s
            console: none
what to do  {}.
repository  me/app (forgejo)
label       tiny
machine     2 CPU, 1 GiB
arrived     {} (3h 00m ago)
waited      1h 00m
ended       {} (1h 58m ago)
try 1       on builder-1 in machine eeeeeeeeeeee, took 1m 00s, ended by SOL-QEMU-KILLED
            image 0.2s, boot 48.1s
try 2       on builder-1, took 15.0s, ended by SOL-BOOT-TIMEOUT
",
            id('c'),
            Cause::BootTimeout.cure(),
            rfc(created),
            rfc(ended)
        )
    );
    let done = place.solstice(&["show", &id('c'), "--json"]).await;
    let shown: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(shown, json!(place.backend.state().jobs[2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_not_meant_clearly() {
    let place = Place::new();
    some_jobs(&place);
    let check = async |arguments: &[&str], stderr: &str| {
        let done = place.solstice(arguments).await;
        assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (64, "", stderr));
    };
    let known = "hint: `solstice jobs --all` lists the jobs that are known\n";
    check(&["show", "dddd"], &format!("error: there is no job \"dddd\"\n{known}")).await;
    check(&["logs", "x/y"], &format!("error: \"x/y\" is not the id of a job\n{known}")).await;
    check(
        &["retry", "0192f0c1"],
        "error: \"0192f0c1\" is a part of 3 jobs' ids\nhint: write more of it: aaaaaaaaaaaa, \
         bbbbbbbbbbbb, cccccccccccc\n",
    )
    .await;
    let unknown = JobId::new();
    check(
        &["show", &unknown.to_string()],
        &format!(
            "error: there is no job {unknown}\nhint: `solstice jobs --all` lists those that are \
             known\n"
        ),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_cancelled_each_for_itself() {
    let place = Place::new();
    some_jobs(&place);
    let done = place.solstice(&["cancel", "aaaa", "nothing", "bbbb", "cccc"]).await;
    assert_eq!(done.code, 64);
    assert!(done.stderr.starts_with("error: \"nothing\" is not the id of a job\nhint: "));
    assert_eq!(
        done.stdout,
        "aaaaaaaaaaaa is cancelled; it had not begun\n\
         bbbbbbbbbbbb is being cancelled by builder-1\n\
         cccccccccccc was over already\n"
    );
    let said = |job: char| format!("cancel {}", id(job));
    assert_eq!(place.backend.state().said, [said('a'), said('b'), said('c')]);
    let done = place.solstice(&["cancel", "--now", "--json", "bbbb"]).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    let builder = place.backend.state().hosts[0].report.host;
    assert_eq!(
        serde_json::from_str::<Value>(&done.stdout).unwrap(),
        json!([{ "job": id('b'), "outcome": "ending", "host": builder }])
    );
    assert_eq!(place.backend.state().said[3], format!("destroy {}", id('b')));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_job_that_is_over_runs_again() {
    let place = Place::new();
    some_jobs(&place);
    let done = place.solstice(&["retry", "cccc"]).await;
    assert!(done.stdout.starts_with("cccccccccccc runs again as "), "{done:?}");
    let done = place.solstice(&["retry", "cccc", "--json"]).await;
    let answer: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(answer["retry_of"], id('c'));
    assert!(answer["job"].as_str().unwrap().parse::<JobId>().is_ok());
    let done = place.solstice(&["retry", "bbbb"]).await;
    assert_eq!(done.code, 64);
    assert!(done.stderr.contains("is running, and only a job that is over runs again\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_hosts() {
    let place = Place::new();
    let mut other = host("builder-2");
    other.alive = false;
    other.report.host = "0192f0c1-0000-7000-8000-ffffffffffff".parse().unwrap();
    other.report.labels = ["a", "b", "c", "d", "e", "f"]
        .map(|label| {
            let mut offer = other.report.labels[0].clone();
            label.clone_into(&mut offer.label);
            offer
        })
        .to_vec();
    place.backend.change(|state| {
        state.hosts[0].report.host = "0192f0c1-0000-7000-8000-eeeeeeeeeeee".parse().unwrap();
        state.hosts[0].jobs = 2;
        state.hosts.push(other);
    });
    let done = place.solstice(&["hosts"]).await;
    assert_eq!(
        done.stdout,
        "\
NAME       HOST          STATE  JOBS  CPUS  MEMORY        LOAD  RUNS ON  VERSION  LABELS
builder-1  eeeeeeeeeeee  alive  2     2/8   2 GiB/16 GiB  1.25  kvm      0.1.0    tiny
builder-2  ffffffffffff  lost   0     2/8   2 GiB/16 GiB  1.25  kvm      0.1.0    a, b, c, d and 2 more
"
    );
    let done = place.solstice(&["hosts", "--json"]).await;
    let hosts: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(hosts, json!(place.backend.state().hosts));
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_drained_by_name_or_id() {
    let place = Place::new();
    place.backend.change(|state| state.hosts.push(host("builder-2")));
    let draining = || {
        let state = place.backend.state();
        state.hosts.iter().map(|row| row.report.draining).collect::<Vec<_>>()
    };
    let done = place.solstice(&["drain"]).await;
    assert_eq!(done.stdout, "builder-1 takes nothing new; no job runs on it\n", "{}", done.stderr);
    assert_eq!(draining(), [true, false]);
    place.backend.change(|state| state.hosts[1].jobs = 1);
    let done = place.solstice(&["drain", "builder-2"]).await;
    assert_eq!(done.stdout, "builder-2 takes nothing new; 1 job runs on it\n");
    let id = place.backend.state().hosts[0].report.host;
    let done = place.solstice(&["drain", "--off", &id.short()]).await;
    assert_eq!(done.stdout, "builder-1 takes jobs again\n");
    assert_eq!(draining(), [false, true]);
    let done = place.solstice(&["drain", "--json", &id.to_string()]).await;
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(report, json!({ "host": id, "draining": true, "jobs": 0 }));
    let done = place.solstice(&["drain", "builder-3"]).await;
    assert_eq!((done.code, done.stdout.as_str()), (64, ""));
    assert!(done.stderr.starts_with("error: there is no host \"builder-3\"\nhint: see"));
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_can_be_waited_for() {
    let place = Place::new();
    place.backend.change(|state| state.hosts[0].jobs = 2);
    let mut waiting = place.spawn(&["drain", "--wait"]);
    waiting.notes("waiting for 2 jobs").await;
    place.backend.change(|state| state.hosts[0].jobs = 0);
    let (code, lines) = waiting.end().await;
    assert_eq!((code, lines), (0, vec!["builder-1 takes nothing new; no job runs on it".into()]));
    place.backend.change(|state| state.hosts[0].jobs = 1);
    let mut waiting = place.spawn(&["drain", "--wait"]);
    waiting.notes("waiting for 1 job").await;
    waiting.interrupt();
    waiting.notes("it goes on draining; --off takes that back").await;
    assert_eq!(waiting.end().await.0, 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_passed_shows_it() {
    let place = Place::new();
    let job = place.backend.add(detail(JobState::Running));
    place.backend.happen(job, [finished(JobResult::Success)]);
    let done = place.solstice(&["jobs", "--all"]).await;
    assert!(done.stdout.contains("  success  me/app"), "{}", done.stdout);
}
