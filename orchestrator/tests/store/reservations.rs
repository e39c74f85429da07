//! Promises that jobs can start now.

use common::ids::ReservationId;
use orchestrator::store::{Accepted, JobState, LEASE, RESERVATION, STARVING};
use queue::message::{Release, Reserve, Reserved};

use crate::harness::*;

fn question(runner: &str, labels: &[&str], want: u32) -> Reserve {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    Reserve { id: ReservationId::new(), runner: runner.to_owned(), labels, want }
}

impl World {
    async fn reserve(&self, labels: &[&str], want: u32) -> Reserved {
        self.store.reserve(&question("runner", labels, want)).await.unwrap()
    }

    async fn count(&self, labels: &[&str]) -> u32 {
        let reserved = self.reserve(labels, 1000).await;
        let release = Release { id: reserved.id, count: reserved.count };
        self.store.release(release).await.unwrap();
        reserved.count
    }
}

on_both! {
    async fn a_host_grants_what_others_leave_it(world) {
        let mut host = Host::new(8);
        host.report.usable = size(3);
        world.announce(&host).await;
        assert_eq!(world.count(&[LABEL]).await, 3);
        // What it could ever run is not refused meanwhile.
        let large = world.accept(|envelope| envelope.size = asked(8)).await;
        assert!(world.store.unrunnable().await.unwrap().is_empty());
        assert_eq!(world.state(large).await, JobState::Queued);
    }

    async fn what_is_free_is_granted_once(world) {
        world.host(5).await;
        world.host(3).await;
        let now = world.store.now().await.unwrap();
        let first = world.reserve(&[LABEL], 6).await;
        assert_eq!((first.count, first.labels.as_slice()), (6, [LABEL.to_owned()].as_slice()));
        assert!(first.expires.since(now) >= RESERVATION);
        assert!(first.expires.since(now) < RESERVATION + PATIENCE);
        assert_eq!(world.reserve(&[LABEL], 6).await.count, 2);
        let none = world.reserve(&[LABEL], 6).await;
        assert_eq!((none.count, none.labels.len()), (0, 1), "the label exists, but is full");
    }

    async fn the_same_question_has_the_same_answer(world) {
        world.host(8).await;
        let question = question("runner", &[LABEL], 5);
        let answer = world.store.reserve(&question).await.unwrap();
        let other = world.other().await;
        assert_eq!(other.reserve(&question).await.unwrap(), answer);
        assert_eq!(world.count(&[LABEL]).await, 3);
    }

    async fn what_is_unused_lapses(world) {
        let host = world.host(8).await;
        assert_eq!(world.reserve(&[LABEL], 8).await.count, 8);
        assert_eq!(world.count(&[LABEL]).await, 0);
        world.pass(RESERVATION + seconds(1)).await;
        world.announce(&host).await;
        assert_eq!(world.count(&[LABEL]).await, 8);
    }

    async fn what_is_given_back_is_free(world) {
        world.host(8).await;
        let reserved = world.reserve(&[LABEL], 8).await;
        world.store.release(Release { id: reserved.id, count: 3 }).await.unwrap();
        assert_eq!(world.count(&[LABEL]).await, 3);
        // More than there is, and twice: a message may come again.
        world.store.release(Release { id: reserved.id, count: 100 }).await.unwrap();
        world.store.release(Release { id: reserved.id, count: 100 }).await.unwrap();
        world.store.release(Release { id: ReservationId::new(), count: 1 }).await.unwrap();
        assert_eq!(world.count(&[LABEL]).await, 8);
    }

    async fn a_job_uses_up_its_share_and_takes_its_real_size(world) {
        let host = world.host(8).await;
        let reserved = world.reserve(&[LABEL, LARGE], 2).await;
        assert_eq!(reserved.count, 2, "each counts as the largest");
        assert_eq!(world.count(&[LABEL]).await, 0);
        let mut jobs: Vec<_> = (0..3)
            .map(|_| world.message(|envelope| envelope.reservation = Some(reserved.id)))
            .collect();
        assert_eq!(world.store.accept(&jobs[..1]).await.unwrap(), [Accepted::New]);
        assert_eq!(world.count(&[LABEL]).await, 3, "one small job, and one share of four");
        assert_eq!(world.store.accept(&jobs[1..]).await.unwrap(), [
            Accepted::New,
            Accepted::WithoutReservation
        ]);
        assert_eq!(world.count(&[LABEL]).await, 5, "three small jobs wait");
        // A redelivered job uses nothing up.
        jobs.truncate(1);
        assert_eq!(world.store.accept(&jobs).await.unwrap(), [Accepted::Known]);

        let claimed = world.claim_many(&host, host.room(), 10).await;
        assert_eq!((claimed.len(), world.count(&[LABEL]).await), (3, 5));
        let unreserved = claimed.iter().filter(|one| one.unreserved).count();
        assert_eq!(unreserved, 1, "whoever runs it knows");
        for one in claimed {
            let job = one.message.envelope().job;
            world.store.finish(job, Some(one.lease), &passed()).await.unwrap();
        }
        assert_eq!(world.count(&[LABEL]).await, 8);
    }

    async fn a_reservation_that_is_not_valid(world) {
        world.host(8).await;
        let small = world.reserve(&[LABEL], 2).await;
        let lapsed = world.reserve(&[LABEL], 2).await;
        world.pass(RESERVATION + seconds(1)).await;
        let other_label = world.message(|envelope| {
            envelope.reservation = Some(small.id);
            envelope.label = LARGE.to_owned();
        });
        let late = world.message(|envelope| envelope.reservation = Some(lapsed.id));
        let unknown = world.message(|envelope| envelope.reservation = Some(ReservationId::new()));
        let answers = world.store.accept(&[other_label, late, unknown]).await.unwrap();
        assert_eq!(answers, [Accepted::WithoutReservation; 3]);
        assert_eq!(world.store.counts().await.unwrap().len(), 2, "they wait all the same");
    }

    async fn a_reservation_is_for_its_labels(world) {
        world.host(8).await;
        let reserved = world.reserve(&[LABEL, "plan9"], 2).await;
        assert_eq!(reserved.labels, [LABEL], "nobody runs the other one");
        let other = world.message(|envelope| {
            envelope.reservation = Some(reserved.id);
            envelope.label = LARGE.to_owned();
        });
        let own = world.message(|envelope| envelope.reservation = Some(reserved.id));
        let answers = world.store.accept(&[other, own]).await.unwrap();
        assert_eq!(answers, [Accepted::WithoutReservation, Accepted::New]);
        assert!(world.reserve(&["plan9"], 2).await.labels.is_empty());
    }

    async fn dead_and_draining_hosts_grant_nothing(world) {
        let (first, second) = (world.host(3).await, world.host(5).await);
        world.store.set_draining(first.id, true).await.unwrap();
        assert_eq!(world.count(&[LABEL]).await, 5);
        world.pass(LEASE + seconds(1)).await;
        world.announce(&first).await;
        assert_eq!(world.count(&[LABEL]).await, 0);
        world.announce(&second).await;
        world.store.set_draining(first.id, false).await.unwrap();
        assert_eq!(world.count(&[LABEL]).await, 8);
    }

    async fn waiting_jobs_come_before_reservations(world) {
        let host = world.host(8).await;
        world.accept_many(6).await;
        assert_eq!(world.count(&[LABEL]).await, 2);
        // Who is to be ended needs no room.
        let ended = world.accept(|_| {}).await;
        world.store.cancel(ended).await.unwrap();
        assert_eq!(world.count(&[LABEL]).await, 2);
        let large = world.accept(|envelope| envelope.label = LARGE.to_owned()).await;
        world.claim_many(&host, host.room(), 6).await;
        assert_eq!(world.count(&[LABEL]).await, 2, "it does not fit now and may be passed");
        world.pass(STARVING + seconds(1)).await;
        world.announce(&host).await;
        assert_eq!(world.count(&[LABEL]).await, 0, "it has waited long enough");
        assert!(world.store.take(large, host.id).await.unwrap().is_some());
        assert_eq!(world.count(&[LABEL]).await, 2);
    }

    /// Two forge runners with 200 jobs each and room for eight on two hosts: at no time do they
    /// hold more than eight jobs together, and all jobs are run.
    async fn two_runners_never_hold_more_than_there_is_room_for(world) {
        const JOBS: usize = 200;
        const SLOTS: usize = 8;
        let (held, most) = (Held::default(), Held::default());
        held.expect(2 * JOBS);
        let hosts = [world.host(4).await, world.host(4).await];
        let mut runners = Vec::new();
        for runner in ["one", "two"] {
            let store = world.other().await;
            let jobs: Vec<_> = (0..JOBS).map(|_| world.message(|_| {})).collect();
            let (held, most, keys) = (held.clone(), most.clone(), world.keys.clone());
            runners.push(tokio::spawn(async move {
                let mut jobs = jobs.into_iter();
                while jobs.len() > 0 {
                    let want = u32::try_from(jobs.len()).unwrap().min(5);
                    let answer = store.reserve(&question(runner, &[LABEL], want)).await.unwrap();
                    // It claims from its forge all that it may, or one less and gives that back.
                    let count = answer.count.saturating_sub(u32::from(jobs.len() % 3 == 0));
                    most.max(held.add(count));
                    let back = answer.count - count;
                    store.release(Release { id: answer.id, count: back }).await.unwrap();
                    for job in jobs.by_ref().take(count as usize) {
                        let job = with_reservation(&job, answer.id, &keys);
                        let answers = store.accept(&[job]).await.unwrap();
                        assert_eq!(answers, [Accepted::New]);
                    }
                    tokio::task::yield_now().await;
                }
            }));
        }
        let mut machines = Vec::new();
        for host in hosts {
            let (store, held) = (world.other().await, held.clone());
            machines.push(tokio::spawn(async move {
                let mut running = Vec::new();
                let mut done = 0;
                let mut turn = 0_usize;
                while !held.all_done() {
                    let used = u32::try_from(running.len()).unwrap();
                    let room = host.room_without(used);
                    let labels = &host.report.labels;
                    running.extend(store.claim(host.id, room, labels, 4).await.unwrap());
                    assert!(running.len() <= 4);
                    turn += 1;
                    // Jobs take differently long.
                    if turn.is_multiple_of(2) && !running.is_empty() {
                        let one = running.remove(0);
                        let job = one.message.envelope().job;
                        // Before its room is free, so that nobody is counted who takes it.
                        held.finished();
                        assert!(store.finish(job, Some(one.lease), &passed()).await.unwrap());
                        done += 1;
                    }
                    store.announce(&host.report, host.boot).await.unwrap();
                }
                done
            }));
        }
        for runner in runners {
            tokio::time::timeout(PATIENCE, runner).await.expect("no slot is lost").unwrap();
        }
        let mut done = 0;
        for machine in machines {
            done += tokio::time::timeout(PATIENCE, machine).await.expect("all are run").unwrap();
        }
        assert_eq!(done, 2 * JOBS);
        assert!(most.get() <= SLOTS, "{} at once", most.get());
        assert!(most.get() > SLOTS / 2, "only {} at once", most.get());
    }
}

