//! What orchestrator hosts are told: cancels, progress, and what is given back.

use common::ids::{HostId, JobId, ReservationId};
use queue::message::{Control, Progress, Release};
use queue::{ControlReceiver, Heard};

use crate::on_both;
use crate::world::{World, assert_unroutable, next_control, patient, silent, within};

on_both! {
    a_cancel_reaches_every_host_also_one_that_is_down,
    progress_reaches_the_host_of_the_job_only,
    a_release_reaches_one_host,
    what_a_host_did_not_acknowledge_comes_again,
    without_any_host_a_cancel_is_an_error,
}

async fn take(receiver: &mut ControlReceiver) -> Control {
    let delivery = next_control(receiver).await;
    let message = delivery.message.as_ref().unwrap().clone();
    within(delivery.acknowledge()).await;
    message
}

async fn a_cancel_reaches_every_host_also_one_that_is_down(world: World) {
    let queue = world.process().await;
    let (up, down) = (HostId::new(), HostId::new());
    let mut first = within(queue.control(up)).await;
    drop(within(queue.control(down)).await);
    let (one, two) = (JobId::new(), JobId::new());
    within(queue.cancel(one)).await;
    within(queue.cancel(two)).await;
    for expected in [one, two] {
        let came = take(&mut first).await;
        assert!(matches!(came, Control::Cancel { job, .. } if job == expected), "{came:?}");
    }
    let mut second = within(queue.control(down)).await;
    for expected in [one, two] {
        let came = take(&mut second).await;
        assert!(matches!(came, Control::Cancel { job, .. } if job == expected), "{came:?}");
    }
    silent(first.next()).await;
    silent(second.next()).await;
}

async fn progress_reaches_the_host_of_the_job_only(world: World) {
    let (runner, queue) = (world.process().await, world.process().await);
    let (mine, other) = (HostId::new(), HostId::new());
    let mut first = within(queue.control(mine)).await;
    let mut second = within(queue.control(other)).await;
    let progress = Progress { job: JobId::new(), try_number: 2, seq: 77 };
    within(runner.progress(mine, progress)).await;
    assert_eq!(take(&mut first).await, Control::Progress(progress));
    silent(second.next()).await;
    assert_unroutable(&patient(runner.progress(HostId::new(), progress)).await);
}

async fn a_release_reaches_one_host(world: World) {
    let queue = world.process().await;
    let mut first = within(queue.control(HostId::new())).await;
    let mut second = within(queue.control(HostId::new())).await;
    let release = Release { id: ReservationId::new(), count: 3 };
    within(queue.release(release)).await;
    let heard = patient(async {
        tokio::select! {
            heard = first.next() => heard.unwrap(),
            heard = second.next() => heard.unwrap(),
        }
    });
    let Heard::Control(delivery) = heard.await else { panic!("a question") };
    assert_eq!(delivery.message, Ok(Control::Release(release)));
    within(delivery.acknowledge()).await;
    silent(async {
        tokio::select! {
            heard = first.next() => heard,
            heard = second.next() => heard,
        }
    })
    .await;
}

async fn what_a_host_did_not_acknowledge_comes_again(world: World) {
    let queue = world.process().await;
    let host = HostId::new();
    let mut receiver = within(queue.control(host)).await;
    let job = JobId::new();
    within(queue.cancel(job)).await;
    let held = next_control(&mut receiver).await;
    drop((receiver, held));
    let mut receiver = within(queue.control(host)).await;
    let came = take(&mut receiver).await;
    assert!(matches!(came, Control::Cancel { job: again, .. } if again == job), "{came:?}");
}

async fn without_any_host_a_cancel_is_an_error(world: World) {
    assert_unroutable(&patient(world.process().await.cancel(JobId::new())).await);
}
