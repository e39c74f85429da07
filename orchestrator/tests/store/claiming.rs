//! Which job starts where, and when.

use std::collections::HashSet;

use orchestrator::store::{CLAIMED, JobState, LabelOffer, Room, STARVING};

use crate::harness::*;

on_both! {
    async fn by_priority_then_age(world) {
        let host = world.host(8).await;
        let mut jobs = Vec::new();
        for priority in [0, 5, -1, 5, 0] {
            jobs.push(world.accept(|envelope| envelope.priority = priority).await);
        }
        let claimed = world.claim_many(&host, host.room(), 100).await;
        assert_eq!(ids(&claimed), [1, 3, 0, 4, 2].map(|index: usize| jobs[index]));
    }

    async fn a_claimed_job_is_recorded(world) {
        let (host, job, lease) = world.claimed().await;
        let detail = world.store.job(job).await.unwrap().unwrap();
        let row = &detail.job;
        assert_eq!((row.state, row.host), (JobState::Claimed, Some(host.id)));
        assert_eq!(row.lease, Some(lease));
        assert_eq!((row.size, row.tries), (Some(size(1)), 1));
        assert_eq!(row.claimed, Some(row.since));
        assert_eq!(row.deadline.unwrap().since(row.since), CLAIMED);
        assert_eq!(detail.tries.len(), 1);
        assert_eq!((detail.tries[0].number, detail.tries[0].host), (1, host.id));
        assert!(world.claim_many(&host, host.room(), 10).await.is_empty(), "it is taken");
    }

    /// Of `solstice run`, whose tree, kept machine and log are on one host.
    async fn a_job_of_one_host_waits_for_it(world) {
        let (own, other) = (world.host(8).await, world.host(8).await);
        let mut new = world.message(|_| {});
        new.only = Some(own.id);
        let large = world.message(|envelope| envelope.size = asked(9));
        let large = orchestrator::store::NewJob { only: Some(own.id), ..large };
        world.store.accept(&[new.clone(), large.clone()]).await.unwrap();
        assert_eq!(world.job(id(&new)).await.only, Some(own.id));
        // Also one that has waited too long closes no other host.
        world.pass(STARVING + seconds(1)).await;
        world.announce(&own).await;
        world.announce(&other).await;
        let huge = world.host(64).await;
        assert!(world.claim_many(&other, other.room(), 10).await.is_empty());
        let unrunnable = world.store.unrunnable().await.unwrap();
        assert_eq!(unrunnable.len(), 1, "{unrunnable:?}");
        assert_eq!(unrunnable[0].0.id, id(&large));
        assert!(unrunnable[0].1.contains("has 8 and"), "{unrunnable:?}");
        assert!(unrunnable[0].1.ends_with("runs on no other"), "{unrunnable:?}");
        let any = world.accept(|_| {}).await;
        assert_eq!(ids(&world.claim_many(&huge, huge.room(), 10).await), [any]);
        assert_eq!(ids(&world.claim_many(&own, own.room(), 10).await), [id(&new)]);
    }

    async fn no_more_than_there_is_room_or_was_asked_for(world) {
        let host = world.host(8).await;
        let jobs = world.accept_many(12).await;
        assert_eq!(ids(&world.claim_many(&host, host.room(), 3).await), jobs[..3]);
        assert_eq!(ids(&world.claim_many(&host, host.room_without(3), 100).await), jobs[3..8]);
        assert!(world.claim_many(&host, host.room_without(8), 100).await.is_empty());
        assert!(world.claim_many(&host, host.room(), 0).await.is_empty());
    }

    async fn the_size_is_what_was_asked_for_or_the_labels(world) {
        let host = world.host(32).await;
        let own = world.accept(|envelope| envelope.size = asked(3)).await;
        let mut unknown = world.message(|envelope| envelope.label = LARGE.to_owned());
        unknown.size = None;
        world.store.accept(std::slice::from_ref(&unknown)).await.unwrap();
        assert_eq!(world.job(id(&unknown)).await.size, None);
        let claimed = world.claim_many(&host, host.room(), 10).await;
        assert_eq!(ids(&claimed), [own, id(&unknown)]);
        assert_eq!([claimed[0].size, claimed[1].size], [size(3), size(4)]);
        let hosts = world.store.hosts().await.unwrap();
        assert_eq!((hosts[0].jobs, hosts[0].used), (2, size(7)));
    }

    /// Memory may be what is short.
    async fn room_is_memory_as_well_as_processors(world) {
        let host = world.host(8).await;
        world.accept_many(3).await;
        let mut room = host.room();
        room.free.memory = size(2).memory;
        assert_eq!(world.claim_many(&host, room, 10).await.len(), 2);
    }

    async fn only_labels_that_the_host_offers(world) {
        let host = world.host(8).await;
        world.accept(|envelope| envelope.label = "omnios".to_owned()).await;
        let job = world.accept(|_| {}).await;
        assert_eq!(ids(&world.claim_many(&host, host.room(), 10).await), [job]);
        let offer = LabelOffer { label: "omnios".to_owned(), size: size(1) };
        let claimed = world.store.claim(host.id, host.room(), &[offer], 10).await.unwrap();
        assert_eq!(claimed.len(), 1);
        assert!(world.store.claim(host.id, host.room(), &[], 10).await.unwrap().is_empty());
    }

    async fn a_small_job_passes_a_large_one_until_that_starves(world) {
        let host = world.host(4).await;
        let large = world.accept(|envelope| envelope.label = LARGE.to_owned()).await;
        let small = world.accept_many(3).await;
        assert_eq!(ids(&world.claim_many(&host, host.room_without(2), 1).await), small[..1]);

        world.pass(STARVING + seconds(1)).await;
        world.announce(&host).await;
        assert!(world.claim_many(&host, host.room_without(2), 10).await.is_empty());
        // What goes before it in the order does not wait for it.
        let urgent = world.accept(|envelope| envelope.priority = 1).await;
        assert_eq!(ids(&world.claim_many(&host, host.room_without(2), 10).await), [urgent]);
        // A host that can never run it does not wait.
        let little = world.host(2).await;
        assert_eq!(ids(&world.claim_many(&little, little.room(), 1).await), small[1..2]);
        assert_eq!(ids(&world.claim_many(&host, host.room(), 10).await), [large]);
    }

    /// More jobs in front that do not fit than are looked at in one round.
    async fn a_job_that_fits_is_found_behind_many_that_do_not(world) {
        let host = world.host(8).await;
        for _ in 0..20 {
            world.accept(|envelope| envelope.size = asked(5)).await;
        }
        let small = world.accept_many(2).await;
        let claimed = world.claim_many(&host, host.room(), 3).await;
        assert_eq!(claimed.len(), 3);
        assert_eq!(claimed[0].size, size(5));
        assert_eq!(ids(&claimed)[1..], small);
    }

    /// Also when the next job of one label is behind more that do not fit than were looked at.
    async fn the_order_holds_across_labels(world) {
        let host = world.host(8).await;
        let mut jobs = Vec::new();
        for cpus in [5, 5, 5, 1] {
            jobs.push(world.accept(|envelope| envelope.size = asked(cpus)).await);
        }
        world
            .accept(|envelope| {
                envelope.label = LARGE.to_owned();
                envelope.size = asked(1);
            })
            .await;
        let claimed = world.claim_many(&host, host.room(), 2).await;
        assert_eq!(ids(&claimed), [jobs[0], jobs[3]]);
    }

    async fn a_host_that_is_not_there_gets_nothing(world) {
        let never = Host::new(8);
        let host = world.host(8).await;
        world.accept_many(2).await;
        assert!(world.claim_many(&never, never.room(), 10).await.is_empty());
        world.pass(orchestrator::store::LEASE + seconds(1)).await;
        assert!(world.claim_many(&host, host.room(), 10).await.is_empty());
        world.announce(&host).await;
        assert_eq!(world.claim_many(&host, host.room(), 10).await.len(), 2);
    }

    /// Nobody claims a job twice, and none is left although nobody waits for anybody.
    async fn eight_hosts_at_once_claim_each_job_once(world) {
        const JOBS: usize = 200;
        let jobs: HashSet<_> = world.accept_many(JOBS).await.into_iter().collect();
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let (store, host) = (world.other().await, world.host(1000).await);
            tasks.push(tokio::spawn(async move {
                let mut all = Vec::new();
                loop {
                    let room = Room { ..host.room() };
                    let claimed = store.claim(host.id, room, &host.report.labels, 7).await.unwrap();
                    if claimed.is_empty() {
                        return all;
                    }
                    all.extend(claimed);
                }
            }));
        }
        let mut claimed = Vec::new();
        for task in tasks {
            claimed.extend(task.await.unwrap());
        }
        let leases: HashSet<_> = claimed.iter().map(|one| one.lease).collect();
        let unique: HashSet<_> = ids(&claimed).into_iter().collect();
        assert_eq!((claimed.len(), leases.len(), &unique), (JOBS, JOBS, &jobs));
    }

    async fn a_waiting_job_is_taken_to_be_ended(world) {
        let host = world.host(2).await;
        // No room matters, nor that no host can run it, nor that its end was asked for.
        let job = world
            .accept(|envelope| {
                envelope.label = "plan9".to_owned();
                envelope.size = asked(64);
            })
            .await;
        world.store.cancel(job).await.unwrap();
        let taken = world.store.take(job, host.id).await.unwrap().unwrap();
        assert_eq!((taken.try_number, taken.failures), (1, 0));
        assert_eq!(taken.message.envelope().job, job);
        let row = world.job(job).await;
        assert_eq!((row.state, row.lease), (JobState::Finishing, Some(taken.lease)));
        assert!(row.cancel_requested);
        let own = &world.store.hosts().await.unwrap()[0];
        assert_eq!((own.jobs, own.used.cpus), (1, 0), "it has no machine");

        assert!(world.store.take(job, host.id).await.unwrap().is_none());
        assert!(world.store.finish(job, Some(taken.lease), &passed()).await.unwrap());
        assert!(world.store.take(job, host.id).await.unwrap().is_none());
        let unknown = id(&world.message(|_| {}));
        assert!(world.store.take(unknown, host.id).await.unwrap().is_none());
    }

    async fn many_take_one_job_and_one_gets_it(world) {
        let host = world.host(8).await;
        for _ in 0..10 {
            let job = world.accept(|_| {}).await;
            let (first, second) = (world.store.clone(), world.other().await);
            let labels = &host.report.labels;
            let (taken, other, claimed) = tokio::join!(
                first.take(job, host.id),
                second.take(job, host.id),
                second.claim(host.id, host.room(), labels, 1)
            );
            let taken = [taken.unwrap(), other.unwrap()].into_iter().flatten().count();
            assert_eq!(taken + claimed.unwrap().len(), 1);
        }
    }

    async fn whoever_waits_hears_of_a_new_job(world) {
        let other = world.other().await;
        let heard = tokio::spawn(async move {
            // Hints of before may still come; the job is what is waited for.
            while other.counts().await.unwrap().is_empty() {
                other.changed().await;
            }
        });
        world.accept(|_| {}).await;
        tokio::time::timeout(PATIENCE, heard).await.expect("it hears of it").unwrap();
    }
}
