//! What operators see and do, on a service that runs jobs.

use std::time::Duration;

use common::JobId;
use common::event::JobResult;
use serde_json::Value;
use simulators::jobs::job;

use crate::harness::{Host, on_both};
use crate::shared::Shared;

/// What a command prints as JSON.
fn json(host: &Host, arguments: &[&str]) -> Value {
    let (code, printed, said) = host.solstice(arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}");
    serde_json::from_str(&printed).unwrap()
}

on_both! {
    async fn a_job_that_is_over_is_looked_at_and_run_again(world) {
        let host = world.host();
        let service = host.serve().await;
        let mut request = job("scripted", &["echo before", "exit 3", "echo never"]);
        request.envelope.repository = "me/app".to_owned();
        let id = service.submit(&request).await;
        service.finish(id).await;
        service.wait_state(id, &["done"]).await;
        let id = id.to_string();

        let listed = json(&host, &["jobs", "--all", "--repository", "me/app", "--json"]);
        assert_eq!(listed[0]["id"], id);
        assert_eq!(json(&host, &["jobs", "--json"]), serde_json::json!([]), "nothing is open");
        let shown = json(&host, &["show", &id, "--json"]);
        assert_eq!(shown["job"]["finished"]["result"], "failure");
        assert_eq!(shown["job"]["host"], service.host_id());
        let phases = shown["tries"][0]["phases"].as_array().unwrap();
        let names: Vec<_> = phases.iter().map(|phase| phase[0].as_str().unwrap()).collect();
        for name in ["image", "boot", "ready", "steps"] {
            assert!(names.contains(&name), "no {name} in {names:?}");
        }
        let (code, log, _) = host.solstice(&["logs", &id]);
        assert_eq!(code, 0, "it was not followed");
        assert!(log.contains("\n  before\n") && !log.contains("\n  never\n"), "{log}");

        let retried = json(&host, &["retry", &id, "--json"]);
        assert_eq!(retried["retry_of"], id);
        let again: JobId = retried["job"].as_str().unwrap().parse().unwrap();
        let received = service.finish(again).await;
        assert_eq!(received.lines(), ["before"]);
        assert_eq!(received.finished().unwrap().result, JobResult::Failure);
        let (code, _, _) = host.solstice(&["logs", "-f", &again.to_string()]);
        assert_eq!(code, 1, "following ends with the code of the job");
        service.stop().await;
    }

    async fn a_machine_is_destroyed_at_once(world) {
        let host = world.host();
        let service = host.serve().await;
        let id = service.submit(&job("scripted", &["echo begun", "sleep 600000"])).await;
        service.wait_for(id, "begun").await;
        let (code, _, said) = host.solstice(&["cancel", "--now", &id.to_string()]);
        assert_eq!(code, 0, "{said}");
        let received = service.finish(id).await;
        assert_eq!(received.finished().unwrap().result, JobResult::Cancelled);
        host.wait_until_empty().await;
        // Its job is over: it can be run again, and the new one be cancelled as well.
        service.wait_state(id, &["done"]).await;
        let retried = json(&host, &["retry", &id.to_string(), "--json"]);
        let again = retried["job"].as_str().unwrap().to_owned();
        assert_eq!(json(&host, &["jobs", "--json"])[0]["id"], again);
        assert_eq!(host.solstice(&["retry", &again]).0, 64, "it is not over");
        assert_eq!(host.solstice(&["cancel", &again]).0, 0);
        service.finish(again.parse().unwrap()).await;
        service.stop().await;
    }

    async fn what_is_counted(world) {
        let host = world.host();
        let service = host.serve().await;
        let before = service.metrics().await;
        for what in orchestrator::metrics::TROUBLES {
            let series = format!("solstice_errors_total{{what=\"{what}\"}} 0");
            assert!(before.contains(&series), "{series} is not in\n{before}");
        }
        let passed = service.submit(&job("scripted", &["echo fine"])).await;
        let failed = service.submit(&job("scripted", &["exit 1"])).await;
        let nowhere = service.submit(&job("solaris-2.6", &["echo never"])).await;
        for id in [passed, failed, nowhere] {
            service.finish(id).await;
            service.wait_state(id, &["done"]).await;
        }
        for result in ["success", "failure", "infrastructure"] {
            let series = format!("solstice_jobs_finished_total{{result=\"{result}\"}}");
            assert_eq!(service.value(&series).await, 1.0, "{series}");
        }
        assert_eq!(service.value("solstice_queue_wait_seconds_count").await, 2.0);
        let boots = "solstice_phase_seconds_count{image=\"scripted\",phase=\"boot\"}";
        assert_eq!(service.value(boots).await, 2.0);
        assert!(service.value("solstice_log_lines_total").await > 0.0);
        let text = service.metrics().await;
        for metric in orchestrator::metrics::METRICS {
            // Nothing was tried again.
            let is_there = text.contains(&format!("# TYPE {} ", metric.name));
            assert!(is_there || metric.name == "solstice_retries_total", "{}", metric.name);
        }
        service.stop().await;
    }

    async fn a_job_that_waited_as_long_as_it_may_is_answered(world) {
        let host = world.host().env("SOLSTICE_MAX_CPUS", "1");
        let service = host.serve().await;
        let running = service.submit(&job("scripted", &["echo begun", "sleep 600000"])).await;
        service.wait_for(running, "begun").await;
        let mut request = job("scripted", &["echo never"]);
        request.envelope.deadlines.queued = Duration::from_secs(1);
        let waiting = service.submit(&request).await;
        let received = service.finish(waiting).await;
        let cause = received.finished().unwrap().infrastructure.clone().unwrap();
        assert_eq!(cause.cause.code(), "SOL-NO-HOST", "{cause}");
        assert!(cause.message.contains("no host had room"), "{cause}");
        assert!(received.lines().is_empty());
        service.post(&format!("/v1/jobs/{running}/cancel")).await;
        service.finish(running).await;
        service.stop().await;
    }
}

