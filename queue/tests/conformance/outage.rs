//! A broker that goes away, and one that cannot be used.

use std::time::Duration;

use common::ids::{HostId, JobId};
use queue::message::Control;
use queue::rabbit::{Rabbit, Settings};
use queue::{Queue, QueueError};
use simulators::RabbitServer;

use crate::samples::{address, batch, job};
use crate::world::{World, next_control, next_events, next_job, patient, take_jobs, within};

/// One broker for everything here that ends connections, which others must not feel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_and_publishers_go_on_after_an_outage() {
    let server = RabbitServer::start().await.unwrap();
    let world = World::on(&server);
    let (runner, host) = (world.process().await, world.process().await);
    let (id, to) = (HostId::new(), address("runner-1"));
    let mut jobs = within(host.jobs(2)).await;
    let mut control = within(host.control(id)).await;
    let mut events = within(runner.events(&to, 2)).await;
    within(server.settle()).await;

    // A delivery from before is of no use after, and its message comes again.
    let first = job();
    within(runner.publish_job(&first)).await;
    let old = next_job(&mut jobs).await;
    within(server.close_connections()).await;
    let again = next_job(&mut jobs).await;
    assert_eq!(again.message.as_ref(), Ok(&first));
    assert!(patient(old.acknowledge()).await.is_err(), "acknowledged over a new connection");
    within(again.acknowledge()).await;

    // Published while the broker is away: waits for it.
    within(server.kill()).await;
    let (second, cancelled, sent) = (job(), JobId::new(), batch(id, 100));
    let publishing = {
        let (runner, host, second, sent, to) =
            (runner.clone(), host.clone(), second.clone(), sent.clone(), to.clone());
        tokio::spawn(async move {
            tokio::join!(
                stubborn(|| runner.publish_job(&second)),
                stubborn(|| runner.cancel(cancelled)),
                stubborn(|| host.publish_events(&to, &sent)),
            )
        })
    };
    within(server.restart()).await;
    patient(publishing).await.unwrap();
    let mut delivery = next_job(&mut jobs).await;
    if delivery.message.as_ref() == Ok(&first) {
        // Its acknowledgement died with the broker.
        within(delivery.acknowledge()).await;
        delivery = next_job(&mut jobs).await;
    }
    assert_eq!(delivery.message.as_ref(), Ok(&second));
    within(delivery.acknowledge()).await;
    let heard = next_control(&mut control).await;
    assert!(matches!(&heard.message, Ok(Control::Cancel { job, .. }) if *job == cancelled));
    within(heard.acknowledge()).await;
    let delivery = next_events(&mut events).await;
    assert_eq!(delivery.message.as_ref(), Ok(&sent));
    within(delivery.acknowledge()).await;

    // Questions as well. One that is asked before an orchestrator listens again is lost, and asked
    // again.
    let question = crate::reservations::question(1);
    let ask = async {
        loop {
            match runner.reserve(&question).await {
                Err(QueueError::NoAnswer { .. } | QueueError::Unavailable { .. }) => {}
                answer => return answer,
            }
        }
    };
    let (answer, ()) = tokio::join!(patient(ask), async {
        // Cancels that were published twice may stand before it.
        loop {
            match within(control.next()).await {
                queue::Heard::Control(delivery) => within(delivery.acknowledge()).await,
                queue::Heard::Reserve(question, replier) => {
                    replier.answer(crate::reservations::answer(&question)).await;
                    return;
                }
            }
        }
    });
    assert_eq!(answer.unwrap().id, question.id);
}

/// Tries as a caller does that has been told to try again.
async fn stubborn<F: Future<Output = Result<(), QueueError>>>(publish: impl Fn() -> F) {
    loop {
        match publish().await {
            Err(QueueError::Unavailable { .. }) => {}
            result => return result.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_an_error_without_the_password() {
    // Bound to the end and never listened on: the port stays ours, and refuses connections.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut settings = Settings::new(format!("amqp://me:hunter2@127.0.0.1:{port}/%2f"), "test");
    let refused = |error: &QueueError| {
        let text = format!("{error} {error:?}");
        assert!(matches!(error, QueueError::Unavailable { .. }), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    };
    let error = patient(Rabbit::connect(&settings)).await.unwrap_err();
    refused(&error);
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    drop(socket);
    assert!(!format!("{settings:?}").contains("hunter2"));

    settings.url = "hunter2".to_owned();
    refused(&patient(Rabbit::connect(&settings)).await.unwrap_err());
    settings = Settings::new(RabbitServer::shared().await.unwrap().url(), "a/b");
    refused(&patient(Rabbit::connect(&settings)).await.unwrap_err());
    settings.prefix = "x".repeat(65);
    refused(&patient(Rabbit::connect(&settings)).await.unwrap_err());
}

#[tokio::test]
async fn user_and_password_may_come_from_elsewhere() {
    let server = RabbitServer::shared().await.unwrap();
    let url = server.url().replace("guest:guest@", "");
    let mut settings = Settings::new(url, server.prefix());
    settings.user = Some("guest".to_owned());
    settings.password = Some("wrong".to_owned().into());
    let error = patient(Rabbit::connect(&settings)).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("wrong"), "{error}");
    settings.password = Some("guest".to_owned().into());
    let queue = Queue::Rabbit(within(Rabbit::connect(&settings)).await);
    within(queue.publish_job(&job())).await;
    let mut jobs = within(queue.jobs(1)).await;
    take_jobs(&mut jobs, 1).await;
}

/// The other side of durability: nothing is told to be published that is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_publishing_ends_with_an_error() {
    let server = RabbitServer::start().await.unwrap();
    let queue = World::on(&server).process().await;
    within(server.kill()).await;
    let start = std::time::Instant::now();
    let error = patient(queue.publish_job(&job())).await.unwrap_err();
    assert!(matches!(error, QueueError::Unavailable { .. }), "{error:?}");
    assert!(start.elapsed() >= queue::rabbit::PUBLISH - Duration::from_secs(3), "gave up early");
    let error = patient(queue.reserve(&crate::reservations::question(1))).await.unwrap_err();
    assert!(matches!(error, QueueError::Unavailable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_behind_tls_must_have_a_certificate_that_is_trusted() {
    let server = RabbitServer::start_tls().await.unwrap();
    let mut settings = Settings::new(server.url(), server.prefix());
    let error = patient(Rabbit::connect(&settings)).await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
    settings.authority = server.certificate().map(str::to_owned);
    let queue = Queue::Rabbit(within(Rabbit::connect(&settings)).await);
    within(queue.publish_job(&job())).await;
    let mut jobs = within(queue.jobs(1)).await;
    take_jobs(&mut jobs, 1).await;
}

/// A successor waits until the broker knows that the one before it is gone; else it would get
/// messages from behind those that the other still holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_receiver_of_events_waits_for_the_end_of_the_first() {
    let world = World::rabbit().await;
    let (queue, successor) = (world.process().await, world.process().await);
    let to = address("runner-1");
    let mut first = within(queue.events(&to, 1)).await;
    let mut second = within(successor.events(&to, 1)).await;
    let batches = [batch(HostId::new(), 1), batch(HostId::new(), 1)];
    for batch in &batches {
        within(successor.publish_events(&to, batch)).await;
    }
    let held = next_events(&mut first).await;
    crate::world::silent(second.next()).await;
    drop((first, held));
    for expected in &batches {
        let delivery = next_events(&mut second).await;
        assert_eq!(delivery.message.as_ref(), Ok(expected));
        within(delivery.acknowledge()).await;
    }
}
