//! A data directory of each version: what its service left when it was stopped in the middle of its
//! jobs. A service of today goes on with it.
//!
//! `tests/data/service/v1.tar.gz` was made once by [`record`]: the state directory without the
//! disks, and what lay in the runtime directory. A change that needs another one is a new version.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::JobId;
use common::event::JobResult;
use common::request::PROTOCOL_VERSION;
use common::time::Timestamp;
use futures_util::TryStreamExt;
use orchestrator::api::{Backend, Extent};
use orchestrator::clock::Clock;
use orchestrator::service::{Database, Service, ServiceSettings};
use orchestrator::store::JobState;
use simulators::BootEnd;
use simulators::jobs::{Received, job};

use crate::harness::{Host, LOOK, PATIENCE, numbered};
use crate::shared::Runner;

/// It is over, and its forge runner has everything.
const OVER: &str = "019d0000-0000-7000-8000-000000000021";
/// It is over, and its forge runner was away.
const OWED: &str = "019d0000-0000-7000-8000-000000000022";
/// Its steps run.
const RUNNING: &str = "019d0000-0000-7000-8000-000000000023";
/// Its machine boots.
const BOOTING: &str = "019d0000-0000-7000-8000-000000000024";
/// There was no room for it.
const WAITING: &str = "019d0000-0000-7000-8000-000000000025";

/// How long after its end the recorded service is started again.
const AWAY: Duration = Duration::from_secs(60);

fn archive(version: u16) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/service");
    data.join(format!("v{version}.tar.gz"))
}

fn id(text: &str) -> JobId {
    text.parse().unwrap()
}

/// A service with room for two machines, where `solstice serve` has its files.
async fn start(host: &Host, clock: Clock) -> Service {
    let mut settings: ServiceSettings =
        crate::clock::settings(&crate::harness::World::Alone, host, clock);
    settings.machines.host.limits.cpus = Some(2);
    settings.database = Database::Sqlite(host.state().join("solstice.db"));
    Service::start(settings).await.unwrap()
}

fn runner(service: &Service) -> Runner {
    let address = "runner-1".parse().unwrap();
    Runner { queue: service.queue(), keys: service.keys(), address }
}