/// Counts jobs that are claimed from a forge and not over.
#[derive(Clone, Default)]
struct Held(std::sync::Arc<(std::sync::atomic::AtomicUsize, std::sync::atomic::AtomicUsize)>);

impl Held {
    fn add(&self, count: u32) -> usize {
        let count = usize::try_from(count).unwrap();
        self.0.0.fetch_add(count, std::sync::atomic::Ordering::SeqCst) + count
    }

    fn max(&self, count: usize) {
        self.0.0.fetch_max(count, std::sync::atomic::Ordering::SeqCst);
    }

    fn get(&self) -> usize {
        self.0.0.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn expect(&self, jobs: usize) {
        self.0.1.fetch_add(jobs, std::sync::atomic::Ordering::SeqCst);
    }

    fn finished(&self) {
        self.0.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        self.0.1.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }

    fn all_done(&self) -> bool {
        self.0.1.load(std::sync::atomic::Ordering::SeqCst) == 0
    }
}

fn with_reservation(
    job: &orchestrator::store::NewJob,
    reservation: ReservationId,
    keys: &queue::seal::KeyRing,
) -> orchestrator::store::NewJob {
    let mut request = job.message.open(keys).unwrap();
    request.envelope.reservation = Some(reservation);
    let message = queue::message::JobMessage::seal(&request, keys).unwrap();
    orchestrator::store::NewJob { message, size: job.size, only: None }
}