/// What one check of `solstice doctor` found.
fn diagnosis(host: &Host, id: &str) -> (String, String) {
    let (_, printed, said) = host.solstice(&["doctor", "--json"]);
    assert!(!printed.contains("throw-away"), "a password: {printed}");
    let checks: Vec<Value> = serde_json::from_str(&printed).expect(&said);
    let check = checks.iter().find(|check| check["id"] == id).unwrap();
    let text = |key: &str| check[key].as_str().unwrap().to_owned();
    (text("verdict"), text("finding"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_looks_at_what_hosts_share_and_changes_nothing() {
    let shared = Shared::of_all().await;
    let host = shared.host();
    let expect = |id: &str, part: &str| {
        let (verdict, finding) = diagnosis(&host, id);
        assert!(verdict == "ok" && finding.contains(part), "{verdict}: {finding}");
    };
    expect("database", "without tables; the first start of a service makes them");
    expect("queue", "answers");
    expect("seal-keys", "seal.key");
    expect("service", "no service runs");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(shared.query(tables).await, "0");
    let queues = async || shared.broker.control(&["list_queues", "name"]).await.unwrap();
    assert!(!queues().await.contains(&shared.queue("")), "{}", queues().await);

    let service = host.serve().await;
    assert!(queues().await.contains(&shared.queue("")), "{}", queues().await);
    expect("database", ", version 1");
    expect("service", "answers on");
    shared.query("UPDATE solstice_schema SET version = 9000").await;
    let (verdict, finding) = diagnosis(&host, "database");
    assert!(verdict == "failed" && finding.contains("version 9000"), "{finding}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_looks_at_what_a_service_has_open() {
    let host = Host::new();
    let service = host.serve().await;
    let expect = |id: &str, part: &str| {
        let (verdict, finding) = diagnosis(&host, id);
        assert!(verdict == "ok" && finding.contains(part), "{verdict}: {finding}");
    };
    expect("database", "solstice.db, version 1");
    expect("queue", "queue.db");
    expect("seal-keys", "seal.key");
    expect("service", "answers on");
    // Killed, with what it wrote last still in the log of the database.
    service.kill();
    expect("database", "solstice.db, version 1");
    expect("service", "no service runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_says_once_that_login_keys_reach_a_disk() {
    const WARNING: &str = "the runtime directory is not on a tmpfs";
    let host = Host::new();
    host.serve().await.stop().await;
    assert!(!host.diagnostics().contains(WARNING), "{}", host.diagnostics());
    // Beside the state, which no test keeps in memory.
    let (runtime, socket) =
        (host.state().with_file_name("run"), host.runtime().join("solstice.sock"));
    let host = host
        .env("SOLSTICE_RUNTIME_DIR", runtime.to_str().unwrap())
        .env("SOLSTICE_SOCKET", socket.to_str().unwrap());
    host.serve().await.stop().await;
    assert_eq!(host.diagnostics().matches(WARNING).count(), 1, "{}", host.diagnostics());
    let (verdict, finding) = diagnosis(&host, "runtime-dir");
    assert!(verdict == "warning" && finding.contains("login keys"), "{finding}");
}

/// Machines and not jobs: one is that of a `solstice run` beside the service, and one goes before
/// its job.
#[tokio::test(flavor = "multi_thread")]
async fn machines_are_counted_that_run() {
    let host = Host::new();
    let (mut run, _said) = host.run_alone("sleep 600000", "Run sleep");
    let service = host.serve().await;
    service.wait_for_value("solstice_machines", 1.0).await;
    let id = service.submit(&job("scripted", &["echo begun", "sleep 600000"])).await;
    service.wait_for(id, "begun").await;
    service.wait_for_value("solstice_machines", 2.0).await;
    host.kill_guests().await;
    service.wait_for_value("solstice_machines", 0.0).await;
    service.finish(id).await;
    run.wait().unwrap();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_of_the_broker() {
    let shared = Shared::start().await;
    let host = shared.host();
    let service = host.serve().await;
    assert_eq!(service.get("/health").await["problems"], serde_json::json!([]));
    shared.broker.settle().await.unwrap();
    shared.broker.kill().await.unwrap();
    let problems = service.get("/health").await["problems"].to_string();
    assert!(problems.contains("broker"), "{problems}");
    shared.broker.restart().await.unwrap();
    service.wait_until_healthy().await;
    service.stop().await;
}

/// Every host looks for jobs that waited in vain, and each keeps the logs of the ends that it wrote.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_job_is_where_it_was_handed_in() {
    let shared = Shared::of_all().await;
    let (asked, other) = (shared.host().env("SOLSTICE_MAX_CPUS", "1"), shared.host());
    let (first, second) = (asked.serve().await, other.serve().await);
    let running = first.submit(&job("scripted", &["echo begun", "sleep 600000"])).await;
    first.wait_for(running, "begun").await;
    let mut request = job("scripted", &["echo never"]);
    request.envelope.deadlines.queued = Duration::from_secs(1);
    let waiting = first.submit(&request).await;
    // Its time is over while only the other one is awake, which looks every two seconds.
    first.asleep_for(Duration::from_secs(6)).await;
    let received = first.finish(waiting).await;
    let cause = received.finished().unwrap().infrastructure.clone().unwrap();
    assert_eq!(cause.cause.code(), "SOL-NO-HOST", "{cause}");
    first.post(&format!("/v1/jobs/{running}/cancel")).await;
    first.finish(running).await;
    first.stop().await;
    second.stop().await;
}
