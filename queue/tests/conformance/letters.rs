//! Messages that their consumer rejects.

use common::ids::HostId;

use crate::on_both;
use crate::samples::{address, batch, job};
use crate::world::{World, next_events, next_job, patient, silent, within};

on_both! {
    a_rejected_message_is_kept_with_its_reason_and_does_not_come_again,
    dead_letters_outlive_their_process,
}

async fn a_rejected_message_is_kept_with_its_reason_and_does_not_come_again(world: World) {
    let queue = world.process().await;
    assert_eq!(within(queue.dead_letters(10)).await, []);
    let mut jobs = within(queue.jobs(2)).await;
    let to = address("runner-1");
    let mut events = within(queue.events(&to, 2)).await;
    for _ in 0..2 {
        within(queue.publish_job(&job())).await;
    }
    within(queue.publish_events(&to, &batch(HostId::new(), 1))).await;
    let first = next_job(&mut jobs).await;
    within(first.reject("the first reason")).await;
    let second = next_job(&mut jobs).await;
    within(second.reject("the second reason")).await;
    within(next_events(&mut events).await.reject("the third reason")).await;
    silent(jobs.next()).await;
    silent(events.next()).await;
    drop((jobs, events));
    let mut jobs = within(queue.jobs(2)).await;
    silent(jobs.next()).await;

    // Looking at them takes none away.
    for _ in 0..2 {
        let letters = within(queue.dead_letters(10)).await;
        let reasons: Vec<_> = letters.iter().map(|letter| letter.reason.as_str()).collect();
        assert_eq!(reasons, ["the third reason", "the second reason", "the first reason"]);
        assert!(letters[0].queue.contains("runner-1"), "{:?}", letters[0].queue);
        assert!(letters[1].queue.contains("jobs"), "{:?}", letters[1].queue);
        assert!(letters[0].time >= letters[2].time);
        assert!(letters.iter().all(|letter| letter.bytes.len() <= 1024));
    }
    let latest = within(queue.dead_letters(1)).await;
    assert_eq!(latest.len(), 1);
    assert_eq!(latest[0].reason, "the third reason");
}

async fn dead_letters_outlive_their_process(world: World) {
    let queue = world.process().await;
    within(queue.publish_job(&job())).await;
    let mut jobs = within(queue.jobs(1)).await;
    patient(next_job(&mut jobs).await.reject("kept")).await.unwrap();
    world.end(queue).await;
    let letters = within(world.process().await.dead_letters(10)).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "kept");
}
