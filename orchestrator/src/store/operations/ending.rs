//! The end of jobs: finished, cancelled, delivered, forgotten.

use std::time::Duration;

use common::event::{Finished, JobResult};
use common::ids::{HostId, JobId, LeaseId};
use common::time::Timestamp;

use crate::job::CANCEL;
use crate::store::operations::leased::close_try;
use crate::store::rows::{job, job_columns, json, state};
use crate::store::rules::clock::{after, before, is_alive};
use crate::store::session::{Lock, Session, Sql};
use crate::store::value::{Row, values};
use crate::store::{CancelOutcome, GONE, Job, JobState, LEASE, REMEMBERED, StoreError};

/// Jobs that are forgotten in one transaction, so that nobody waits long for it.
const AT_ONCE: i64 = 500;

/// Reads a job that nobody else changes before the transaction is over.
async fn hold(session: &mut Session, job: JobId) -> Result<Option<Row>, StoreError> {
    const HOLD: Sql = Sql {
        sqlite: "SELECT state, host, lease, tries FROM jobs WHERE id = $1",
        postgres: "SELECT state, host, lease, tries FROM jobs WHERE id = $1 FOR UPDATE",
    };
    session.row(HOLD, values![job]).await
}

pub(in crate::store) async fn finish(
    session: &mut Session,
    job: JobId,
    lease: Option<LeaseId>,
    finished: &Finished,
) -> Result<bool, StoreError> {
    const END: &str = "UPDATE jobs SET state = 'done', since = $2, deadline = NULL, ended = $2, \
                       finished = $3, cancel_requested = cancel_requested OR $4, lease = NULL \
                       WHERE id = $1";
    let Some(row) = hold(session, job).await? else { return Err(StoreError::LeaseLost { job }) };
    let state = state(&row)?;
    if state == JobState::Done {
        return Ok(false);
    }
    let now = session.now().await?;
    let holder: Option<LeaseId> = row.optional_parsed("lease")?;
    let allowed = match (lease, row.optional_parsed::<HostId>("host")?) {
        (Some(_), _) => lease == holder,
        (None, _) if state == JobState::Queued => true,
        (None, Some(host)) => !host_alive(session, host, now).await?,
        (None, None) => false,
    };
    if !allowed {
        return Err(StoreError::LeaseLost { job });
    }
    if state.is_leased() {
        let cause = finished.infrastructure.as_ref().map(|failure| failure.cause.code());
        close_try(session, job, row.number("tries")?, cause, now).await?;
    }
    let cancelled = finished.result == JobResult::Cancelled;
    session.execute(END, values![job, now, json(finished), cancelled]).await?;
    // Its room is free, which may be what another host's reservation waits for.
    session.wake();
    Ok(true)
}

async fn host_alive(
    session: &mut Session,
    host: HostId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let row = session.row("SELECT heartbeat FROM hosts WHERE id = $1", values![host]).await?;
    row.map_or(Ok(false), |row| Ok(is_alive(row.time("heartbeat")?, now)))
}

pub(in crate::store) async fn cancel(
    session: &mut Session,
    job: JobId,
) -> Result<CancelOutcome, StoreError> {
    const REQUEST: &str = "UPDATE jobs SET cancel_requested = TRUE WHERE id = $1";
    // Its steps have their time to end. Before them there is nothing to wait for.
    const CANCELLING: &str =
        "UPDATE jobs SET state = 'cancelling', since = $2, deadline = $3 WHERE id = $1";
    const REMEMBER: &str = "INSERT INTO cancels (job, time) VALUES ($1, $2) \
                            ON CONFLICT (job) DO UPDATE SET time = excluded.time";
    let mut found = hold(session, job).await?;
    if found.is_none() {
        // It may be coming in at this moment: whoever accepts it must see the note, or we the job.
        session.lock(Lock::Granting).await?;
        found = hold(session, job).await?;
    }
    let now = session.now().await?;
    let Some(row) = found else {
        session.execute(REMEMBER, values![job, now]).await?;
        return Ok(CancelOutcome::Remembered);
    };
    match state(&row)? {
        JobState::Done => Ok(CancelOutcome::WasDone),
        JobState::Queued => {
            session.execute(REQUEST, values![job]).await?;
            Ok(CancelOutcome::WasQueued)
        }
        state => {
            session.execute(REQUEST, values![job]).await?;
            if state == JobState::Running {
                session.execute(CANCELLING, values![job, now, after(now, CANCEL)]).await?;
            }
            Ok(CancelOutcome::Leased(row.parsed("host")?))
        }
    }
}