fn tar(arguments: &[&str]) {
    let done = Command::new("tar").args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Puts a recording where a host has its directories, as if its service had ended a moment ago. The
/// time of its end.
fn unpack(version: u16, host: &Host) -> Timestamp {
    let file = archive(version);
    let (state, runtime) = (host.state(), host.runtime().to_str().unwrap().to_owned());
    let above = state.parent().unwrap().to_str().unwrap();
    let extract = ["-xpf", file.to_str().unwrap(), "--no-same-owner"];
    tar(&[&extract[..], &["-C", above, "state"]].concat());
    tar(&[&extract[..], &["-C", &runtime, "--strip-components=1", "run"]].concat());
    for instance in std::fs::read_dir(state.join("instances")).unwrap() {
        // A note that cannot be read is as old as its file.
        let seen = host.runtime().join(instance.unwrap().file_name()).join("last-seen");
        std::fs::write(seen, "").unwrap();
    }
    let ended = std::fs::metadata(state.join("solstice.db")).unwrap().modified().unwrap();
    Timestamp::from(ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_goes_on_with_what_every_version_left() {
    for version in 1..=PROTOCOL_VERSION {
        let host = Host::new();
        let ended = unpack(version, &host);
        let clock = Clock::system();
        let since = Timestamp::now().since(ended).saturating_sub(AWAY);
        clock.jump(-i64::try_from(since.as_micros()).unwrap());
        let own = std::fs::read_to_string(host.state().join("host-id")).unwrap();
        let service = start(&host, clock).await;
        assert_eq!(service.host().to_string(), own.trim());

        let all = runner(&service).finish(&[OWED, RUNNING, BOOTING, WAITING].map(id)).await;
        let lines = |job: &str| all[&id(job)].lines();
        let result = |job: &str| all[&id(job)].finished().unwrap();
        assert_eq!((lines(OWED), result(OWED).result), (numbered(3), JobResult::Failure));
        assert!(result(OWED).infrastructure.is_none());
        // Its record is read, and says that its machine is not there any more.
        assert_eq!(lines(RUNNING), numbered(3));
        let cause = result(RUNNING).infrastructure.clone().unwrap();
        assert_eq!(cause.cause.code(), "SOL-HOST-RESTARTED", "{cause}");
        for job in [BOOTING, WAITING] {
            assert_eq!((lines(job), result(job).result), (numbered(3), JobResult::Success));
        }

        let backend = service.backend();
        let over = backend.job(id(OVER)).await.unwrap().unwrap().job;
        assert_eq!(
            (over.state, over.finished.unwrap().result),
            (JobState::Done, JobResult::Failure)
        );
        let mut kept = Received::default();
        let events = backend.follow(id(OVER), Extent::Written).await.unwrap().unwrap();
        let events: Vec<_> = events.try_collect().await.unwrap();
        events.into_iter().flatten().for_each(|event| kept.take(event));
        kept.assert_whole();
        assert_eq!(kept.lines(), numbered(3));
        service.stop().await;
        host.wait_until_empty().await;
    }
}

/// Makes the recording of this version.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes the data of this test for a new version"]
async fn record() {
    let file = archive(PROTOCOL_VERSION);
    assert!(!file.exists(), "{} is there already", file.display());
    let host = Host::new();
    let service = start(&host, Clock::system()).await;
    let runner = runner(&service);
    drop(runner.queue.events(&runner.address, 1).await.unwrap());
    let publish = async |id: &str, scripts: &[&str]| {
        let mut request = job("scripted", scripts);
        request.envelope.job = id.parse().unwrap();
        runner.publish(request).await
    };
    let over = publish(OVER, &["lines 3 1", "exit 3"]).await;
    runner.finish(&[over]).await;
    // From here on nobody takes the events.
    publish(OWED, &["lines 3 1", "exit 3"]).await;
    wait_state(&service, OWED, JobState::Done).await;
    let running = publish(RUNNING, &["lines 3 1", "sleep 600000"]).await;
    // None is acknowledged, so all are held at once.
    let mut events = runner.queue.events(&runner.address, 1000).await.unwrap();
    let (mut seen, mut held) = (Received::default(), Vec::new());
    while seen.lines() != numbered(3) {
        let next = tokio::time::timeout(PATIENCE, events.next()).await;
        let delivery = next.unwrap().unwrap();
        let batch = delivery.message.as_ref().unwrap();
        for part in batch.parts.iter().filter(|part| part.job == running) {
            part.open(&runner.keys).unwrap().into_iter().for_each(|event| seen.take(event));
        }
        held.push(delivery);
    }
    drop((events, held));
    host.boots(2 * PATIENCE, BootEnd::Ready);
    publish(BOOTING, &["lines 3 1"]).await;
    wait_state(&service, BOOTING, JobState::Booting).await;
    publish(WAITING, &["lines 3 1"]).await;
    wait_state(&service, WAITING, JobState::Queued).await;
    service.stop().await;
    host.kill_guests().await;

    let above = host.state().parent().unwrap().to_str().unwrap().to_owned();
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    // Neither disks nor sockets, and not the ledger, which has paths of the host.
    let left_out =
        ["disk.qcow2", "seed.iso", "qmp", "ledger"].map(|name| format!("--exclude={name}"));
    let mut arguments = vec!["--sort=name", "--owner=0", "--group=0", "--numeric-owner"];
    arguments.extend(left_out.iter().map(String::as_str));
    arguments.extend(["--transform=s,^\\./,run/,", "-czf", file.to_str().unwrap(), "-C", &above]);
    arguments.extend(["state", "-C", host.runtime().to_str().unwrap()]);
    let runtime = std::fs::read_dir(host.runtime()).unwrap();
    let runtime: Vec<_> = runtime
        .map(|entry| format!("./{}", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    arguments.extend(runtime.iter().map(String::as_str));
    tar(&arguments);
}

async fn wait_state(service: &Service, job: &str, state: JobState) {
    let wait = async {
        loop {
            let found = service.backend().job(id(job)).await.unwrap();
            if found.is_some_and(|detail| detail.job.state == state) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}
