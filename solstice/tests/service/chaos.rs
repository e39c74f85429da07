//! Services, machines, brokers and databases that are killed at random moments. `make chaos` repeats
//! this with other moments. A failed test prints its seed; `SOLSTICE_CHAOS_SEED` sets it.

use std::collections::HashMap;
use std::time::Duration;

use common::JobId;
use common::event::JobResult;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use simulators::BootEnd;
use simulators::jobs::{Received, job};

use crate::harness::{Host, Running, numbered, on_both};
use crate::shared::Shared;

/// Jobs of one test.
const JOBS: usize = 16;
/// What happens to them.
const BLOWS: usize = 10;
/// The most time between two blows.
const PAUSE_MS: u64 = 700;

/// What may end a job whose machine or host was killed.
const KILLED: [&str; 2] = ["SOL-QEMU-KILLED", "SOL-HOST-RESTARTED"];

async fn pause(dice: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(dice.random_range(0..PAUSE_MS))).await;
}

/// What a job does, and what it must have printed if nothing of it was killed.
#[derive(Clone)]
struct Work {
    scripts: &'static [&'static str],
    lines: fn() -> Vec<String>,
    result: JobResult,
}

const WORKS: [Work; 5] = [
    Work { scripts: &["lines 60 10"], lines: || numbered(60), result: JobResult::Success },
    Work {
        scripts: &["lines 30 5\ncut\nlines 30 5"],
        lines: || [numbered(30), numbered(30)].concat(),
        result: JobResult::Success,
    },
    Work {
        scripts: &["echo one", "sleep 300", "echo two\nexit 3", "echo never"],
        lines: || vec!["one".into(), "two".into()],
        result: JobResult::Failure,
    },
    Work { scripts: &["flood 3000"], lines: || numbered(3000), result: JobResult::Success },
    Work { scripts: &["exit 1"], lines: Vec::new, result: JobResult::Failure },
];

impl Work {
    /// Checks the end of a job of which somebody may have killed the machine.
    fn assert_end(&self, received: &Received, blows: &[String]) {
        let finished = received.finished().unwrap();
        let lines = received.lines();
        let Some(failure) = &finished.infrastructure else {
            assert_eq!(finished.result, self.result, "{:#?}\n{blows:?}", received.log());
            assert_eq!(lines, (self.lines)(), "{blows:?}");
            return;
        };
        let code = failure.cause.code();
        assert!(KILLED.contains(&code), "{failure}\n{blows:?}");
        assert_eq!(finished.result, JobResult::Failure);
        let all = (self.lines)();
        assert!(all.starts_with(&lines), "{lines:?} of {all:?}\n{blows:?}");
    }
}

fn kill_guest(dice: &mut StdRng, hosts: &[&Host]) -> Option<i32> {
    let guests: Vec<i32> = hosts.iter().flat_map(|host| host.guests()).collect();
    let guest = *guests.choose(dice)?;
    // It may have ended meanwhile.
    kill(Pid::from_raw(guest), Signal::SIGKILL).unwrap_or_default();
    Some(guest)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_ends_once_whatever_is_killed() {
    let mut dice = simulators::dice();
    let host = Host::new().env("SOLSTICE_MAX_CPUS", "4");
    host.boots(Duration::from_millis(dice.random_range(0..300)), BootEnd::Ready);
    let mut service = host.serve().await;
    let mut jobs: HashMap<JobId, Work> = HashMap::new();
    let mut blows = Vec::new();
    for number in 0..JOBS.max(BLOWS) {
        if number < JOBS {
            let work = WORKS.choose(&mut dice).unwrap().clone();
            jobs.insert(service.submit(&job("scripted", work.scripts)).await, work);
        }
        if number >= BLOWS {
            continue;
        }
        pause(&mut dice).await;
        let blow = dice.random_range(0..4);
        blows.push(blow.to_string());
        match blow {
            0 => service.kill(),
            1 => service.stop().await,
            2 => {
                kill_guest(&mut dice, &[&host]);
                continue;
            }
            _ => {
                service.kill();
                kill_guest(&mut dice, &[&host]);
            }
        }
        service = host.serve().await;
    }
    for (id, work) in &jobs {
        work.assert_end(&service.finish(*id).await, &blows);
    }
    host.wait_until_empty().await;
    service.stop().await;
}

on_both! {
    /// Kills the service as soon as its job has this many events, and goes on.
    async fn a_kill_at_every_event_loses_and_doubles_nothing(world) {
        let host = world.host();
        let mut service = host.serve().await;
        let script = ["echo one", "echo two\nlines 3 1"];
        let whole = service.submit(&job("scripted", &script)).await;
        let events = service.finish(whole).await.events().count();
        assert!(events > 8, "phases, steps and lines: {events}");
        for seen in 0..events {
            let id = service.submit(&job("scripted", &script)).await;
            service.wait_for_events(id, seen).await;
            service.kill();
            service = host.serve().await;
            let received = service.finish(id).await;
            let lines = ["one", "two", "line 1", "line 2", "line 3"];
            assert_eq!(received.lines(), lines, "after {seen}");
            assert_eq!(received.finished().unwrap().result, JobResult::Success, "after {seen}");
        }
        host.wait_until_empty().await;
        service.stop().await;
    }
}

/// Two hosts with one broker and one database: hosts, machines, broker and database are killed.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_share_a_broker_end_every_job_once() {
    let mut dice = simulators::dice();
    let shared = Shared::start().await;
    let hosts = [0, 1].map(|_| shared.host().env("SOLSTICE_MAX_CPUS", "2"));
    let mut services: Vec<Running> = Vec::new();
    for host in &hosts {
        services.push(host.serve().await);
    }
    let runner = shared.runner("runner-1").await;
    drop(runner.queue.events(&runner.address, 1).await.unwrap());
    let mut jobs: HashMap<JobId, Work> = HashMap::new();
    let mut blows = Vec::new();
    for number in 0..JOBS {
        let work = WORKS.choose(&mut dice).unwrap().clone();
        jobs.insert(runner.publish(job("scripted", work.scripts)).await, work);
        if number % 3 != 0 {
            continue;
        }
        pause(&mut dice).await;
        let blow = dice.random_range(0..5);
        blows.push(blow.to_string());
        let victim = dice.random_range(0..hosts.len());
        match blow {
            0 => {
                services.remove(victim).kill();
                services.insert(victim, hosts[victim].serve().await);
            }
            1 => {
                services.remove(victim).stop().await;
                services.insert(victim, hosts[victim].serve().await);
            }
            2 => drop(kill_guest(&mut dice, &[&hosts[0], &hosts[1]])),
            3 => {
                // The broker of Debian 12 does not survive a kill right after a queue was made.
                shared.broker.settle().await.unwrap();
                shared.broker.kill().await.unwrap();
                shared.broker.restart().await.unwrap();
            }
            _ => {
                shared.database.kill().await.unwrap();
                shared.database.restart().await.unwrap();
            }
        }
    }
    let ids: Vec<JobId> = jobs.keys().copied().collect();
    let all = runner.finish(&ids).await;
    for (id, work) in &jobs {
        work.assert_end(&all[id], &blows);
    }
    for host in &hosts {
        host.wait_until_empty().await;
    }
    for service in services {
        service.stop().await;
    }
}
