//! Jobs that run to their end.

use common::event::JobResult;
use common::request::Secret;
use simulators::jobs::job;

use crate::harness::{numbered, on_both};

on_both! {
    async fn a_job_runs_from_an_empty_directory_without_any_setting(world) {
        let host = world.host();
        let service = host.serve().await;
        let id = service.submit(&job("scripted", &["echo hello", "lines 20 1"])).await;
        let received = service.finish(id).await;
        assert_eq!(received.finished().unwrap().result, JobResult::Success);
        let mut expected = vec!["hello".to_owned()];
        expected.extend(numbered(20));
        assert_eq!(received.lines(), expected);
        host.wait_until_empty().await;
        service.stop().await;
    }

    async fn results_are_the_jobs_own(world) {
        let host = world.host();
        let service = host.serve().await;
        let failed = service.submit(&job("scripted", &["echo before", "exit 3", "echo after"])).await;
        let passed = service.submit(&job("scripted", &["echo fine"])).await;
        let received = service.finish(failed).await;
        assert_eq!(received.finished().unwrap().result, JobResult::Failure);
        assert!(received.finished().unwrap().infrastructure.is_none());
        assert_eq!(received.lines(), ["before"]);
        assert_eq!(service.finish(passed).await.finished().unwrap().result, JobResult::Success);
        service.wait_state(failed, &["done"]).await;
        service.stop().await;
    }

    async fn a_running_and_a_waiting_job_are_cancelled(world) {
        let host = world.host().env("SOLSTICE_MAX_CPUS", "1");
        let service = host.serve().await;
        let running = service.submit(&job("scripted", &["echo begun", "sleep 600000"])).await;
        service.wait_for(running, "begun").await;
        let waiting = service.submit(&job("scripted", &["echo never"])).await;
        service.post(&format!("/v1/jobs/{waiting}/cancel")).await;
        let received = service.finish(waiting).await;
        assert_eq!(received.finished().unwrap().result, JobResult::Cancelled);
        assert!(received.lines().is_empty());
        service.post(&format!("/v1/jobs/{running}/cancel")).await;
        let received = service.finish(running).await;
        assert_eq!(received.finished().unwrap().result, JobResult::Cancelled);
        host.wait_until_empty().await;
        // A cancel after the end changes nothing.
        service.post(&format!("/v1/jobs/{running}/cancel")).await;
        service.wait_state(running, &["done"]).await;
        service.stop().await;
    }

    async fn nothing_of_a_secret_is_at_rest(world) {
        const CANARY: &str = "canary-4fb1c2-secret";
        let host = world.host();
        let service = host.serve().await;
        let mut request = job("scripted", &[&format!("echo the secret is {CANARY}"), "echo spoken"]);
        request.body.secrets.insert("TOKEN".to_owned(), Secret::new(CANARY));
        let id = service.submit(&request).await;
        let received = service.finish(id).await;
        assert_eq!(received.lines(), ["the secret is ***", "spoken"]);
        host.wait_until_empty().await;
        service.kill();
        for file in files_under(&host.state()) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            for text in [CANARY, "spoken"] {
                let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
                assert!(!found, "{text:?} in {}", file.display());
            }
        }
        assert!(!host.diagnostics().contains(CANARY));
    }

    async fn a_label_that_nobody_has_is_answered_at_once(world) {
        let host = world.host();
        let service = host.serve().await;
        let id = service.submit(&job("solaris-2.6", &["echo never"])).await;
        let received = service.finish(id).await;
        let cause = received.finished().unwrap().infrastructure.clone().unwrap();
        assert_eq!(cause.cause.code(), "SOL-NO-HOST");
        assert!(cause.message.contains("solaris-2.6"), "{}", cause.message);
        service.stop().await;
    }

    async fn a_host_that_drains_takes_nothing_new(world) {
        let host = world.host();
        let service = host.serve().await;
        let running = service.submit(&job("scripted", &["echo begun", "sleep 1000", "echo end"])).await;
        service.wait_for(running, "begun").await;
        assert_eq!(host.solstice(&["drain"]).0, 0);
        let waiting = service.submit(&job("scripted", &["echo later"])).await;
        let received = service.finish(running).await;
        assert_eq!(received.lines(), ["begun", "end"]);
        service.wait_state(waiting, &["queued"]).await;
        assert_eq!(host.solstice(&["drain", "--off"]).0, 0);
        assert_eq!(service.finish(waiting).await.lines(), ["later"]);
        service.stop().await;
    }
}

fn files_under(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(files_under(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files
}
