//! What a host writes about its jobs, and that nobody else can.

use common::event::Phase;
use common::ids::{JobId, LeaseId, VmId};
use common::infrastructure::Cause;
use orchestrator::store::{JobState, LEASE, Store, StoreError};

use crate::harness::*;

/// Everything that is written under a lease, each with an answer that says whether it was lost.
async fn every_write(store: &Store, job: JobId, lease: LeaseId) -> Vec<(&'static str, bool)> {
    fn lost<T: std::fmt::Debug>(result: Result<T, StoreError>) -> bool {
        match result {
            Ok(_) => false,
            Err(StoreError::LeaseLost { .. }) => true,
            Err(other) => panic!("{other}"),
        }
    }
    let budget = seconds(60);
    vec![
        ("advance", lost(store.advance(job, lease, JobState::Booting, budget).await)),
        ("attach_vm", lost(store.attach_vm(job, lease, VmId::new()).await)),
        ("phase", lost(store.phase(job, lease, Phase::Boot, budget).await)),
        ("end_try", lost(store.end_try(job, lease, Some("SOL-QEMU-START")).await)),
        ("begin_try", lost(store.begin_try(job, lease).await)),
        ("step_started", lost(store.step_started(job, lease).await)),
    ]
}

async fn assert_all_lost(store: &Store, job: JobId, lease: LeaseId) {
    let before = store.job(job).await.unwrap();
    for (what, lost) in every_write(store, job, lease).await {
        assert!(lost, "{what} was written");
    }
    let requeued = store.requeue(job, lease).await;
    assert!(matches!(requeued, Err(StoreError::LeaseLost { .. })), "{requeued:?}");
    assert_eq!(store.job(job).await.unwrap(), before);
}

