//! Hosts: who is alive, what they offer, whose jobs are taken over.

use std::collections::HashMap;

use common::ids::{HostId, LeaseId};
use common::size::ByteSize;
use common::time::Timestamp;
use uuid::Uuid;

use crate::store::rows::{ACTIVE, active, json, report};
use crate::store::rules::clock::{SLACK, after, before, is_alive, is_heard};
use crate::store::rules::placing::HostOffer;
use crate::store::rules::room::{NONE, less, plus};
use crate::store::session::{Session, Sql};
use crate::store::value::{Row, values};
use crate::store::{Active, CLAIMED, GONE, HostReport, HostRow, LEASE, Size, StoreError};

pub(in crate::store) async fn announce(
    session: &mut Session,
    report: &HostReport,
    boot: Uuid,
) -> Result<u32, StoreError> {
    const FOUND: Sql = Sql {
        sqlite: "SELECT boot, heartbeat, refused, name, labels FROM hosts WHERE id = $1",
        postgres: "SELECT boot, heartbeat, refused, name, labels FROM hosts WHERE id = $1 \
                   FOR UPDATE",
    };
    let now = session.now().await?;
    let labels = json(&report.labels);
    let (mut news, mut refused) = (true, 0);
    if let Some(row) = session.row(FOUND, values![report.host]).await? {
        let owner: Option<Uuid> = row.optional_parsed("boot")?;
        let heartbeat = row.time("heartbeat")?;
        if owner.is_some_and(|owner| owner != boot) && is_heard(heartbeat, now) {
            let name = row.text("name")?;
            return Err(StoreError::HostIdInUse { host: report.host, name });
        }
        if owner == Some(boot) {
            refused = row.number("refused")?;
        }
        news = row.text("labels")? != labels || !is_alive(heartbeat, now);
    }

    // Whether a host drains is said once, by itself when it is new, and from then on by operators.
    const PUT: &str = "INSERT INTO hosts (id, boot, heartbeat, refused, draining, name, labels, cpus, \
                       memory, room_cpus, room_memory, acceleration, load, version) \
                       VALUES ($1, $2, $3, 0, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
                       ON CONFLICT (id) DO UPDATE SET boot = excluded.boot, \
                       heartbeat = excluded.heartbeat, refused = 0, name = excluded.name, \
                       labels = excluded.labels, cpus = excluded.cpus, \
                       memory = excluded.memory, room_cpus = excluded.room_cpus, \
                       room_memory = excluded.room_memory, \
                       acceleration = excluded.acceleration, \
                       load = excluded.load, version = excluded.version";
    let values = values![
        report.host,
        boot,
        now,
        report.draining,
        report.name.as_str(),
        labels,
        report.capacity.cpus,
        report.capacity.memory,
        report.usable.cpus,
        report.usable.memory,
        report.acceleration.as_str(),
        report.load,
        report.version.as_str(),
    ];
    session.execute(PUT, values).await?;

    // After the clock was set back, a host that died before it must not seem alive until then.
    const CORRECT: &str = "UPDATE hosts SET heartbeat = $1 WHERE heartbeat > $2";
    session.execute(CORRECT, values![now, after(now, SLACK)]).await?;
    if news {
        session.wake();
    }
    Ok(refused)
}

/// Tells the process that reports for a host that another one wanted to.
pub(in crate::store) async fn note_refusal(
    session: &mut Session,
    host: HostId,
) -> Result<(), StoreError> {
    const NOTE: &str = "UPDATE hosts SET refused = refused + 1 WHERE id = $1";
    session.execute(NOTE, values![host]).await.map(drop)
}

pub(in crate::store) async fn depart(
    session: &mut Session,
    host: HostId,
    boot: Uuid,
) -> Result<(), StoreError> {
    const LEAVE: &str = "UPDATE hosts SET boot = NULL, heartbeat = CASE WHEN EXISTS \
                         (SELECT 1 FROM jobs WHERE jobs.host = hosts.id \
                         AND (lease IS NOT NULL OR (state = 'done' AND NOT delivered))) \
                         THEN heartbeat ELSE 0 END WHERE id = $1 AND boot = $2";
    session.execute(LEAVE, values![host, boot]).await.map(drop)
}

pub(in crate::store) async fn set_draining(
    session: &mut Session,
    host: HostId,
    draining: bool,
) -> Result<bool, StoreError> {
    const SET: &str = "UPDATE hosts SET draining = $2 WHERE id = $1";
    let known = session.execute(SET, values![host, draining]).await? > 0;
    if !draining {
        session.wake();
    }
    Ok(known)
}

