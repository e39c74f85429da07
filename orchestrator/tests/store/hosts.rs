//! Hosts: who is alive, who drains, and who takes over.

use std::collections::HashSet;

use common::size::ByteSize;
use orchestrator::store::{GONE, JobState, LEASE, SILENT, StoreError};

use crate::harness::*;

on_both! {
    async fn a_host_is_as_it_says(world) {
        let mut host = world.host(8).await;
        let rows = world.store.hosts().await.unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].report, host.report);
        assert!(rows[0].alive);
        assert_eq!((rows[0].jobs, rows[0].used), (0, size(0)));

        host.report.name = "renamed 'host'".to_owned();
        host.report.labels.truncate(1);
        host.report.load = 431;
        host.report.capacity.memory = ByteSize(5);
        world.announce(&host).await;
        let rows = world.store.hosts().await.unwrap();
        assert_eq!(rows[0].report, host.report);

        world.pass(LEASE + seconds(1)).await;
        assert!(!world.store.hosts().await.unwrap()[0].alive);
        world.announce(&host).await;
        assert!(world.store.hosts().await.unwrap()[0].alive);
    }

    async fn two_processes_with_one_host_id(world) {
        let mut host = world.host(8).await;
        let first = host.boot;
        host.boot = Host::new(1).boot;
        let second = world.again().await;
        let refused = second.announce(&host.report, host.boot).await;
        let Err(StoreError::HostIdInUse { host: id, name }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!((id, name.as_str()), (host.id, host.report.name.as_str()));
        // A process that was refused takes nothing back by its end.
        second.depart(host.id).await.unwrap();
        assert!(world.store.hosts().await.unwrap()[0].alive);
        assert_eq!(world.store.announce(&host.report, first).await.unwrap(), 1);
        assert_eq!(world.store.announce(&host.report, first).await.unwrap(), 0, "it is told once");

        // The first falls silent: the second takes its place, and the first is refused.
        world.pass(SILENT + seconds(1)).await;
        second.announce(&host.report, host.boot).await.unwrap();
        let refused = world.store.announce(&host.report, first).await;
        assert!(matches!(refused, Err(StoreError::HostIdInUse { .. })), "{refused:?}");
    }

    async fn after_a_clean_end_another_process_begins_at_once(world) {
        let (mut host, job, _) = world.claimed().await;
        let idle = world.host(8).await;
        world.store.depart(host.id).await.unwrap();
        world.store.depart(idle.id).await.unwrap();
        // The one that left a job has it for the rest of its lease, the other one is gone.
        let alive = |rows: Vec<orchestrator::store::HostRow>, id| {
            rows.into_iter().find(|row| row.report.host == id).unwrap().alive
        };
        assert!(alive(world.store.hosts().await.unwrap(), host.id));
        assert!(!alive(world.store.hosts().await.unwrap(), idle.id));
        assert!(world.store.take_over(idle.id).await.unwrap().is_empty());

        host.boot = Host::new(1).boot;
        world.announce(&host).await;
        assert_eq!(world.store.active(host.id).await.unwrap()[0].job.id, job);
    }

    async fn draining_takes_nothing_new_and_outlives_reports(mut world) {
        let host = world.host(8).await;
        world.accept_many(2).await;
        let running = world.claim(&host).await;
        assert!(world.store.set_draining(host.id, true).await.unwrap());
        world.announce(&host).await;
        world.reopen().await;
        world.announce(&host).await;
        assert!(world.store.hosts().await.unwrap()[0].report.draining);
        assert!(world.claim_many(&host, host.room(), 10).await.is_empty());
        // What runs goes on.
        let job = running.message.envelope().job;
        let running_state = JobState::Running;
        world.store.advance(job, running.lease, running_state, seconds(60)).await.unwrap();
        assert!(world.store.finish(job, Some(running.lease), &passed()).await.unwrap());

        assert!(world.store.set_draining(host.id, false).await.unwrap());
        assert_eq!(world.claim_many(&host, host.room(), 10).await.len(), 1);
        assert!(!world.store.set_draining(Host::new(1).id, true).await.unwrap());
    }

    async fn a_new_host_may_begin_draining(world) {
        let mut host = Host::new(8);
        host.report.draining = true;
        world.announce(&host).await;
        assert!(world.store.hosts().await.unwrap()[0].report.draining);
        world.store.set_draining(host.id, false).await.unwrap();
        world.announce(&host).await;
        assert!(!world.store.hosts().await.unwrap()[0].report.draining);
    }

    async fn a_dead_hosts_jobs_are_taken_over_once(world) {
        let (dead, heir) = (world.host(50).await, world.host(50).await);
        let other = world.host(50).await;
        let jobs = world.accept_many(21).await;
        let lost = world.claim_many(&dead, dead.room(), 20).await;
        let kept = world.claim(&heir).await;
        let running = JobState::Running;
        world.store.advance(jobs[0], lost[0].lease, running, seconds(600)).await.unwrap();
        world.store.step_started(jobs[0], lost[0].lease).await.unwrap();
        world.store.end_try(jobs[1], lost[1].lease, Some("SOL-QEMU-START")).await.unwrap();
        for host in [&heir, &other] {
            assert!(world.store.take_over(host.id).await.unwrap().is_empty(), "all are alive");
        }
        world.pass(LEASE + seconds(1)).await;
        world.announce(&heir).await;
        world.announce(&other).await;
        let second = world.other().await;
        let (one, two) =
            tokio::join!(world.store.take_over(heir.id), second.take_over(other.id));
        let (one, two) = (one.unwrap(), two.unwrap());
        for (taken, host) in [(&one, heir.id), (&two, other.id)] {
            assert!(taken.iter().all(|active| active.job.host == Some(host)));
        }
        let all: Vec<_> = one.into_iter().chain(two).collect();
        let unique: HashSet<_> = all.iter().map(|active| active.job.id).collect();
        assert_eq!((all.len(), unique.len()), (20, 20));
        let leases: HashSet<_> = all.iter().filter_map(|active| active.job.lease).collect();
        assert_eq!(leases.len(), 20);
        assert!(lost.iter().all(|claimed| !leases.contains(&claimed.lease)));

        // They are as they were left.
        let first = all.iter().find(|active| active.job.id == jobs[0]).unwrap();
        assert_eq!(first.job.state, running);
        assert!(first.job.user_step_started);
        assert!(first.job.deadline.unwrap() > first.job.since);
        let tried = all.iter().find(|active| active.job.id == jobs[1]).unwrap();
        assert_eq!(tried.failures, 1);
        assert_eq!(world.job(jobs[20]).await.lease, Some(kept.lease), "its host is alive");
        for host in [&heir, &other] {
            assert!(world.store.take_over(host.id).await.unwrap().is_empty());
        }
    }

    /// Its client looks for it there, so its host has more time to come back.
    async fn a_job_of_one_host_is_taken_over_when_that_is_gone(world) {
        let (dead, heir) = (world.host(8).await, world.host(8).await);
        let mut new = world.message(|_| {});
        new.only = Some(dead.id);
        world.store.accept(std::slice::from_ref(&new)).await.unwrap();
        let lost = world.claim(&dead).await;
        world.pass(LEASE + seconds(1)).await;
        world.announce(&heir).await;
        assert!(world.store.take_over(heir.id).await.unwrap().is_empty());
        world.pass(GONE).await;
        world.announce(&heir).await;
        let taken = world.store.take_over(heir.id).await.unwrap();
        assert_eq!(taken.len(), 1);
        let lease = taken[0].job.lease.unwrap();
        assert_ne!(lease, lost.lease);
        // It waits for its host, and for no other.
        world.store.requeue(id(&new), lease).await.unwrap();
        assert!(world.claim_many(&heir, heir.room(), 10).await.is_empty());
        world.announce(&dead).await;
        assert_eq!(ids(&world.claim_many(&dead, dead.room(), 10).await), [id(&new)]);
    }

    /// A host is never its own heir: it goes on with its jobs.
    async fn a_host_that_was_silent_keeps_what_nobody_took(world) {
        let (host, job, lease) = world.claimed().await;
        world.pass(LEASE + seconds(1)).await;
        assert!(world.store.take_over(host.id).await.unwrap().is_empty());
        world.announce(&host).await;
        assert!(world.store.finish(job, Some(lease), &passed()).await.unwrap());
    }

    async fn the_ends_that_a_dead_host_owes_are_told_by_another(world) {
        let (dead, heir) = (world.host(50).await, world.host(50).await);
        let jobs = world.accept_many(3).await;
        for claimed in world.claim_many(&dead, dead.room(), 3).await {
            let job = claimed.message.envelope().job;
            assert!(world.store.finish(job, Some(claimed.lease), &passed()).await.unwrap());
        }
        world.store.delivered(jobs[0]).await.unwrap();
        // It may come back with their logs.
        world.store.depart(dead.id).await.unwrap();
        world.pass(GONE - seconds(30)).await;
        world.announce(&heir).await;
        assert!(world.store.take_over_ends(heir.id).await.unwrap().is_empty());
        world.pass(seconds(60)).await;
        world.announce(&heir).await;
        assert!(world.store.take_over_ends(dead.id).await.unwrap().is_empty(), "they are its own");
        let other = world.other().await;
        let second = world.host(1).await;
        let (one, two) = tokio::join!(
            world.store.take_over_ends(heir.id),
            other.take_over_ends(second.id)
        );
        let mut taken: Vec<_> = one.unwrap().into_iter().chain(two.unwrap()).collect();
        taken.sort_by_key(|ended| ended.id);
        let ids: Vec<_> = taken.iter().map(|ended| ended.id).collect();
        assert_eq!(ids, jobs[1..]);
        assert!(taken.iter().all(|ended| ended.finished == Some(passed())));
        assert!(world.store.undelivered(dead.id).await.unwrap().is_empty());
        assert!(world.store.take_over_ends(heir.id).await.unwrap().is_empty());
        // However often it is told, no try's number is used twice.
        assert_eq!(world.store.begin_telling(jobs[1]).await.unwrap(), 2);
        assert_eq!(world.store.begin_telling(jobs[1]).await.unwrap(), 3);
        let open = world.accept(|_| {}).await;
        let refused = world.store.begin_telling(open).await;
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    }

    async fn jobs_that_no_host_can_ever_run(world) {
        let unknown = world.accept(|envelope| envelope.label = "plan9".to_owned()).await;
        let huge = world.accept(|envelope| envelope.size = asked(64)).await;
        let fine = world.accept(|_| {}).await;
        let cancelled = world.accept(|envelope| envelope.label = "plan9".to_owned()).await;
        world.store.cancel(cancelled).await.unwrap();
        assert!(world.store.unrunnable().await.unwrap().is_empty(), "no host is alive");

        let host = world.host(8).await;
        world.store.set_draining(host.id, true).await.unwrap();
        let mut found = world.store.unrunnable().await.unwrap();
        found.sort_by_key(|(job, _)| job.id);
        let [(first, no_label), (second, too_large)] = &found[..] else { panic!("{found:?}") };
        assert_eq!([first.id, second.id], [unknown, huge]);
        assert!(no_label.contains("plan9") && no_label.contains(LABEL), "{no_label}");
        assert!(too_large.contains("64") && too_large.contains('8'), "{too_large}");

        // A host that can run one of them comes.
        world.host(64).await;
        let found = world.store.unrunnable().await.unwrap();
        assert_eq!(found.iter().map(|(job, _)| job.id).collect::<Vec<_>>(), [unknown]);
        assert_eq!(world.state(fine).await, JobState::Queued);

        // Dead hosts can run nothing, but while nobody is alive nobody is blamed.
        world.pass(LEASE + seconds(1)).await;
        assert!(world.store.unrunnable().await.unwrap().is_empty());
        world.announce(&host).await;
        assert_eq!(world.store.unrunnable().await.unwrap().len(), 2);
    }
}
