//! What is asked about jobs and machines.

use common::ids::JobId;
use orchestrator::store::{BootTimes, Job, JobFilter, JobState};

use crate::harness::*;

fn job_ids(jobs: &[Job]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}

on_both! {
    async fn jobs_by_state_repository_and_label(world) {
        let host = world.host(8).await;
        let mut jobs = Vec::new();
        for repository in ["team/one", "team/two", "team/one"] {
            for label in [LABEL, "omnios"] {
                jobs.push(
                    world
                        .accept(|envelope| {
                            envelope.repository = repository.to_owned();
                            envelope.label = label.to_owned();
                        })
                        .await,
                );
            }
        }
        jobs.reverse();
        let list = async |filter: JobFilter| job_ids(&world.store.jobs(&filter).await.unwrap());
        assert_eq!(list(JobFilter::default()).await, jobs, "newest first");
        assert_eq!(list(JobFilter { most: 2, ..JobFilter::default() }).await, jobs[..2]);

        let claimed = world.claim_many(&host, host.room(), 2).await;
        let done = claimed[0].message.envelope().job;
        world.store.finish(done, Some(claimed[0].lease), &passed()).await.unwrap();
        assert_eq!([jobs[5], jobs[3]], ids(&claimed)[..]);
        for (states, expected) in [
            (vec![JobState::Done], vec![jobs[5]]),
            (vec![JobState::Claimed], vec![jobs[3]]),
            (vec![JobState::Done, JobState::Claimed], vec![jobs[3], jobs[5]]),
            (vec![JobState::Running], vec![]),
            (vec![JobState::Queued], vec![jobs[0], jobs[1], jobs[2], jobs[4]]),
        ] {
            let filter = JobFilter { states: states.clone(), ..JobFilter::default() };
            assert_eq!(list(filter).await, expected, "{states:?}");
        }
        let two = JobFilter { repository: Some("team/two".to_owned()), ..JobFilter::default() };
        assert_eq!(list(two.clone()).await, [jobs[2], jobs[3]]);
        let both = JobFilter { label: Some("omnios".to_owned()), ..two.clone() };
        assert_eq!(list(both).await, [jobs[2]]);
        let open = JobFilter { states: vec![JobState::Queued], ..two };
        assert_eq!(list(open).await, [jobs[2]]);
        let label = JobFilter { label: Some(LABEL.to_owned()), ..JobFilter::default() };
        assert_eq!(list(label).await, [jobs[1], jobs[3], jobs[5]]);
        let wild = JobFilter { repository: Some("team/%".to_owned()), ..JobFilter::default() };
        assert!(list(wild).await.is_empty(), "a name is no pattern");
    }

    async fn a_job_that_is_not_known(world) {
        let unknown = id(&world.message(|_| {}));
        assert!(world.store.job(unknown).await.unwrap().is_none());
        assert!(world.store.message(unknown).await.unwrap().is_none());
    }

    async fn counts_of_what_is_not_over(world) {
        let host = world.host(8).await;
        assert!(world.store.counts().await.unwrap().is_empty());
        world.accept_many(3).await;
        world.accept(|envelope| envelope.label = LARGE.to_owned()).await;
        let claimed = world.claim_many(&host, host.room(), 2).await;
        let job = claimed[0].message.envelope().job;
        world.store.finish(job, Some(claimed[0].lease), &passed()).await.unwrap();
        assert_eq!(world.store.counts().await.unwrap(), [
            (JobState::Claimed, LABEL.to_owned(), 1),
            (JobState::Queued, LABEL.to_owned(), 1),
            (JobState::Queued, LARGE.to_owned(), 1),
        ]);
    }

    async fn jobs_that_wait_too_long(world) {
        let long = world.accept(|_| {}).await;
        let short = world.accept(|envelope| envelope.deadlines.queued = seconds(60)).await;
        let cancelled = world.accept(|envelope| envelope.deadlines.queued = seconds(60)).await;
        world.store.cancel(cancelled).await.unwrap();
        assert!(world.store.overdue_queued().await.unwrap().is_empty());
        world.pass(seconds(61)).await;
        assert_eq!(job_ids(&world.store.overdue_queued().await.unwrap()), [short]);
        // A job that somebody has does not wait, however old it is.
        let host = world.host(1).await;
        let taken = world.store.take(short, host.id).await.unwrap();
        assert!(taken.is_some());
        assert!(world.store.overdue_queued().await.unwrap().is_empty());
        world.pass(seconds(24 * 3600)).await;
        assert_eq!(job_ids(&world.store.overdue_queued().await.unwrap()), [long]);
    }

    async fn boots_are_remembered_by_kind(world) {
        let store = &world.store;
        assert_eq!(store.boot_times("sha256:a", size(1), "tcg").await.unwrap(), None);
        for time in [30, 10, 20, 40] {
            store.booted("sha256:a", size(1), "tcg", seconds(time)).await.unwrap();
        }
        store.booted("sha256:b", size(1), "tcg", seconds(1)).await.unwrap();
        store.booted("sha256:a", size(2), "tcg", seconds(2)).await.unwrap();
        store.booted("sha256:a", size(1), "kvm", seconds(3)).await.unwrap();
        assert_eq!(
            store.boot_times("sha256:a", size(1), "tcg").await.unwrap(),
            Some(BootTimes { count: 4, median: seconds(25), longest: seconds(40) })
        );
        // The last hundred count.
        for _ in 0..100 {
            store.booted("sha256:a", size(1), "tcg", seconds(5)).await.unwrap();
        }
        let times = store.boot_times("sha256:a", size(1), "tcg").await.unwrap().unwrap();
        assert_eq!(times, BootTimes { count: 100, median: seconds(5), longest: seconds(5) });
        let other = store.boot_times("sha256:a", size(1), "kvm").await.unwrap().unwrap();
        assert_eq!(other.count, 1);
    }
}