pub(in crate::store) async fn hosts(session: &mut Session) -> Result<Vec<HostRow>, StoreError> {
    const USED: &str = "SELECT host, cpus, memory, count(*) AS jobs FROM jobs \
                        WHERE lease IS NOT NULL GROUP BY host, cpus, memory";
    let mut used = Used::default();
    for row in session.rows(USED, &[]).await? {
        used.add(&row)?;
    }
    hosts_with(session, &used).await
}

async fn hosts_with(session: &mut Session, used: &Used) -> Result<Vec<HostRow>, StoreError> {
    const HOSTS: &str = "SELECT id, heartbeat, draining, name, labels, cpus, memory, \
                         room_cpus, room_memory, acceleration, load, version FROM hosts ORDER BY id";
    let now = session.now().await?;
    let rows = session.rows(HOSTS, &[]).await?;
    rows.iter()
        .map(|row| {
            let report = report(row)?;
            let heartbeat = row.time("heartbeat")?;
            let (jobs, used) = used.0.get(&report.host).copied().unwrap_or((0, NONE));
            Ok(HostRow { report, heartbeat, alive: is_alive(heartbeat, now), jobs, used })
        })
        .collect()
}

/// How many jobs each host has, and the size of their machines together.
#[derive(Default)]
pub(super) struct Used(HashMap<HostId, (u32, Size)>);

impl Used {
    /// Counts the leased jobs of one row: `jobs` of them on one host with one size.
    pub(super) fn add(&mut self, row: &Row) -> Result<(), StoreError> {
        let jobs: u32 = row.number("jobs")?;
        let cpus: u32 = row.optional_number("cpus")?.unwrap_or(0);
        let memory: u64 = row.optional_number("memory")?.unwrap_or(0);
        let all = Size {
            cpus: cpus.saturating_mul(jobs),
            memory: ByteSize(memory.saturating_mul(u64::from(jobs))),
        };
        let (count, size) = self.0.entry(row.parsed("host")?).or_insert((0, NONE));
        *count = count.saturating_add(jobs);
        *size = plus(*size, all);
        Ok(())
    }
}

/// What the live hosts offer beside what is used; those that drain only if `all`.
pub(super) async fn offers(
    session: &mut Session,
    used: &Used,
    all: bool,
) -> Result<Vec<HostOffer>, StoreError> {
    let hosts = hosts_with(session, used).await?.into_iter();
    let offers = hosts.filter(|host| host.alive && (all || !host.report.draining));
    Ok(offers
        .map(|host| HostOffer {
            host: host.report.host,
            labels: host.report.labels,
            capacity: host.report.capacity,
            usable: host.report.usable,
            free: less(host.report.usable, host.used),
        })
        .collect())
}

/// Whether a host may take new jobs: it is alive and does not drain.
pub(super) async fn takes_jobs(
    session: &mut Session,
    host: HostId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    const HOST: &str = "SELECT heartbeat, draining FROM hosts WHERE id = $1";
    match session.row(HOST, values![host]).await? {
        Some(row) => Ok(is_alive(row.time("heartbeat")?, now) && !row.flag("draining")?),
        None => Ok(false),
    }
}

pub(in crate::store) async fn take_over(
    session: &mut Session,
    host: HostId,
) -> Result<Vec<Active>, StoreError> {
    const LOST: Sql = Sql {
        sqlite: "SELECT id FROM jobs WHERE lease IS NOT NULL AND host <> $1 AND host NOT IN \
                 (SELECT id FROM hosts WHERE heartbeat >= CASE WHEN host = only_host THEN $3 \
                 ELSE $2 END) ORDER BY id",
        postgres: "SELECT id FROM jobs WHERE lease IS NOT NULL AND host <> $1 AND host NOT IN \
                   (SELECT id FROM hosts WHERE heartbeat >= CASE WHEN host = only_host THEN $3 \
                   ELSE $2 END) ORDER BY id FOR UPDATE SKIP LOCKED",
    };
    const TAKE: &str = "UPDATE jobs SET host = $2, lease = $3, deadline = $4 WHERE id = $1";
    let now = session.now().await?;
    let mut taken = Vec::new();
    for row in session.rows(LOST, values![host, before(now, LEASE), before(now, GONE)]).await? {
        let id = row.text("id")?;
        let values = values![id.clone(), host, LeaseId::new(), after(now, CLAIMED)];
        session.execute(TAKE, values).await?;
        if let Some(row) = session.row(ACTIVE, values![id]).await? {
            taken.push(active(&row)?);
        }
    }
    Ok(taken)
}
