//! A clock that is set an hour forwards or back.

use orchestrator::store::{JobState, LEASE, RESERVATION};
use queue::message::Reserve;

use crate::harness::*;

const HOUR: i64 = 3_600_000_000;

async fn reserve_all(world: &World) -> u32 {
    let id = common::ids::ReservationId::new();
    let labels = vec![LABEL.to_owned()];
    let question = Reserve { id, runner: "runner".to_owned(), labels, want: 100 };
    world.store.reserve(&question).await.unwrap().count
}

async fn a_job_goes_its_way(world: &World, host: &Host) {
    let job = world.accept(|_| {}).await;
    let claimed = world.claim(host).await;
    let running = JobState::Running;
    world.store.advance(job, claimed.lease, running, seconds(60)).await.unwrap();
    assert!(world.store.finish(job, Some(claimed.lease), &passed()).await.unwrap());
}

async fn check(micros: i64) {
    let world = World::sqlite().await;
    let (host, dead) = (world.host(8).await, world.host(8).await);
    let job = world.accept(|_| {}).await;
    let claimed = world.claim(&host).await;
    let lost = world.accept(|_| {}).await;
    world.claim(&dead).await;
    assert_eq!(reserve_all(&world).await, 14);

    world.clock().jump(micros);
    world.announce(&host).await;
    // A job that runs is not touched, and goes on under its lease.
    assert!(!world.store.advance(job, claimed.lease, JobState::Running, LEASE).await.unwrap());
    a_job_goes_its_way(&world, &host).await;

    // What was promised before the jump does not keep the room for longer than a reservation does.
    world.pass(RESERVATION + seconds(1)).await;
    world.announce(&host).await;
    assert!(reserve_all(&world).await >= 7, "after a jump of {micros}");

    // A host that died before the jump is dead at most the length of a lease after it.
    world.pass(LEASE + seconds(1)).await;
    world.announce(&host).await;
    let taken = world.store.take_over(host.id).await.unwrap();
    assert_eq!(taken.iter().map(|active| active.job.id).collect::<Vec<_>>(), [lost]);
    assert!(world.store.finish(job, Some(claimed.lease), &passed()).await.unwrap());
}

#[tokio::test]
async fn an_hour_forwards() {
    check(HOUR).await;
}

#[tokio::test]
async fn an_hour_back() {
    check(-HOUR).await;
}

/// The process that had the host's id before was killed before the clock was set back.
#[tokio::test]
async fn a_restart_after_the_clock_was_set_back() {
    let world = World::sqlite().await;
    let mut host = world.host(8).await;
    world.clock().jump(-HOUR);
    host.boot = Host::new(1).boot;
    world.announce(&host).await;
    a_job_goes_its_way(&world, &host).await;
}
