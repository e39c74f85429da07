//! How a host takes waiting jobs.

use std::collections::{HashMap, HashSet};

use common::ids::{HostId, JobId, LeaseId};
use common::time::Timestamp;

use crate::store::operations::hosts::takes_jobs;
use crate::store::rows::{asked, message};
use crate::store::rules::claiming::{Candidate, choose, in_order};
use crate::store::rules::clock::{after, before};
use crate::store::rules::room::{NONE, less, size};
use crate::store::session::{Session, Sql};
use crate::store::value::{Row, values};
use crate::store::{CLAIMED, Claimed, LabelOffer, Room, STARVING, Size, StoreError};

pub(super) const FITTING: &str = "SELECT id, priority, created, asked_cpus, asked_memory FROM jobs \
                       WHERE state = 'queued' AND NOT cancel_requested AND label = $1 \
                       AND COALESCE(asked_cpus, $2) <= $3 \
                       AND COALESCE(asked_memory, $4) <= $5 \
                       AND (only_host IS NULL OR only_host = $7) \
                       ORDER BY priority DESC, created, id LIMIT $6";
pub(super) const STARVED: &str = "SELECT id, priority, created, asked_cpus, asked_memory FROM jobs \
                       WHERE state = 'queued' AND NOT cancel_requested AND label = $1 \
                       AND (COALESCE(asked_cpus, $2) > $3 \
                       OR COALESCE(asked_memory, $4) > $5) \
                       AND COALESCE(asked_cpus, $2) <= $6 \
                       AND COALESCE(asked_memory, $4) <= $7 AND created < $8 \
                       AND (only_host IS NULL OR only_host = $9) \
                       ORDER BY priority DESC, created, id LIMIT 1";

