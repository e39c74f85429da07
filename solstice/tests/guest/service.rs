//! The durable service with real guests: `solstice serve`, and `solstice run` as its client.

use rand::Rng;

use crate::faults::cut;
use crate::harness::steps;

const SLOW: &str = "\
- uses: actions/checkout@v4
- run: |
    cat treasure
    i=0
    while [ $i -lt 60 ]; do i=$((i+1)); echo line $i.; usleep 200000; done
- run: echo after that";

#[test]
fn a_service_that_is_killed_in_mid_step_goes_on_with_its_guest() {
    let story = steps(SLOW).file("treasure", "gold\n").committed();
    let service = story.serve();
    let mut live = story.start();
    let line = simulators::dice().random_range(1..=50);
    live.wait_for("gold\n").wait_for(&format!("line {line}.\n"));
    let guests = live.qemu();
    service.kill();
    assert_eq!(live.qemu(), guests, "the machine outlives the service");
    let service = live.serve();
    let ended = live.end().code(0).shows("after that").shows_each_line_once(60);
    service.stop();
    drop(ended);
}

#[test]
fn a_clone_is_restored_while_its_job_is_claimed() {
    let story = steps("- run: hostname").env("SOLSTICE_LOG", "info,orchestrator=debug");
    let service = story.serve();
    let ended = story.start().end().code(0).shows("solstice-").shows("from its template");
    service.stop();
    let log = ended.story.service_says();
    assert!(log.contains("a restored clone waits for its job"), "{log}");
    // It was that clone, under the job's name.
    assert!(log.contains("the job of a waiting clone has come"), "{log}");
}

#[test]
fn a_cut_connection_of_a_service_loses_nothing() {
    let story = cut();
    let service = story.serve();
    let ended = story.start().end().code(0).shows_each_line_once(400);
    service.stop();
    drop(ended);
}
