//! An event queue at its limit.

use common::ids::HostId;
use common::limits::MIB;
use queue::QueueError;

use crate::samples::{address, batch};
use crate::world::{World, next_events, patient, silent, within};

/// What was taken is kept, what was not is an error, and the queue goes on once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbit_refuses_what_does_not_fit_and_loses_nothing() {
    let mut world = World::rabbit().await;
    let World::Rabbit { settings } = &mut world else { unreachable!() };
    settings.event_queue_bytes = MIB;
    let queue = world.process().await;
    let to = address("runner-1");
    drop(within(queue.events(&to, 1)).await);

    let mut taken = Vec::new();
    let error = loop {
        let events = batch(HostId::new(), 60_000);
        match patient(queue.publish_events(&to, &events)).await {
            Ok(()) => taken.push(events),
            Err(error) => break error,
        }
        assert!(taken.len() < 100, "the queue has no limit");
    };
    let QueueError::Unavailable { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("full"), "{reason}");
    assert!(taken.len() >= 15, "full after {} of 17", taken.len());

    let mut receiver = within(queue.events(&to, 100)).await;
    for expected in &taken {
        let delivery = next_events(&mut receiver).await;
        assert_eq!(delivery.message.as_ref(), Ok(expected));
        within(delivery.acknowledge()).await;
    }
    silent(receiver.next()).await;
    let events = batch(HostId::new(), 60_000);
    // The broker counts an acknowledgement a moment after it has taken it.
    patient(async {
        while queue.publish_events(&to, &events).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(next_events(&mut receiver).await.message, Ok(events));
}
