//! A host whose wall clock jumps: by an administrator, by NTP after a bad battery, by a host's sleep.

use std::collections::HashSet;
use std::time::Duration;

use common::event::JobResult;
use common::guest::NativeCommits;
use common::size::ByteSize;
use orchestrator::clock::Clock;
use orchestrator::service::{Database, Service, ServiceSettings, Transport};
use orchestrator::{CacheSettings, FetchSettings, Keys, Origin};
use rand::Rng;
use simulators::BootEnd;
use simulators::jobs::job;
use vm_manager::host::{Acceleration, CapacityLimits, HostSettings};

use crate::harness::{Host, LOOK, PATIENCE, World, numbered, on_both};
use crate::shared::Runner;

const HOUR: i64 = 3_600_000_000;

pub(crate) fn settings(world: &World, host: &Host, clock: Clock) -> ServiceSettings {
    let state = host.state();
    let scripted = host.scripted();
    std::fs::create_dir_all(&state).unwrap();
    let (database, transport, keys) = match world {
        World::Alone => (
            Database::Sqlite(state.join("jobs.db")),
            Transport::Embedded(state.join("queue.db")),
            Keys::Own(state.join("seal.key")),
        ),
        World::Together(shared) => (
            Database::Postgres(shared.url.clone()),
            Transport::Rabbit(shared.transport()),
            Keys::Given(vec![shared.key_file()]),
        ),
    };
    let nowhere = Origin::parse("https://forge.invalid").expect("it is an address");
    ServiceSettings {
        machines: orchestrator::Settings {
            host: HostSettings {
                state: state.clone(),
                runtime: host.runtime().to_owned(),
                qemu: scripted.qemu(),
                qemu_img: scripted.qemu_img(),
                disk_reserve: ByteSize(1 << 20),
                acceleration: Some(Acceleration::Tcg),
                limits: CapacityLimits { cpus: Some(1), ..CapacityLimits::default() },
            },
            images: scripted.images(),
            guest_programs: vec![scripted.programs()],
            templates: None,
            fetch: FetchSettings {
                directory: state.join("actions"),
                quota: ByteSize(1 << 20),
                github: nowhere.clone(),
                forgejo: nowhere.clone(),
                gitea: nowhere,
                trusted: Vec::new(),
            },
            caches: CacheSettings { directory: state.join("caches"), quota: ByteSize(1 << 20) },
            artifacts: state.join("artifacts"),
            native_commits: NativeCommits::default(),
            catalogue: Some(scripted.catalogue()),
            watchdog: None,
            keys,
            freeze_failed: None,
            patience: orchestrator::Patience::default(),
        },
        name: "host".to_owned(),
        labels: Some(vec!["scripted".to_owned()]),
        database,
        transport,
        keep_days: 14,
        keep_bytes: 1 << 30,
        state,
        clock,
    }
}

/// Jobs that wait, boot and run while the clock jumps end as if it had not.
async fn nothing_comes_of(world: World, jump: i64) {
    let mut dice = simulators::dice();
    let host = world.host();
    host.boots(Duration::from_millis(dice.random_range(100..700)), BootEnd::Ready);
    let clock = Clock::system();
    let service = Service::start(settings(&world, &host, clock.clone())).await.unwrap();
    let runner =
        Runner { queue: service.queue(), keys: service.keys(), address: "runner".parse().unwrap() };
    drop(runner.queue.events(&runner.address, 1).await.unwrap());
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let mut request = job("scripted", &["lines 60 5"]);
        // Less than the jump.
        request.envelope.deadlines.queued = Duration::from_secs(600);
        request.envelope.deadlines.running = Duration::from_secs(600);
        jobs.push(runner.publish(request).await);
    }
    // One machine at a time: while the first boots the others wait, and so on.
    let jumps = async {
        let mut guests = HashSet::new();
        for number in 1..=jobs.len() {
            let begun = async {
                while guests.len() < number {
                    tokio::time::sleep(LOOK).await;
                    guests.extend(host.guests());
                }
            };
            tokio::time::timeout(PATIENCE, begun).await.unwrap();
            // While it boots, runs, or ends.
            let pause = dice.random_range(0..1000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            clock.jump(jump);
        }
    };
    let ((), all) = tokio::join!(jumps, runner.finish(&jobs));
    for id in &jobs {
        assert_eq!(all[id].finished().unwrap().result, JobResult::Success, "{:#?}", all[id].log());
        assert_eq!(all[id].lines(), numbered(60));
        assert_eq!(all[id].tries(), 1);
    }
    service.stop().await;
    host.wait_until_empty().await;
}

on_both! {
    async fn a_jump_of_an_hour_forward_ends_and_repeats_nothing(world) {
        nothing_comes_of(world, HOUR).await;
    }

    async fn a_jump_of_an_hour_back_ends_and_repeats_nothing(world) {
        nothing_comes_of(world, -HOUR).await;
    }
}

/// The clock jumps while nobody watches: one job runs meanwhile, and one waits for less time than the
/// jump takes away.
#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_an_hour_between_two_processes_ends_nothing() {
    let host = Host::new();
    let clock = Clock::system();
    let service = Service::start(settings(&World::Alone, &host, clock.clone())).await.unwrap();
    let runner = alone(&service);
    drop(runner.queue.events(&runner.address, 1).await.unwrap());
    let mut jobs = Vec::new();
    for script in ["lines 20 5\nsleep 3000\nlines 20 5", "lines 40 5"] {
        let mut request = job("scripted", &[script]);
        request.envelope.deadlines.queued = Duration::from_secs(600);
        request.envelope.deadlines.running = Duration::from_secs(600);
        jobs.push(runner.publish(request).await);
    }
    let runs = async {
        while host.guests().is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, runs).await.unwrap();
    service.stop().await;
    drop(runner);
    clock.jump(HOUR);
    let service = Service::start(settings(&World::Alone, &host, clock)).await.unwrap();
    let all = alone(&service).finish(&jobs).await;
    for id in &jobs {
        let end = all[id].finished().unwrap();
        assert_eq!(end.result, JobResult::Success, "{:#?}", all[id].log());
        assert_eq!(all[id].lines().len(), 40);
    }
    service.stop().await;
    host.wait_until_empty().await;
}

fn alone(service: &Service) -> Runner {
    let (queue, keys) = (service.queue(), service.keys());
    Runner { queue, keys, address: "runner".parse().unwrap() }
}