/// Claims jobs in rounds: each looks at the first jobs of every label without holding them,
/// chooses, and takes what nobody else holds at that moment. A job that is not chosen is never
/// hidden from other hosts, and nobody waits for anybody.
pub(in crate::store) async fn claim(
    session: &mut Session,
    host: HostId,
    mut room: Room,
    labels: &[LabelOffer],
    most: u32,
) -> Result<Vec<Claimed>, StoreError> {
    let now = session.now().await?;
    let mut claimed = Vec::new();
    if !takes_jobs(session, host, now).await? {
        return Ok(claimed);
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut missed = HashSet::new();
    while claimed.len() < most && room.free.cpus > 0 && room.free.memory.0 > 0 {
        let left = most - claimed.len();
        let mut candidates =
            candidates(session, host, room, labels, now, left + missed.len()).await?;
        candidates.retain(|candidate| !missed.contains(&candidate.job));
        let choice = choose(&candidates, room, now, left);
        if choice.take.is_empty() {
            break;
        }
        for candidate in choice.take {
            match take_one(session, host, &candidate, now).await? {
                Some(job) => {
                    room.free = less(room.free, candidate.size);
                    claimed.push(job);
                }
                None => {
                    missed.insert(candidate.job);
                }
            }
        }
    }
    Ok(claimed)
}

/// The waiting jobs that matter, in order: for each label the first that fit into the room, and the
/// first that does not fit and has waited too long.
async fn candidates(
    session: &mut Session,
    host: HostId,
    room: Room,
    labels: &[LabelOffer],
    now: Timestamp,
    most: usize,
) -> Result<Vec<Candidate>, StoreError> {
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    let (free, capacity) = (room.free, room.capacity);
    let mut found: HashMap<JobId, Candidate> = HashMap::new();
    // Behind the last job that was read of a label there may be more: what comes after it in the
    // order is not looked at now.
    let mut end: Option<Candidate> = None;
    for offer in labels {
        let (cpus, memory) = (offer.size.cpus, offer.size.memory);
        let label = offer.label.as_str();
        let values = values![label, cpus, free.cpus, memory, free.memory, limit, host];
        let rows = session.rows(FITTING, values).await?;
        for row in &rows {
            let candidate = candidate(row, offer)?;
            found.insert(candidate.job, candidate);
        }
        if let (true, Some(last)) = (rows.len() == most, rows.last()) {
            let last = candidate(last, offer)?;
            end = end.into_iter().chain([last]).min_by(in_order);
        }
        let values = values![
            label,
            cpus,
            free.cpus,
            memory,
            free.memory,
            capacity.cpus,
            capacity.memory,
            before(now, STARVING),
            host,
        ];
        if let Some(row) = session.row(STARVED, values).await? {
            let candidate = candidate(&row, offer)?;
            found.insert(candidate.job, candidate);
        }
    }
    let mut candidates: Vec<Candidate> = found.into_values().collect();
    candidates.retain(|one| end.is_none_or(|end| in_order(one, &end).is_le()));
    candidates.sort_by(in_order);
    Ok(candidates)
}

fn candidate(row: &Row, offer: &LabelOffer) -> Result<Candidate, StoreError> {
    Ok(Candidate {
        job: row.parsed("id")?,
        priority: row.integer("priority")?,
        created: row.time("created")?,
        size: size(asked(row)?, offer.size),
    })
}

pub(in crate::store) async fn take(
    session: &mut Session,
    job: JobId,
    host: HostId,
) -> Result<Option<Claimed>, StoreError> {
    let now = session.now().await?;
    let lease = LeaseId::new();
    let values = values![job, now, after(now, CLAIMED), host, lease, None::<u32>, None::<u64>];
    let Some(row) = session.row(TO_END, values).await? else { return Ok(None) };
    begun(session, job, host, lease, NONE, &row, now).await.map(Some)
}

/// Takes one job, unless somebody else has or holds it.
async fn take_one(
    session: &mut Session,
    host: HostId,
    candidate: &Candidate,
    now: Timestamp,
) -> Result<Option<Claimed>, StoreError> {
    let (job, size, lease) = (candidate.job, candidate.size, LeaseId::new());
    let deadline = after(now, CLAIMED);
    let values = values![job, now, deadline, host, lease, size.cpus, size.memory];
    let Some(row) = session.row(TO_RUN, values).await? else { return Ok(None) };
    begun(session, job, host, lease, size, &row, now).await.map(Some)
}

macro_rules! lease_it {
    ($state:literal, $condition:literal) => {
        concat!(
            "UPDATE jobs SET state = '",
            $state,
            "', since = $2, deadline = $3, host = $4, lease = $5, cpus = $6, memory = $7, \
             vm = NULL, tries = tries + 1, claimed = COALESCE(claimed, $2) WHERE ",
            $condition,
            " RETURNING tries, created, unreserved"
        )
    };
}

const TO_RUN: Sql = Sql {
    sqlite: lease_it!("claimed", "id = $1 AND state = 'queued' AND NOT cancel_requested"),
    postgres: lease_it!(
        "claimed",
        "id = (SELECT id FROM jobs WHERE id = $1 AND state = 'queued' AND NOT cancel_requested \
         FOR UPDATE SKIP LOCKED)"
    ),
};

/// A job without a machine uses no room, so it has no size.
const TO_END: &str = lease_it!("finishing", "id = $1 AND state = 'queued'");

/// The job as its new holder gets it.
async fn begun(
    session: &mut Session,
    job: JobId,
    host: HostId,
    lease: LeaseId,
    size: Size,
    row: &Row,
    now: Timestamp,
) -> Result<Claimed, StoreError> {
    const MESSAGE: &str = "SELECT envelope, body, (SELECT count(*) FROM tries \
                           WHERE tries.job = $1 AND cause IS NOT NULL) AS failures \
                           FROM messages WHERE job = $1";
    let (try_number, created) = (row.number("tries")?, row.time("created")?);
    let unreserved = row.flag("unreserved")?;
    open_try(session, job, try_number, host, now).await?;
    let Some(row) = session.row(MESSAGE, values![job]).await? else {
        return Err(StoreError::Malformed { reason: format!("job {job} has no message") });
    };
    let (message, failures) = (message(&row)?, row.number("failures")?);
    Ok(Claimed { message, lease, try_number, size, failures, created, unreserved })
}

/// Begins a try of a job.
pub(super) async fn open_try(
    session: &mut Session,
    job: JobId,
    number: u32,
    host: HostId,
    now: Timestamp,
) -> Result<(), StoreError> {
    const OPEN: &str = "INSERT INTO tries (job, number, host, began) VALUES ($1, $2, $3, $4)";
    session.execute(OPEN, values![job, number, host, now]).await.map(drop)
}