on_both! {
    async fn the_holder_writes(world) {
        let (_, job, lease) = world.claimed().await;
        for (what, lost) in every_write(&world.store, job, lease).await {
            assert!(!lost, "{what} was refused");
        }
    }

    async fn nobody_else_writes(world) {
        let (_, job, lease) = world.claimed().await;
        assert_all_lost(&world.store, job, LeaseId::new()).await;
        let finished = world.store.finish(job, Some(LeaseId::new()), &passed()).await;
        assert!(matches!(finished, Err(StoreError::LeaseLost { .. })), "{finished:?}");
        assert!(world.store.finish(job, Some(lease), &passed()).await.unwrap());
    }

    async fn a_lease_ends_when_the_job_goes_back(world) {
        let (host, job, lease) = world.claimed().await;
        world.store.requeue(job, lease).await.unwrap();
        assert_all_lost(&world.store, job, lease).await;
        let again = world.claim(&host).await;
        assert_ne!(again.lease, lease);
        assert_all_lost(&world.store, job, lease).await;
    }

    async fn a_lease_ends_when_the_job_is_over(world) {
        let (_, job, lease) = world.claimed().await;
        world.store.finish(job, Some(lease), &passed()).await.unwrap();
        assert_all_lost(&world.store, job, lease).await;
    }

    async fn a_lease_ends_when_another_host_takes_over(world) {
        let (_, job, lease) = world.claimed().await;
        world.pass(LEASE + seconds(1)).await;
        let heir = world.host(8).await;
        assert_eq!(world.store.take_over(heir.id).await.unwrap().len(), 1);
        assert_all_lost(&world.store, job, lease).await;
        let finished = world.store.finish(job, Some(lease), &passed()).await;
        assert!(matches!(finished, Err(StoreError::LeaseLost { .. })), "{finished:?}");
    }

    async fn a_state_has_a_deadline(world) {
        let (_, job, lease) = world.claimed().await;
        for state in JobState::ALL.into_iter().filter(|state| state.is_leased()) {
            let asked = world.store.advance(job, lease, state, seconds(90)).await.unwrap();
            assert!(!asked);
            let row = world.job(job).await;
            assert_eq!((row.state, row.lease), (state, Some(lease)));
            assert_eq!(row.deadline.unwrap().since(row.since), seconds(90));
        }
        for state in [JobState::Queued, JobState::Done] {
            let refused = world.store.advance(job, lease, state, seconds(90)).await;
            assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
        }
    }

    async fn whoever_advances_hears_of_the_wish_to_end(world) {
        let (_, job, lease) = world.claimed().await;
        world.store.cancel(job).await.unwrap();
        let budget = seconds(60);
        assert!(world.store.advance(job, lease, JobState::Preparing, budget).await.unwrap());
        // It goes back as a job to be ended, which nobody starts.
        world.store.requeue(job, lease).await.unwrap();
        assert_eq!(world.store.cancelled_queued().await.unwrap().len(), 1);
    }

    async fn tries_and_their_phases_are_kept(world) {
        let (host, job, lease) = world.claimed().await;
        let store = &world.store;
        let (first, second) = (VmId::new(), VmId::new());
        store.attach_vm(job, lease, first).await.unwrap();
        store.phase(job, lease, Phase::Queue, seconds(1)).await.unwrap();
        store.phase(job, lease, Phase::Boot, seconds(2)).await.unwrap();
        // A lost answer makes a host say it again.
        store.phase(job, lease, Phase::Queue, seconds(3)).await.unwrap();
        store.end_try(job, lease, Some(Cause::QemuStart.code())).await.unwrap();
        store.end_try(job, lease, None).await.unwrap();
        assert_eq!(store.begin_try(job, lease).await.unwrap(), 2);
        assert_eq!(store.active(host.id).await.unwrap()[0].vm, None, "its machine is gone");
        store.attach_vm(job, lease, second).await.unwrap();
        store.phase(job, lease, Phase::Boot, seconds(4)).await.unwrap();
        store.requeue(job, lease).await.unwrap();

        let again = world.claim(&host).await;
        assert_eq!((again.try_number, again.failures), (3, 1));
        store.finish(job, Some(again.lease), &failed(Cause::BootTimeout)).await.unwrap();

        let detail = store.job(job).await.unwrap().unwrap();
        assert_eq!(detail.job.tries, 3);
        let [one, two, three] = &detail.tries[..] else { panic!("{:?}", detail.tries) };
        assert_eq!([one.vm, two.vm, three.vm], [Some(first), Some(second), None]);
        let causes = [Some(Cause::QemuStart.code()), None, Some(Cause::BootTimeout.code())];
        assert_eq!([one, two, three].map(|one| one.cause.as_deref()), causes);
        assert!([one, two, three].iter().all(|one| one.ended.is_some_and(|end| end >= one.began)));
        assert_eq!(one.phases, [(Phase::Queue, seconds(3)), (Phase::Boot, seconds(2))]);
        assert_eq!(two.phases, [(Phase::Boot, seconds(4))]);
        assert!(three.phases.is_empty());
    }

    async fn a_job_that_goes_back_keeps_its_age_and_its_time(world) {
        let (host, first, lease) = world.claimed().await;
        let before = world.job(first).await;
        world.accept_many(2).await;
        world.pass(seconds(30)).await;
        world.announce(&host).await;
        world.store.requeue(first, lease).await.unwrap();
        let row = world.job(first).await;
        assert_eq!((row.state, row.host, row.lease), (JobState::Queued, None, None));
        let waits = row.deadline.unwrap().since(row.created);
        assert_eq!(waits, seconds(24 * 3600), "the deadline of the whole wait: {before:?}");
        assert!(row.since > row.created);
        assert_eq!(world.claim(&host).await.message.envelope().job, first);
    }

    /// Its steps may have done something that must not be done twice.
    async fn a_job_whose_steps_began_never_goes_back(world) {
        let (_, job, lease) = world.claimed().await;
        world.store.step_started(job, lease).await.unwrap();
        world.store.step_started(job, lease).await.unwrap();
        assert!(world.job(job).await.user_step_started);
        let refused = world.store.requeue(job, lease).await;
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
        assert_eq!(world.job(job).await.lease, Some(lease));
    }

    async fn a_restarted_host_finds_its_jobs(world) {
        let host = world.host(8).await;
        let other = world.host(8).await;
        let jobs = world.accept_many(3).await;
        world.claim(&other).await;
        let claimed = world.claim_many(&host, host.room(), 10).await;
        let vm = VmId::new();
        world.store.attach_vm(jobs[2], claimed[1].lease, vm).await.unwrap();
        world.store.end_try(jobs[1], claimed[0].lease, Some("SOL-QEMU-START")).await.unwrap();
        let active = world.store.active(host.id).await.unwrap();
        assert_eq!(active.iter().map(|one| one.job.id).collect::<Vec<_>>(), jobs[1..]);
        assert_eq!([active[0].vm, active[1].vm], [None, Some(vm)]);
        assert_eq!([active[0].failures, active[1].failures], [1, 0]);
        assert_eq!(active[1].message, claimed[1].message);
    }
}
