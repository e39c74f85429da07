//! The end of jobs: exactly once, whoever asks for it and whenever.

use common::event::JobResult;
use common::infrastructure::Cause;
use orchestrator::store::{CancelOutcome, JobState, LEASE, REMEMBERED, StoreError};

use crate::harness::*;

on_both! {
    async fn a_job_ends_once(world) {
        let (host, job, lease) = world.claimed().await;
        let finished = failed(Cause::QemuKilled);
        assert!(world.store.finish(job, Some(lease), &finished).await.unwrap());
        assert!(!world.store.finish(job, Some(lease), &passed()).await.unwrap());
        assert!(!world.store.finish(job, None, &passed()).await.unwrap());
        let row = world.job(job).await;
        assert_eq!((row.state, row.finished), (JobState::Done, Some(finished)));
        assert_eq!((row.host, row.lease, row.deadline), (Some(host.id), None, None));
        assert_eq!(row.ended, Some(row.since));
        assert!(world.store.active(host.id).await.unwrap().is_empty());
        assert_eq!(world.store.hosts().await.unwrap()[0].jobs, 0);
    }

    async fn of_many_that_end_it_at_once_one_does(world) {
        let (_, job, lease) = world.claimed().await;
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let store = world.other().await;
            tasks.push(tokio::spawn(async move {
                store.finish(job, Some(lease), &passed()).await.unwrap()
            }));
        }
        let mut ended = 0;
        for task in tasks {
            ended += usize::from(task.await.unwrap());
        }
        assert_eq!(ended, 1);
    }

    async fn without_a_lease_only_what_nobody_alive_has(world) {
        let waiting = world.accept(|_| {}).await;
        assert!(world.store.finish(waiting, None, &failed(Cause::NoHost)).await.unwrap());
        assert!(!world.store.finish(waiting, None, &passed()).await.unwrap());

        let (_, job, _) = world.claimed().await;
        let refused = world.store.finish(job, None, &passed()).await;
        assert!(matches!(refused, Err(StoreError::LeaseLost { .. })), "{refused:?}");
        world.pass(LEASE + seconds(1)).await;
        assert!(world.store.finish(job, None, &passed()).await.unwrap());

        let unknown = id(&world.message(|_| {}));
        let refused = world.store.finish(unknown, None, &passed()).await;
        assert!(matches!(refused, Err(StoreError::LeaseLost { .. })), "{refused:?}");
    }

    async fn a_waiting_job_that_is_cancelled_never_starts(world) {
        let host = world.host(8).await;
        let job = world.accept(|_| {}).await;
        assert_eq!(world.store.cancel(job).await.unwrap(), CancelOutcome::WasQueued);
        assert_eq!(world.store.cancel(job).await.unwrap(), CancelOutcome::WasQueued);
        assert!(world.claim_many(&host, host.room(), 10).await.is_empty());
        let row = world.job(job).await;
        assert_eq!((row.state, row.cancel_requested), (JobState::Queued, true));
        let found = world.store.cancelled_queued().await.unwrap();
        assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), [job]);
    }

    async fn a_running_job_hears_of_its_cancel(world) {
        let (host, job, lease) = world.claimed().await;
        assert_eq!(world.store.cancel(job).await.unwrap(), CancelOutcome::Leased(host.id));
        let claimed = world.job(job).await;
        assert!(claimed.cancel_requested, "nothing of it runs, so there is nothing to wait for");
        assert_eq!(claimed.state, JobState::Claimed);
        assert!(world.store.advance(job, lease, JobState::Running, seconds(6000)).await.unwrap());
        let running = world.job(job).await;
        assert_eq!(world.store.cancel(job).await.unwrap(), CancelOutcome::Leased(host.id));
        let cancelling = world.job(job).await;
        assert_eq!(cancelling.state, JobState::Cancelling);
        assert!(cancelling.deadline < running.deadline, "{cancelling:?}");
        // Asking again gives it no more time.
        world.pass(seconds(5)).await;
        assert_eq!(world.store.cancel(job).await.unwrap(), CancelOutcome::Leased(host.id));
        assert!(world.job(job).await.deadline <= cancelling.deadline);
        let finished = common::event::Finished {
            result: JobResult::Cancelled,
            infrastructure: None,
        };
        assert!(world.store.finish(job, Some(lease), &finished).await.unwrap());
        assert_eq!(world.store.cancel(job).await.unwrap(), CancelOutcome::WasDone);
        assert_eq!(world.job(job).await.finished, Some(finished));
    }

    async fn a_cancel_after_the_end_changes_nothing(world) {
        let (_, job, lease) = world.claimed().await;
        world.store.finish(job, Some(lease), &passed()).await.unwrap();
        let before = world.job(job).await;
        assert_eq!(world.store.cancel(job).await.unwrap(), CancelOutcome::WasDone);
        assert_eq!(world.job(job).await, before);
    }

    async fn the_final_event_is_owed_until_it_is_taken(world) {
        let (host, first, lease) = world.claimed().await;
        let second = world.accept(|_| {}).await;
        let local = world.accept(|envelope| envelope.reply_to = String::new()).await;
        let other = world.host(8).await;
        let owed = || async {
            let jobs = world.store.undelivered(host.id).await.unwrap();
            jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
        };
        world.store.delivered(first).await.unwrap();
        assert!(owed().await.is_empty(), "none of them is over");
        let claimed = world.claim_many(&host, host.room(), 10).await;
        for claimed in &claimed {
            let job = claimed.message.envelope().job;
            world.store.finish(job, Some(claimed.lease), &passed()).await.unwrap();
        }
        world.store.finish(first, Some(lease), &passed()).await.unwrap();
        assert_eq!(ids(&claimed), [second, local]);
        assert_eq!(owed().await, [second, first], "nobody takes the events of the local one");
        assert!(world.store.undelivered(other.id).await.unwrap().is_empty());
        world.store.delivered(second).await.unwrap();
        world.store.delivered(second).await.unwrap();
        assert_eq!(owed().await, [first]);
        // An unknown job was forgotten in the meantime.
        world.store.delivered(id(&world.message(|_| {}))).await.unwrap();
    }

    async fn what_is_old_is_forgotten(world) {
        let day = seconds(24 * 3600);
        let (host, old, lease) = world.claimed().await;
        let (running, waiting) = (world.accept(|_| {}).await, world.accept(|_| {}).await);
        world.claim(&host).await;
        world.store.finish(old, Some(lease), &passed()).await.unwrap();
        let gone = world.host(2).await;
        let remembered = world.message(|_| {});
        world.store.cancel(id(&remembered)).await.unwrap();
        assert_eq!(world.store.forget(day).await.unwrap(), 0);

        world.pass(REMEMBERED.max(day) + seconds(1)).await;
        let recent = world.accept(|_| {}).await;
        world.announce(&host).await;
        let taken = world.store.take(recent, host.id).await.unwrap().unwrap();
        world.store.finish(recent, Some(taken.lease), &passed()).await.unwrap();

        assert_eq!(world.store.forget(day).await.unwrap(), 1);
        assert_eq!(world.store.forget(day).await.unwrap(), 0);
        assert!(world.store.job(old).await.unwrap().is_none());
        assert!(world.store.message(old).await.unwrap().is_none(), "with its message");
        for job in [running, waiting, recent] {
            assert!(world.store.job(job).await.unwrap().is_some());
        }
        let hosts = world.store.hosts().await.unwrap();
        assert_eq!(hosts.iter().map(|row| row.report.host).collect::<Vec<_>>(), [host.id]);
        assert!(!world.store.set_draining(gone.id, true).await.unwrap());
        // The wish to end it was forgotten, too.
        let answers = world.store.accept(&[remembered]).await.unwrap();
        assert_eq!(answers, [orchestrator::store::Accepted::WithoutReservation]);
    }

    async fn a_host_that_has_jobs_is_not_forgotten(world) {
        let (host, job, _) = world.claimed().await;
        world.pass(seconds(1000)).await;
        world.store.forget(seconds(10)).await.unwrap();
        assert_eq!(world.store.hosts().await.unwrap().len(), 1);
        assert_eq!(world.job(job).await.host, Some(host.id));
    }

    /// More than are forgotten in one transaction.
    async fn many_old_jobs_are_forgotten(world) {
        let host = world.host(2000).await;
        world.accept_many(1100).await;
        let claimed = world.claim_many(&host, host.room(), 2000).await;
        for one in &claimed {
            let job = one.message.envelope().job;
            world.store.finish(job, Some(one.lease), &passed()).await.unwrap();
        }
        world.pass(seconds(100)).await;
        assert_eq!(world.store.forget(seconds(10)).await.unwrap(), 1100);
        assert!(world.store.jobs(&Default::default()).await.unwrap().is_empty());
    }
}
