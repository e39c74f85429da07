//! What the host does for its guests: repositories, caches, and the files of actions.
//!
//! With the tiny guest a step's time is from its begin to its end, as the simulated instance was told
//! them. With scripted guests, which cost next to nothing, what is measured is the host and the
//! connection: the time of a cache is that between the two events of its step, as the host noted them,
//! and that of an action what the guest itself has waited for the last byte.

use std::path::Path;

use common::event::{EventBody, JobEvent};
use simulators::forgejo::{JobView, Status};
use simulators::jobs::job;
use simulators::{GitServer, ScriptedHost};
use tokio::time::timeout;

use super::forgejo::{Instance, REPOSITORY};
use super::service::{Service, block_on};
use super::{Figures, PATIENCE, millis, percentile};

/// The commits of the repository that is checked out, and the files that each adds.
const COMMITS: usize = 50;
const FILES_PER_COMMIT: usize = 100;
/// How often it is checked out once the host has a mirror.
const WARM_CHECKOUTS: usize = 5;
/// The bytes of a cache.
const CACHE_BYTES: u64 = 200_000_000;
/// How often one is saved and restored.
const CACHES: usize = 3;
/// How often an action is fetched.
const FETCHES: usize = 41;
/// The bytes of its largest file, about as much as a bundled action has.
const ACTION_BYTES: usize = 1_000_000;

/// A repository of 5 000 files with history, checked out in a guest without git.
pub(super) fn checkout(directory: &Path, sockets: &Path, images: &Path) -> Figures {
    let instance = Instance::tiny(directory, sockets, images);
    let stream = simulators::history(COMMITS, FILES_PER_COMMIT);
    let commit = instance.forge.git().import(REPOSITORY, stream.as_bytes());
    let files = COMMITS * FILES_PER_COMMIT;
    let workflow = format!(
        "on: push\njobs:\n  job:\n    runs-on: vm\n    steps:\n      \
         - {{ name: Begin, run: echo begin }}\n      \
         - {{ name: Checkout, uses: actions/checkout@v4 }}\n      \
         - {{ name: Count, run: 'test $(find src -type f | wc -l) = {files}' }}\n"
    );
    let once = || {
        let trigger = instance.forge.trigger(REPOSITORY, "bench.yml", &workflow);
        let run = trigger.sha(&commit).push();
        instance.wait_for_end(run);
        let view = instance.forge.view(run);
        assert_eq!(view.status, Status::Success, "{view}");
        step_ms(view.job("job"), "Checkout")
    };
    let cold = once();
    let mut warm: Vec<f64> = (0..WARM_CHECKOUTS).map(|_| once()).collect();
    Figures::from([
        ("checkout_5000_files_cold_ms", cold),
        ("checkout_5000_files_warm_ms", percentile(&mut warm, 50)),
    ])
}

/// A file of random bytes, saved as a cache by one guest and restored by another.
pub(super) fn caches_of_tiny(directory: &Path, sockets: &Path, images: &Path) -> Figures {
    let instance = Instance::tiny(directory, sockets, images);
    let megabytes = CACHE_BYTES / 1_000_000;
    let (mut put, mut get) = (Vec::new(), Vec::new());
    for number in 0..CACHES {
        let wish = format!("with: {{ path: made, key: bench-{number} }}");
        let workflow = format!(
            "on: push\njobs:\n  save:\n    runs-on: vm\n    steps:\n      \
             - name: Make\n        \
             run: mkdir made && dd if=/dev/urandom of=made/file bs=1000000 count={megabytes}\n      \
             - name: Save\n        uses: actions/cache/save@v4\n        {wish}\n  \
             restore:\n    needs: save\n    runs-on: vm\n    steps:\n      \
             - {{ name: Begin, run: echo begin }}\n      \
             - name: Restore\n        uses: actions/cache/restore@v4\n        {wish}\n      \
             - {{ name: Count, run: 'test $(wc -c < made/file) = {CACHE_BYTES}' }}\n"
        );
        let run = instance.forge.push_workflow(REPOSITORY, "bench.yml", &workflow);
        instance.wait_for_end(run);
        let view = instance.forge.view(run);
        assert_eq!(view.status, Status::Success, "{view}");
        put.push(rate(step_ms(view.job("save"), "Save")));
        get.push(rate(step_ms(view.job("restore"), "Restore")));
    }
    Figures::from([
        ("cache_put_mb_per_second_tcg", percentile(&mut put, 50)),
        ("cache_get_mb_per_second_tcg", percentile(&mut get, 50)),
    ])
}