pub(super) const OURS: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE state = 'done' AND NOT delivered AND host = $1 ORDER BY ended, id"
);

pub(in crate::store) async fn undelivered(
    session: &mut Session,
    host: HostId,
) -> Result<Vec<Job>, StoreError> {
    session.rows(OURS, values![host]).await?.iter().map(job).collect()
}

pub(in crate::store) async fn take_over_ends(
    session: &mut Session,
    host: HostId,
) -> Result<Vec<Job>, StoreError> {
    const OWED: Sql = Sql {
        sqlite: "SELECT id FROM jobs WHERE state = 'done' AND NOT delivered AND ended < $2 \
                 AND host <> $1 AND host NOT IN (SELECT id FROM hosts WHERE heartbeat >= $2) \
                 ORDER BY ended, id LIMIT $3",
        postgres: "SELECT id FROM jobs WHERE state = 'done' AND NOT delivered AND ended < $2 \
                   AND host <> $1 AND host NOT IN (SELECT id FROM hosts WHERE heartbeat >= $2) \
                   ORDER BY ended, id LIMIT $3 FOR UPDATE SKIP LOCKED",
    };
    const TAKE: &str =
        concat!("UPDATE jobs SET host = $2 WHERE id = $1 RETURNING ", job_columns!());
    let now = session.now().await?;
    let mut taken = Vec::new();
    for row in session.rows(OWED, values![host, before(now, GONE), AT_ONCE]).await? {
        let row = session.row(TAKE, values![row.text("id")?, host]).await?;
        taken.extend(row.as_ref().map(job).transpose()?);
    }
    Ok(taken)
}

pub(in crate::store) async fn begin_telling(
    session: &mut Session,
    job: JobId,
) -> Result<u32, StoreError> {
    const BEGIN: &str =
        "UPDATE jobs SET tries = tries + 1 WHERE id = $1 AND state = 'done' RETURNING tries";
    match session.row(BEGIN, values![job]).await? {
        Some(row) => row.number("tries"),
        None => Err(StoreError::Refused { job, reason: "it is not finished" }),
    }
}

pub(in crate::store) async fn delivered(
    session: &mut Session,
    job: JobId,
) -> Result<(), StoreError> {
    const DELIVERED: &str = "UPDATE jobs SET delivered = TRUE \
                             WHERE id = $1 AND state = 'done' AND NOT delivered";
    session.execute(DELIVERED, values![job]).await.map(drop)
}

/// Forgets some of the jobs that ended before a time; how many.
pub(in crate::store) async fn forget_jobs(
    session: &mut Session,
    older_than: Duration,
) -> Result<u64, StoreError> {
    const FORGET: &str = "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs \
                          WHERE state = 'done' AND ended < $1 ORDER BY ended LIMIT $2)";
    let now = session.now().await?;
    session.execute(FORGET, values![before(now, older_than), AT_ONCE]).await
}

/// Forgets remembered cancels, and hosts that were not heard for so long and have no job.
pub(in crate::store) async fn forget_others(
    session: &mut Session,
    older_than: Duration,
) -> Result<(), StoreError> {
    const CANCELS: &str = "DELETE FROM cancels WHERE time < $1";
    const HOSTS: &str = "DELETE FROM hosts WHERE heartbeat < $1 AND NOT EXISTS \
                         (SELECT 1 FROM jobs WHERE jobs.host = hosts.id AND lease IS NOT NULL)";
    let now = session.now().await?;
    session.execute(CANCELS, values![before(now, REMEMBERED)]).await?;
    let silent = before(now, older_than.max(LEASE));
    session.execute(HOSTS, values![silent]).await.map(drop)
}
