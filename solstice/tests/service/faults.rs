//! Machines and connections that fail under a job.

use std::time::Duration;

use common::event::JobResult;
use common::request::JobRequest;
use orchestrator::Patience;
use orchestrator::clock::Clock;
use orchestrator::service::Service;
use rand::Rng;
use simulators::BootEnd;
use simulators::jobs::job;

use crate::clock::settings;
use crate::harness::{Host, PATIENCE, World, numbered, on_both};
use crate::shared::Runner;

/// Runs one job whose step does this, and checks the named cause.
async fn dies_of(world: World, script: &str, code: &str) {
    let host = world.host();
    let service = host.serve().await;
    let id = service.submit(&job("scripted", &[script])).await;
    let received = service.finish(id).await;
    let finished = received.finished().unwrap();
    assert_eq!(finished.result, JobResult::Failure);
    let cause = finished.infrastructure.clone().unwrap();
    assert_eq!(cause.cause.code(), code, "{cause}");
    assert_eq!(received.tries(), 1, "its steps had begun");
    assert!(received.log().iter().any(|line| line.contains(code)), "{:#?}", received.log());
    host.wait_until_empty().await;
    service.stop().await;
}

/// What becomes of a job that says `begun` and does not end, where nobody has much patience.
async fn ends_by_patience(world: World, request: JobRequest, code: &str) {
    let host = world.host();
    let mut settings = settings(&world, &host, Clock::system());
    let little = Duration::from_secs(2);
    settings.machines.patience = Patience { ssh_lost: little, after_limit: little };
    let service = Service::start(settings).await.unwrap();
    let runner =
        Runner { queue: service.queue(), keys: service.keys(), address: "runner".parse().unwrap() };
    drop(runner.queue.events(&runner.address, 1).await.unwrap());
    let id = runner.publish(request).await;
    let received = &runner.finish(&[id]).await[&id];
    assert_eq!(received.lines(), ["begun"]);
    assert_eq!(received.tries(), 1, "its steps had begun");
    let cause = received.finished().unwrap().infrastructure.clone().unwrap();
    assert_eq!(cause.cause.code(), code, "{cause}");
    service.stop().await;
    host.wait_until_empty().await;
}

