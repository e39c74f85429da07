//! Order, redelivery, back-pressure, and events that wait for their runner.

use common::ids::{HostId, JobId};
use queue::QueueError;
use queue::message::JobMessage;

use crate::on_both;
use crate::samples::{address, batch, job};
use crate::world::{
    World, assert_unroutable, next_events, next_job, patient, silent, take_jobs, within,
};

on_both! {
    jobs_come_once_and_in_order,
    jobs_of_a_lost_consumer_come_again_in_order,
    jobs_of_a_lost_process_come_again,
    what_is_not_acknowledged_holds_the_rest_back,
    two_receivers_share_the_jobs,
    events_are_kept_while_their_runner_is_away,
    events_for_nobody_are_an_error,
    only_what_has_no_queue_is_unroutable,
    a_closed_queue_says_so,
}

fn id(message: &JobMessage) -> JobId {
    message.envelope().job
}

async fn jobs_come_once_and_in_order(world: World) {
    let (runner, host) = (world.process().await, world.process().await);
    let jobs: Vec<_> = (0..50).map(|_| job()).collect();
    for job in &jobs {
        within(runner.publish_job(job)).await;
    }
    let mut receiver = within(host.jobs(8)).await;
    for expected in &jobs {
        let delivery = next_job(&mut receiver).await;
        assert_eq!(delivery.message.as_ref(), Ok(expected), "as it was published");
        within(delivery.acknowledge()).await;
    }
    silent(receiver.next()).await;
    drop(receiver);
    let mut receiver = within(host.jobs(8)).await;
    silent(receiver.next()).await;
}

async fn jobs_of_a_lost_consumer_come_again_in_order(world: World) {
    let queue = world.process().await;
    let jobs: Vec<_> = (0..6).map(|_| job()).collect();
    for job in &jobs {
        within(queue.publish_job(job)).await;
    }
    let mut receiver = within(queue.jobs(4)).await;
    assert_eq!(take_jobs(&mut receiver, 1).await, [id(&jobs[0])]);
    let held = [next_job(&mut receiver).await, next_job(&mut receiver).await];
    drop((receiver, held));

    let mut receiver = within(queue.jobs(4)).await;
    let expected: Vec<_> = jobs[1..].iter().map(id).collect();
    assert_eq!(take_jobs(&mut receiver, 5).await, expected);
    silent(receiver.next()).await;
}

async fn jobs_of_a_lost_process_come_again(world: World) {
    let lost = world.process().await;
    let jobs: Vec<_> = (0..3).map(|_| job()).collect();
    for job in &jobs {
        within(lost.publish_job(job)).await;
    }
    let mut receiver = within(lost.jobs(2)).await;
    let held = next_job(&mut receiver).await;
    world.end(lost).await;
    assert!(patient(held.acknowledge()).await.is_err(), "acknowledged by a lost process");
    assert!(matches!(patient(receiver.next()).await, Err(QueueError::Closed)));

    let mut receiver = within(world.process().await.jobs(2)).await;
    let expected: Vec<_> = jobs.iter().map(id).collect();
    assert_eq!(take_jobs(&mut receiver, 3).await, expected);
}

async fn what_is_not_acknowledged_holds_the_rest_back(world: World) {
    let queue = world.process().await;
    for _ in 0..5 {
        within(queue.publish_job(&job())).await;
    }
    let mut receiver = within(queue.jobs(3)).await;
    let first = next_job(&mut receiver).await;
    let _second = next_job(&mut receiver).await;
    let _third = next_job(&mut receiver).await;
    silent(receiver.next()).await;
    within(first.acknowledge()).await;
    let _fourth = next_job(&mut receiver).await;
    silent(receiver.next()).await;
}

async fn two_receivers_share_the_jobs(world: World) {
    let (one, two) = (world.process().await, world.process().await);
    let (mut first, mut second) = (within(one.jobs(1)).await, within(two.jobs(1)).await);
    let (a, b, c) = (job(), job(), job());
    for job in [&a, &b, &c] {
        within(one.publish_job(job)).await;
    }
    // Each has room for one: whichever is first, none has both.
    let (held_first, held_second) = (next_job(&mut first).await, next_job(&mut second).await);
    let mut came =
        vec![id(held_first.message.as_ref().unwrap()), id(held_second.message.as_ref().unwrap())];
    within(held_second.acknowledge()).await;
    came.extend(take_jobs(&mut second, 1).await);
    came.sort_unstable();
    let mut all = vec![id(&a), id(&b), id(&c)];
    all.sort_unstable();
    assert_eq!(came, all);
}

async fn events_are_kept_while_their_runner_is_away(world: World) {
    let (runner, host) = (world.process().await, world.process().await);
    let (mine, other) = (address("runner-1"), address("runner-2"));
    drop(within(runner.events(&mine, 1)).await);
    let mut others = within(runner.events(&other, 1)).await;
    let batches: Vec<_> = (0..5).map(|_| batch(HostId::new(), 10)).collect();
    for batch in &batches {
        within(host.publish_events(&mine, batch)).await;
    }
    world.end(runner).await;
    let runner = world.process().await;
    let mut receiver = within(runner.events(&mine, 2)).await;
    for expected in &batches {
        let delivery = next_events(&mut receiver).await;
        assert_eq!(delivery.message.as_ref(), Ok(expected));
        within(delivery.acknowledge()).await;
    }
    silent(receiver.next()).await;
    // Its process has ended; nothing came to it before.
    assert!(matches!(patient(others.next()).await, Err(QueueError::Closed)));
    let mut others = within(runner.events(&other, 1)).await;
    silent(others.next()).await;
}

async fn events_for_nobody_are_an_error(world: World) {
    let queue = world.process().await;
    let events = batch(HostId::new(), 1);
    assert_unroutable(&patient(queue.publish_events(&address("nobody"), &events)).await);
    let somebody = address("somebody");
    let mut receiver = within(queue.events(&somebody, 1)).await;
    within(queue.publish_events(&somebody, &events)).await;
    assert_eq!(next_events(&mut receiver).await.message, Ok(events));
}

/// Many at once: what one publisher is told must not be about another's message.
async fn only_what_has_no_queue_is_unroutable(world: World) {
    let queue = world.process().await;
    let (here, gone) = (address("here"), address("gone"));
    let mut receiver = within(queue.events(&here, 100)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..400 {
        let queue = queue.clone();
        let routable = number % 3 != 0;
        let to = if routable { here.clone() } else { gone.clone() };
        tasks.spawn(async move {
            let result = queue.publish_events(&to, &batch(HostId::new(), 1)).await;
            (routable, result)
        });
    }
    let mut expected = 0;
    while let Some(result) = patient(tasks.join_next()).await {
        let (routable, result) = result.unwrap();
        if routable {
            expected += 1;
            assert!(result.is_ok(), "{result:?}");
        } else {
            assert_unroutable(&result);
        }
    }
    for _ in 0..expected {
        within(next_events(&mut receiver).await.acknowledge()).await;
    }
    silent(receiver.next()).await;
}

async fn a_closed_queue_says_so(world: World) {
    let queue = world.process().await;
    let mut receiver = within(queue.jobs(1)).await;
    let waiting = tokio::spawn(async move { receiver.next().await.map(drop) });
    queue.close().await;
    let result = patient(waiting).await.unwrap();
    assert!(matches!(result, Err(QueueError::Closed)), "{result:?}");
    let result = patient(queue.publish_job(&job())).await;
    assert!(matches!(result, Err(QueueError::Closed)), "{result:?}");
}
