//! Promises that a number of jobs can start now.

use common::ids::ReservationId;
use common::time::Timestamp;
use queue::message::{Release, Reserve, Reserved};

use crate::store::operations::hosts::{Used, offers};
use crate::store::rows::{asked, json, read_json};
use crate::store::rules::clock::{SLACK, after, before, is_held};
use crate::store::rules::placing::{Held, Waiting, grant};
use crate::store::session::{Lock, Session};
use crate::store::value::values;
use crate::store::{RESERVATION, STARVING, StoreError};

pub(in crate::store) async fn reserve(
    session: &mut Session,
    question: &Reserve,
) -> Result<Reserved, StoreError> {
    const PUT: &str = "INSERT INTO reservations (id, runner, labels, granted, remaining, created, \
                       expires) VALUES ($1, $2, $3, $4, $4, $5, $6)";
    // From here on every job that was accepted is seen, either as a job or as an unused share.
    session.lock(Lock::Granting).await?;
    let now = session.now().await?;
    forget_lapsed(session, now).await?;
    if let Some(answer) = answered(session, question.id).await? {
        return Ok(answer);
    }
    let (used, waiting) = load(session, now).await?;
    let hosts = offers(session, &used, false).await?;
    let held = held(session).await?;
    let grant = grant(hosts, &waiting, &held, &question.labels, question.want);
    let expires = after(now, RESERVATION);
    if grant.count > 0 {
        let values = values![
            question.id,
            question.runner.as_str(),
            json(&grant.labels),
            grant.count,
            now,
            expires,
        ];
        session.execute(PUT, values).await?;
    }
    Ok(Reserved { id: question.id, count: grant.count, labels: grant.labels, expires })
}

pub(in crate::store) async fn release(
    session: &mut Session,
    release: Release,
) -> Result<(), StoreError> {
    const RELEASE: &str = "UPDATE reservations SET remaining = \
                           CASE WHEN remaining > $2 THEN remaining - $2 ELSE 0 END WHERE id = $1";
    session.execute(RELEASE, values![release.id, release.count]).await.map(drop)
}

/// Removes what has lapsed, also by a clock that was set back.
async fn forget_lapsed(session: &mut Session, now: Timestamp) -> Result<(), StoreError> {
    const FORGET: &str = "DELETE FROM reservations WHERE expires <= $1 OR expires > $2";
    let latest = after(now, RESERVATION + SLACK);
    debug_assert!(is_held(latest, now), "the statement says the same as the rule");
    session.execute(FORGET, values![now, latest]).await.map(drop)
}

/// The answer to the same question, if it was asked before.
async fn answered(
    session: &mut Session,
    id: ReservationId,
) -> Result<Option<Reserved>, StoreError> {
    const FIND: &str = "SELECT labels, granted, expires FROM reservations WHERE id = $1";
    let Some(row) = session.row(FIND, values![id]).await? else { return Ok(None) };
    let labels = read_json("labels", &row.text("labels")?)?;
    Ok(Some(Reserved { id, count: row.number("granted")?, labels, expires: row.time("expires")? }))
}

async fn held(session: &mut Session) -> Result<Vec<Held>, StoreError> {
    const HELD: &str =
        "SELECT labels, remaining FROM reservations WHERE remaining > 0 ORDER BY created, id";
    let rows = session.rows(HELD, &[]).await?;
    rows.iter()
        .map(|row| {
            let labels = read_json("labels", &row.text("labels")?)?;
            Ok(Held { labels, count: row.number("remaining")? })
        })
        .collect()
}

/// What leased jobs use and which jobs wait: read by one statement, so that a job that a host takes
/// or gives back at this moment is seen once.
async fn load(session: &mut Session, now: Timestamp) -> Result<(Used, Vec<Waiting>), StoreError> {
    const LOAD: &str = "SELECT state = 'queued' AS waits, host, only_host, label, \
                        asked_cpus, asked_memory, cpus, memory, created < $1 AS starving, count(*) AS jobs FROM jobs \
                        WHERE state <> 'done' \
                        AND NOT (state = 'queued' AND cancel_requested) \
                        GROUP BY 1, host, only_host, label, asked_cpus, asked_memory, cpus, memory, 9 \
                        ORDER BY label, asked_cpus, asked_memory";
    let mut used = Used::default();
    let mut waiting = Vec::new();
    for row in session.rows(LOAD, values![before(now, STARVING)]).await? {
        if row.flag("waits")? {
            waiting.push(Waiting {
                label: row.text("label")?,
                only: row.optional_parsed("only_host")?,
                asked: asked(&row)?,
                count: row.number("jobs")?,
                starving: row.flag("starving")?,
            });
        } else {
            used.add(&row)?;
        }
    }
    Ok((used, waiting))
}