on_both! {
    async fn a_panic_is_named(world) {
        dies_of(world, "echo begun\npanic", "SOL-GUEST-PANIC").await;
    }

    async fn a_guest_without_memory_is_named(world) {
        dies_of(world, "echo begun\noom", "SOL-GUEST-MEMORY").await;
    }

    async fn a_full_disk_of_the_host_is_named(world) {
        dies_of(world, "echo begun\ndiskfull", "SOL-HOST-DISK-FULL").await;
    }

    async fn a_power_off_is_named(world) {
        dies_of(world, "echo begun\npoweroff", "SOL-GUEST-POWERED-OFF").await;
    }

    async fn a_reboot_is_named(world) {
        dies_of(world, "echo begun\nreboot", "SOL-GUEST-REBOOTED").await;
    }

    async fn a_lost_guest_program_is_named(world) {
        dies_of(world, "echo begun\ndie", "SOL-GUEST-PROGRAM-LOST").await;
    }

    async fn a_guest_whose_disk_has_no_room_for_a_step_is_named(world) {
        dies_of(world, "echo begun\nnospace", "SOL-GUEST-DISK-FULL").await;
    }

    async fn a_tree_that_does_not_fit_is_named_and_not_tried_again(world) {
        let host = world.host();
        host.boots(Duration::ZERO, BootEnd::Full);
        let service = host.serve().await;
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("file"), "text").unwrap();
        let mut request = job("scripted", &["echo never"]);
        request.body.tree = Some(tree.path().to_owned());
        let id = service.submit(&request).await;
        let received = service.finish(id).await;
        let cause = received.finished().unwrap().infrastructure.clone().unwrap();
        assert_eq!(cause.cause.code(), "SOL-GUEST-DISK-FULL");
        let text = &cause.message;
        let root = tree.path().to_str().unwrap();
        for part in [root, "cannot unpack the first file: No space left on device"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(received.tries(), 1);
        assert!(received.lines().is_empty());
        host.wait_until_empty().await;
        service.stop().await;
    }

    async fn a_killed_qemu_is_named(world) {
        let host = world.host();
        let service = host.serve().await;
        let id = service.submit(&job("scripted", &["echo begun\nsleep 600000"])).await;
        service.wait_for(id, "begun").await;
        host.kill_guests().await;
        let received = service.finish(id).await;
        let cause = received.finished().unwrap().infrastructure.clone().unwrap();
        assert_eq!(cause.cause.code(), "SOL-QEMU-KILLED");
        service.stop().await;
    }

    async fn a_boot_that_fails_is_tried_twice_more(world) {
        let host = world.host();
        host.boots(Duration::ZERO, BootEnd::Panic);
        let service = host.serve().await;
        let id = service.submit(&job("scripted", &["echo never"])).await;
        let received = service.finish(id).await;
        assert!(received.finished().unwrap().infrastructure.is_some());
        assert_eq!(received.tries(), 3);
        assert!(received.lines().is_empty());
        let metrics = service.metrics().await;
        assert!(metrics.contains("solstice_retries_total"), "{metrics}");
        host.wait_until_empty().await;
        service.stop().await;
    }

    async fn a_cut_connection_loses_nothing(world) {
        let host = world.host();
        let service = host.serve().await;
        let mut dice = simulators::dice();
        let (first, second) = (dice.random_range(1..100_usize), dice.random_range(1..100_usize));
        let script = format!("lines {first} 5\ncut\nlines {second} 5\ncut\necho end");
        let id = service.submit(&job("scripted", &[&script])).await;
        let received = service.finish(id).await;
        let expected = [numbered(first), numbered(second), vec!["end".to_owned()]].concat();
        assert_eq!(received.lines(), expected);
        assert_eq!(received.finished().unwrap().result, JobResult::Success);
        service.stop().await;
    }

    async fn a_guest_that_cannot_be_reached_any_more_is_named(world) {
        let request = job("scripted", &["echo begun\nsleep 500\nunplug\nsleep 600000"]);
        ends_by_patience(world, request, "SOL-SSH-LOST").await;
    }

    /// The scripted guest knows no limit, as one whose clock stands still.
    async fn a_guest_that_goes_on_beyond_its_jobs_limit_is_ended(world) {
        let mut request = job("scripted", &["echo begun\nsleep 600000"]);
        request.envelope.deadlines.running = Duration::from_secs(1);
        ends_by_patience(world, request, "SOL-DEADLINE").await;
    }

    async fn two_services_and_a_run_on_one_host_do_not_touch_each_other(world) {
        let (one, two) = (world.host(), world.host());
        let (first, second) = (one.serve().await, two.serve().await);
        let long = job("scripted", &["lines 300 10"]);
        let a = first.submit(&long).await;
        let b = second.submit(&job("scripted", &["lines 300 10"])).await;
        first.wait_for(a, "line 5").await;
        second.wait_for(b, "line 5").await;
        // In the same directories as the first service, and an instance of its own.
        let (mut run, said) = one.run_alone("lines 300 10", "line 5");
        first.kill();
        let first = one.serve().await;
        assert_eq!(first.finish(a).await.lines(), numbered(300));
        assert_eq!(second.finish(b).await.lines(), numbered(300));
        let lines: Vec<String> = said.map(Result::unwrap).collect();
        assert!(run.wait().unwrap().success(), "{lines:#?}");
        let rest: Vec<u32> =
            lines.iter().filter_map(|line| line.rsplit_once("line ")?.1.parse().ok()).collect();
        assert_eq!(rest, (6..=300).collect::<Vec<u32>>());
        first.stop().await;
        second.stop().await;
    }
}

/// QEMU runs on, and has no news of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_halts_is_not_waited_for() {
    let request = job("scripted", &["echo begun\nsleep 500\nhalt\nsleep 600000"]);
    let host = Host::new();
    let service = host.serve().await;
    let id = service.submit(&request).await;
    let received = service.finish(id).await;
    let cause = received.finished().unwrap().infrastructure.clone().unwrap();
    assert_eq!(cause.cause.code(), "SOL-GUEST-POWERED-OFF", "{cause}");
    assert!(cause.to_string().contains("reboot: System halted"), "{cause}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_qemu_stops_for_three_minutes_loses_nothing() {
    let host = Host::new();
    let service = host.serve().await;
    let before = simulators::dice().random_range(1..100_usize);
    let script = format!("lines {before} 5\npause 180000\nlines 20 5\necho end");
    let id = service.submit(&job("scripted", &[&script])).await;
    service.wait_for(id, "has not answered for 60 s").await;
    service.wait_long_for(id, "answers again", 2 * PATIENCE).await;
    let received = service.finish(id).await;
    assert_eq!(received.lines(), [numbered(before), numbered(20), vec!["end".to_owned()]].concat());
    assert_eq!(received.finished().unwrap().result, JobResult::Success);
    assert_eq!(received.tries(), 1);
    service.stop().await;
}