/// How long a step took, as its page says.
fn step_ms(job: &JobView, title: &str) -> f64 {
    let step = job.step(title);
    let (began, ended) = (step.started.expect("it began"), step.stopped.expect("it ended"));
    millis(ended.duration_since(began).unwrap_or_default())
}

/// Megabytes of a cache in a second.
fn rate(ms: f64) -> f64 {
    CACHE_BYTES as f64 / 1e6 / (ms / 1000.0)
}

/// The same caches with guests that do nothing else.
pub(super) fn caches(directory: &Path, sockets: &Path) -> Figures {
    block_on(async {
        let service = Service::start_with(directory, sockets, 1, &[]).await;
        let (mut put, mut get) = (Vec::new(), Vec::new());
        for number in 0..CACHES {
            let key = format!("bench-{number}");
            let saved = run(&service, &["echo", &format!("cache-put {CACHE_BYTES} {key}")]).await;
            let restored = run(&service, &["echo", &format!("cache-get {key}")]).await;
            let said = format!("{key}: {CACHE_BYTES} bytes");
            for (word, events) in [("saved", &saved), ("restored", &restored)] {
                let lines = lines(events);
                let is_whole = |line: &String| line.starts_with(&format!("{word} {said}"));
                assert!(lines.iter().any(is_whole), "{lines:#?}");
            }
            put.push(rate(second_step_ms(&saved)));
            get.push(rate(second_step_ms(&restored)));
        }
        Figures::from([
            ("cache_put_mb_per_second", percentile(&mut put, 50)),
            ("cache_get_mb_per_second", percentile(&mut get, 50)),
        ])
    })
}

/// The files of an action that the host has, by its commit and by a tag, of which the host asks the
/// server once each time.
pub(super) fn actions(directory: &Path, sockets: &Path) -> Figures {
    block_on(async {
        let server = GitServer::start().await;
        let bundle = "module.exports = 1;\n".repeat(ACTION_BYTES / 20);
        let files = [
            ("action.yml", "runs: { using: node20, main: dist/index.js }\n"),
            ("dist/index.js", &bundle),
        ];
        let commit = server.commit("own/action", &files);
        server.tag("own/action", "v1", &commit, true);
        let settings = [("SOLSTICE_ACTIONS_GITHUB", server.url())];
        let service = Service::start_with(directory, sockets, 1, &settings).await;
        run(&service, &["action-fetch own/action@v1"]).await;
        let mut figures = Figures::new();
        for (name, version) in
            [("action_fetch_warm_ms", commit.as_str()), ("action_fetch_warm_tag_ms", "v1")]
        {
            let script = format!("action-fetch own/action@{version}\n").repeat(FETCHES);
            let events = run(&service, &["echo", &script]).await;
            let begin = format!("action own/action@{version} is {commit}: ");
            let time = |line: &String| {
                let rest = line.strip_prefix(&begin)?.strip_suffix(" us")?;
                rest.rsplit(' ').next()?.parse::<f64>().ok()
            };
            let lines = lines(&events);
            let mut times: Vec<f64> = lines.iter().filter_map(time).map(|us| us / 1e3).collect();
            assert_eq!(times.len(), FETCHES, "{lines:#?}");
            figures.insert(name, percentile(&mut times, 50));
        }
        figures
    })
}

/// Runs a job to its end.
async fn run(service: &Service, scripts: &[&str]) -> Vec<JobEvent> {
    let request = job(ScriptedHost::LABEL, scripts);
    service.submit(&request).await;
    let events = timeout(PATIENCE, service.events(request.envelope.job)).await;
    let events = events.expect("the job ends");
    let is_end = |event: &JobEvent| matches!(event.event, EventBody::Finished(_));
    assert!(events.iter().any(is_end), "{:#?}", lines(&events));
    events
}

/// All lines of a job.
fn lines(events: &[JobEvent]) -> Vec<String> {
    let batches = events.iter().filter_map(|event| match &event.event {
        EventBody::Log(batch) => Some(&batch.lines),
        _ => None,
    });
    batches.flatten().map(|line| line.text.to_text().into_owned()).collect()
}

/// How long the second step took: before the first the guest waits for the host's disk.
fn second_step_ms(events: &[JobEvent]) -> f64 {
    let time = |wanted: &dyn Fn(&EventBody) -> bool| {
        events.iter().find(|event| wanted(&event.event)).expect("the step ran").time
    };
    let began = time(&|body| matches!(body, EventBody::StepStarted(step) if step.step == 1));
    let ended = time(&|body| matches!(body, EventBody::StepFinished(step) if step.step == 1));
    millis(ended.since(began))
}
