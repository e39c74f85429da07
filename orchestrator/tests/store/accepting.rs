//! Jobs come in: once, whole, with or without a reservation.

use common::request::Forge;
use common::size::ByteSize;
use orchestrator::store::{Accepted, CancelOutcome, JobState, REMEMBERED};

use crate::harness::*;

on_both! {
    async fn a_job_is_kept_as_it_came(world) {
        let job = world.message(|envelope| {
            envelope.priority = -3;
            envelope.repository = "team/with_'quotes\"".to_owned();
            envelope.size.memory = Some(ByteSize(3 << 30));
        });
        assert_eq!(world.store.accept(std::slice::from_ref(&job)).await.unwrap(), [
            Accepted::WithoutReservation
        ]);
        let stored = world.store.message(id(&job)).await.unwrap().unwrap();
        assert_eq!(stored, job.message);
        assert_eq!(stored.open(&world.keys).unwrap(), job.message.open(&world.keys).unwrap());

        let detail = world.store.job(id(&job)).await.unwrap().unwrap();
        assert_eq!(&detail.envelope, job.message.envelope());
        assert!(detail.tries.is_empty());
        let row = detail.job;
        assert_eq!((row.state, row.priority, row.forge), (JobState::Queued, -3, Forge::Forgejo));
        assert_eq!((row.label.as_str(), row.size), (LABEL, Some(size(1))));
        assert_eq!(row.repository, "team/with_'quotes\"");
        let waits = row.deadline.unwrap().since(row.created);
        assert_eq!(waits, detail.envelope.deadlines.queued);
        assert_eq!((row.tries, row.host, row.lease, row.finished), (0, None, None, None));
    }

    async fn the_same_job_again_is_known_and_another_with_its_id_is_refused(world) {
        let first = world.message(|_| {});
        let second = world.message(|_| {});
        world.store.accept(std::slice::from_ref(&first)).await.unwrap();
        // Sealed again it has other bytes, as somebody's forgery has.
        let other = world.message(|envelope| envelope.job = id(&first));
        let answers =
            world.store.accept(&[other.clone(), second.clone(), first.clone()]).await.unwrap();
        assert_eq!(
            answers,
            [Accepted::Conflict, Accepted::WithoutReservation, Accepted::Known]
        );
        let stored = world.store.message(id(&first)).await.unwrap().unwrap();
        assert_eq!(stored, first.message, "a refused job changes nothing");

        // It stays known whatever becomes of it.
        let host = world.host(8).await;
        let claimed = world.claim(&host).await;
        assert_eq!(world.store.accept(std::slice::from_ref(&first)).await.unwrap(), [
            Accepted::Known
        ]);
        world.store.finish(id(&first), Some(claimed.lease), &passed()).await.unwrap();
        assert_eq!(world.store.accept(&[first.clone(), other]).await.unwrap(), [
            Accepted::Known,
            Accepted::Conflict
        ]);
        assert_eq!(world.state(id(&first)).await, JobState::Done);
    }

    async fn twice_in_one_batch_is_once(world) {
        let job = world.message(|_| {});
        let answers = world.store.accept(&[job.clone(), job.clone()]).await.unwrap();
        assert_eq!(answers, [Accepted::WithoutReservation, Accepted::Known]);
        assert!(world.store.accept(&[]).await.unwrap().is_empty());
    }

    /// The queue gives a job to two hosts when one of them lost its connection.
    async fn accepted_by_many_at_once_is_accepted_once(world) {
        let jobs: Vec<_> = (0..20).map(|_| world.message(|_| {})).collect();
        let mut tasks = Vec::new();
        for turn in 0..8 {
            let store = world.other().await;
            let mut jobs = jobs.clone();
            jobs.rotate_left(turn * 2);
            tasks.push(tokio::spawn(async move { store.accept(&jobs).await.unwrap() }));
        }
        let mut new = 0;
        for task in tasks {
            let answers = task.await.unwrap();
            new += answers.iter().filter(|one| **one == Accepted::WithoutReservation).count();
            assert!(!answers.contains(&Accepted::Conflict));
        }
        assert_eq!(new, jobs.len());
    }

    async fn only_a_forge_needs_a_reservation(world) {
        let job = world.message(|envelope| envelope.forge = Forge::Local);
        assert_eq!(world.store.accept(&[job]).await.unwrap(), [Accepted::New]);
    }

    async fn a_cancel_that_came_first_meets_its_job(world) {
        let (early, late) = (world.message(|_| {}), world.message(|_| {}));
        assert_eq!(world.store.cancel(id(&late)).await.unwrap(), CancelOutcome::Remembered);
        world.pass(REMEMBERED + seconds(1)).await;
        assert_eq!(world.store.cancel(id(&early)).await.unwrap(), CancelOutcome::Remembered);
        assert_eq!(world.store.cancel(id(&early)).await.unwrap(), CancelOutcome::Remembered);

        let answers = world.store.accept(&[early.clone(), late.clone()]).await.unwrap();
        assert_eq!(answers, [Accepted::Cancelled, Accepted::WithoutReservation]);
        // Nobody starts it, and everybody finds it, also if whoever accepted it died.
        let host = world.host(8).await;
        assert_eq!(ids(&world.claim_many(&host, host.room(), 10).await), [id(&late)]);
        let waiting = world.store.cancelled_queued().await.unwrap();
        assert_eq!(waiting.iter().map(|job| job.id).collect::<Vec<_>>(), [id(&early)]);
        assert!(world.store.take(id(&early), host.id).await.unwrap().is_some());
    }

    /// Whichever is first, the end of a job that comes in at this moment is not missed.
    async fn a_cancel_at_the_same_moment_is_not_missed(world) {
        let other = world.other().await;
        for _ in 0..25 {
            let job = world.message(|_| {});
            let (accepted, cancelled) = tokio::join!(
                world.store.accept(std::slice::from_ref(&job)),
                other.cancel(id(&job))
            );
            accepted.unwrap();
            cancelled.unwrap();
            assert!(world.job(id(&job)).await.cancel_requested);
        }
    }

    async fn what_was_accepted_outlives_the_process(mut world) {
        let jobs = world.accept_many(3).await;
        let host = world.host(8).await;
        let claimed = world.claim(&host).await;
        world.reopen().await;
        let active = world.store.active(host.id).await.unwrap();
        assert_eq!(active.len(), 1);
        assert_eq!(active[0].job.lease, Some(claimed.lease));
        assert_eq!(active[0].message, claimed.message);
        assert_eq!(world.store.jobs(&Default::default()).await.unwrap().len(), jobs.len());
    }
}
