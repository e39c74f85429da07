//! What a host writes about a job that it has: every statement shows the job's lease.

use std::time::Duration;

use common::event::Phase;
use common::ids::{HostId, JobId, LeaseId, VmId};
use common::time::Timestamp;

use crate::store::operations::claiming::open_try;
use crate::store::rules::clock::after;
use crate::store::session::{Session, Sql};
use crate::store::value::values;
use crate::store::{JobState, StoreError};

pub(in crate::store) async fn advance(
    session: &mut Session,
    job: JobId,
    lease: LeaseId,
    to: JobState,
    budget: Duration,
) -> Result<bool, StoreError> {
    const ADVANCE: &str = "UPDATE jobs SET state = $3, since = $4, deadline = $5 \
                           WHERE id = $1 AND lease = $2 RETURNING cancel_requested";
    if !to.is_leased() {
        return Err(StoreError::Refused { job, reason: "only `requeue` and `finish` end a lease" });
    }
    let now = session.now().await?;
    let values = values![job, lease, to, now, after(now, budget)];
    match session.row(ADVANCE, values).await? {
        Some(row) => row.flag("cancel_requested"),
        None => Err(StoreError::LeaseLost { job }),
    }
}

pub(in crate::store) async fn attach_vm(
    session: &mut Session,
    job: JobId,
    lease: LeaseId,
    vm: VmId,
) -> Result<(), StoreError> {
    const ATTACH: &str = "UPDATE jobs SET vm = $3 WHERE id = $1 AND lease = $2 RETURNING tries";
    const NOTE: &str = "UPDATE tries SET vm = $3 WHERE job = $1 AND number = $2";
    let Some(row) = session.row(ATTACH, values![job, lease, vm]).await? else {
        return Err(StoreError::LeaseLost { job });
    };
    session.execute(NOTE, values![job, row.integer("tries")?, vm]).await.map(drop)
}

pub(in crate::store) async fn step_started(
    session: &mut Session,
    job: JobId,
    lease: LeaseId,
) -> Result<(), StoreError> {
    const STARTED: &str = "UPDATE jobs SET user_step_started = TRUE WHERE id = $1 AND lease = $2";
    match session.execute(STARTED, values![job, lease]).await? {
        0 => Err(StoreError::LeaseLost { job }),
        _ => Ok(()),
    }
}

pub(in crate::store) async fn move_deadlines(
    session: &mut Session,
    micros: i64,
) -> Result<(), StoreError> {
    const MOVE: &str = "UPDATE jobs SET deadline = CASE WHEN deadline + $1 > 0 \
                        THEN deadline + $1 ELSE 0 END, \
                        queued_until = CASE WHEN queued_until + $1 > 0 \
                        THEN queued_until + $1 ELSE 0 END \
                        WHERE state <> 'done'";
    session.execute(MOVE, values![micros]).await.map(drop)
}

/// Notes how long a phase of the current try took. Noted twice, the later one counts.
pub(in crate::store) async fn phase(
    session: &mut Session,
    job: JobId,
    lease: LeaseId,
    phase: Phase,
    took: Duration,
) -> Result<(), StoreError> {
    const NOTE: &str = "INSERT INTO phases (job, number, phase, position, took) \
                        SELECT $1, $2, $3, (SELECT COALESCE(MAX(position), 0) + 1 FROM phases \
                        WHERE job = $1 AND number = $2), $4 WHERE TRUE \
                        ON CONFLICT (job, number, phase) DO UPDATE SET took = excluded.took";
    let held = hold(session, job, lease).await?;
    session.execute(NOTE, values![job, held.tries, phase.name(), took]).await.map(drop)
}

pub(in crate::store) async fn end_try(
    session: &mut Session,
    job: JobId,
    lease: LeaseId,
    cause: Option<&str>,
) -> Result<(), StoreError> {
    let held = hold(session, job, lease).await?;
    let now = session.now().await?;
    close_try(session, job, held.tries, cause, now).await
}

pub(in crate::store) async fn begin_try(
    session: &mut Session,
    job: JobId,
    lease: LeaseId,
) -> Result<u32, StoreError> {
    const BEGIN: &str = "UPDATE jobs SET tries = $2, vm = NULL WHERE id = $1";
    let held = hold(session, job, lease).await?;
    let now = session.now().await?;
    close_try(session, job, held.tries, None, now).await?;
    let number = held.tries + 1;
    session.execute(BEGIN, values![job, number]).await?;
    open_try(session, job, number, held.host, now).await?;
    Ok(number)
}

pub(in crate::store) async fn requeue(
    session: &mut Session,
    job: JobId,
    lease: LeaseId,
) -> Result<(), StoreError> {
    // The deadline is that of the whole wait: a job that is tried again has not been given more.
    const REQUEUE: &str = "UPDATE jobs SET state = 'queued', since = $2, deadline = queued_until, \
                           host = NULL, lease = NULL, vm = NULL WHERE id = $1";
    let held = hold(session, job, lease).await?;
    if held.user_step_started {
        return Err(StoreError::Refused { job, reason: "a step of its user has started" });
    }
    let now = session.now().await?;
    close_try(session, job, held.tries, None, now).await?;
    session.execute(REQUEUE, values![job, now]).await?;
    session.wake();
    Ok(())
}

/// What a host's hold on a job allows.
struct Held {
    host: HostId,
    tries: u32,
    user_step_started: bool,
}

/// Reads a job under its lease; nobody else changes it before the transaction is over.
async fn hold(session: &mut Session, job: JobId, lease: LeaseId) -> Result<Held, StoreError> {
    const HOLD: Sql = Sql {
        sqlite: "SELECT host, tries, user_step_started FROM jobs \
                 WHERE id = $1 AND lease = $2",
        postgres: "SELECT host, tries, user_step_started FROM jobs \
                   WHERE id = $1 AND lease = $2 FOR UPDATE",
    };
    let Some(row) = session.row(HOLD, values![job, lease]).await? else {
        return Err(StoreError::LeaseLost { job });
    };
    Ok(Held {
        host: row.parsed("host")?,
        tries: row.number("tries")?,
        user_step_started: row.flag("user_step_started")?,
    })
}

/// Ends a try, unless it was ended before.
pub(super) async fn close_try(
    session: &mut Session,
    job: JobId,
    number: u32,
    cause: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    const CLOSE: &str = "UPDATE tries SET ended = $3, cause = $4 \
                         WHERE job = $1 AND number = $2 AND ended IS NULL";
    session.execute(CLOSE, values![job, number, now, cause]).await.map(drop)
}
