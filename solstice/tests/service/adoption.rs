//! Services that end in the middle of jobs, and come back.

use std::time::Duration;

use common::event::JobResult;
use simulators::BootEnd;
use simulators::jobs::job;

use crate::harness::{Host, moment, numbered, on_both};

on_both! {
    async fn a_killed_service_goes_on_with_its_machines_and_loses_no_line(world) {
        let host = world.host();
        let service = host.serve().await;
        let id = service.submit(&job("scripted", &["lines 300 10", "echo end"])).await;
        service.wait_for(id, &moment(200)).await;
        let before = host.guests();
        service.kill();
        assert_eq!(host.guests(), before, "the machine outlives the service");
        let service = host.serve().await;
        let received = service.finish(id).await;
        assert_eq!(received.finished().unwrap().result, JobResult::Success);
        let mut expected = numbered(300);
        expected.push("end".to_owned());
        assert_eq!(received.lines(), expected);
        assert_eq!(received.tries(), 1);
        host.wait_until_empty().await;
        service.stop().await;
    }

    async fn a_service_that_is_stopped_leaves_its_machines_to_the_next(world) {
        let host = world.host();
        let service = host.serve().await;
        let id = service.submit(&job("scripted", &["lines 200 10"])).await;
        service.wait_for(id, &moment(100)).await;
        let before = host.guests();
        service.stop().await;
        assert_eq!(host.guests(), before);
        // As after an upgrade that brought another image.
        std::fs::remove_dir_all(host.scripted().images()).unwrap();
        let service = host.serve().await;
        let received = service.finish(id).await;
        assert_eq!(received.lines(), numbered(200));
        assert_eq!(received.tries(), 1);
        service.stop().await;
    }

    async fn a_job_that_is_being_started_when_its_service_is_stopped_runs_once(world) {
        let host = world.host();
        host.boots(Duration::ZERO, BootEnd::Slow);
        let service = host.serve().await;
        let id = service.submit(&job("scripted", &["echo once"])).await;
        service.wait_state(id, &["running"]).await;
        let before = host.guests();
        service.stop().await;
        assert_eq!(host.guests(), before);
        let service = host.serve().await;
        let received = service.finish(id).await;
        assert_eq!(received.finished().unwrap().result, JobResult::Success);
        assert_eq!(received.lines(), ["once"]);
        assert_eq!(received.tries(), 1);
        service.stop().await;
    }

    async fn a_mask_from_before_the_restart_holds_after_it(world) {
        let host = world.host();
        let service = host.serve().await;
        let script = "mask hidden-value\necho begun\nsleep 1500\necho it is hidden-value";
        let id = service.submit(&job("scripted", &[script])).await;
        service.wait_for(id, "begun").await;
        service.kill();
        let service = host.serve().await;
        let received = service.finish(id).await;
        assert_eq!(received.lines(), ["begun", "it is ***"]);
        service.stop().await;
    }

    async fn a_boot_that_is_cut_by_a_kill_begins_again(world) {
        let host = world.host();
        host.boots(Duration::from_millis(1500), BootEnd::Ready);
        let service = host.serve().await;
        let id = service.submit(&job("scripted", &["echo once"])).await;
        service.wait_state(id, &["booting"]).await;
        service.kill();
        let service = host.serve().await;
        let received = service.finish(id).await;
        assert_eq!(received.lines(), ["once"]);
        assert_eq!(received.finished().unwrap().result, JobResult::Success);
        host.wait_until_empty().await;
        service.stop().await;
    }

    async fn a_machine_that_died_with_its_service_is_named(world) {
        let host = world.host();
        let service = host.serve().await;
        let id = service.submit(&job("scripted", &["echo begun", "sleep 600000"])).await;
        service.wait_for(id, "begun").await;
        service.kill();
        host.kill_guests().await;
        let service = host.serve().await;
        let received = service.finish(id).await;
        let cause = received.finished().unwrap().infrastructure.clone().unwrap();
        assert_eq!(cause.cause.code(), "SOL-HOST-RESTARTED");
        host.wait_until_empty().await;
        service.stop().await;
    }

    async fn a_journal_that_cannot_be_read_is_put_aside_and_its_job_answered(world) {
        let host = world.host();
        let service = host.serve().await;
        let id = service.submit(&job("scripted", &["echo begun", "sleep 600000"])).await;
        service.wait_for(id, "begun").await;
        service.kill();
        let journals = host.state().join("journals");
        let foreign = "no journal at all\n".repeat(100);
        std::fs::write(journals.join(format!("{id}.segment")), foreign).unwrap();
        let service = host.serve().await;
        let received = service.finish(id).await;
        let cause = received.finished().unwrap().infrastructure.clone().unwrap();
        assert_eq!(cause.cause.code(), "SOL-HOST-RESTARTED");
        assert!(journals.join(format!("{id}.damaged")).exists());
        assert!(service.errors("journal").await > 0.0);
        host.wait_until_empty().await;
        service.stop().await;
    }

    async fn a_cancel_that_the_guest_has_not_heard_yet_survives_a_kill(world) {
        let host = world.host();
        let service = host.serve().await;
        let request = job("scripted", &["echo begun\nfreeze 5000\nsleep 600000", "echo never"]);
        let id = service.submit(&request).await;
        service.wait_for(id, "begun").await;
        service.post(&format!("/v1/jobs/{id}/cancel")).await;
        service.wait_state(id, &["cancelling"]).await;
        service.kill();
        let service = host.serve().await;
        let received = service.finish(id).await;
        assert_eq!(received.finished().unwrap().result, JobResult::Cancelled);
        assert_eq!(received.lines(), ["begun"]);
        assert_eq!(received.tries(), 1);
        host.wait_until_empty().await;
        service.stop().await;
    }

    async fn a_waiting_job_is_there_after_a_kill(world) {
        let host = world.host().env("SOLSTICE_MAX_CPUS", "1");
        let service = host.serve().await;
        let first = service.submit(&job("scripted", &["echo begun", "sleep 2000"])).await;
        let second = service.submit(&job("scripted", &["echo second"])).await;
        service.wait_for(first, "begun").await;
        service.kill();
        let service = host.serve().await;
        assert_eq!(service.finish(second).await.lines(), ["second"]);
        assert_eq!(service.finish(first).await.lines(), ["begun"]);
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_with_the_same_directory_is_refused() {
    let host = Host::new();
    let service = host.serve().await;
    let (code, _, errors) = host.solstice(&["serve"]);
    assert_eq!(code, 2, "{errors}");
    let id = service.submit(&job("scripted", &["echo fine"])).await;
    assert_eq!(service.finish(id).await.lines(), ["fine"]);
    service.stop().await;
}
