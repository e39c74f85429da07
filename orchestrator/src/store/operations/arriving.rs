//! Jobs that come from the queue.

use std::collections::{BTreeMap, HashSet};

use common::ids::{HostId, ReservationId};
use common::request::{Envelope, Forge};
use common::time::Timestamp;

use crate::store::rows::{forge_name, read_json};
use crate::store::rules::clock::{after, before, is_held};
use crate::store::session::{Lock, Session, Sql};
use crate::store::value::values;
use crate::store::{Accepted, NewJob, REMEMBERED, Size, StoreError};

/// A job in the form in which it is stored.
pub(in crate::store) struct Arrival {
    envelope: Envelope,
    envelope_bytes: Vec<u8>,
    body: Vec<u8>,
    size: Option<Size>,
    only: Option<HostId>,
}

impl From<&NewJob> for Arrival {
    fn from(job: &NewJob) -> Self {
        Self {
            envelope: job.message.envelope().clone(),
            envelope_bytes: job.message.envelope_bytes().to_vec(),
            body: job.message.body_bytes(),
            size: job.size,
            only: job.only,
        }
    }
}

/// Accepts jobs; the answers are in their order.
///
/// Two hosts may accept the same jobs at the same time. So that neither waits for the other in a
/// circle, each goes through the jobs and then through the reservations in the order of their ids.
pub(in crate::store) async fn accept(
    session: &mut Session,
    jobs: Vec<Arrival>,
) -> Result<Vec<Accepted>, StoreError> {
    session.lock(Lock::Arriving).await?;
    let now = session.now().await?;
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|index| jobs[*index].envelope.job);

    let mut answers = vec![Accepted::Known; jobs.len()];
    let mut shares: BTreeMap<ReservationId, Vec<usize>> = BTreeMap::new();
    for index in order {
        let job = &jobs[index];
        answers[index] = accept_one(session, job, now).await?;
        if matches!(answers[index], Accepted::New | Accepted::Cancelled)
            && let Some(reservation) = job.envelope.reservation
        {
            shares.entry(reservation).or_default().push(index);
        }
    }
    for (reservation, users) in shares {
        let labels: Vec<&str> =
            users.iter().map(|index| jobs[*index].envelope.label.as_str()).collect();
        let without = use_up(session, reservation, &labels, now).await?;
        for (place, index) in users.into_iter().enumerate() {
            if without.contains(&place) && answers[index] == Accepted::New {
                answers[index] = Accepted::WithoutReservation;
            }
        }
    }
    // `solstice run` has no reservation, and nobody doubts its right to wait.
    for (job, answer) in jobs.iter().zip(&mut answers) {
        let none = job.envelope.reservation.is_none() && job.envelope.forge != Forge::Local;
        if none && *answer == Accepted::New {
            *answer = Accepted::WithoutReservation;
        }
    }
    for (job, answer) in jobs.iter().zip(&answers) {
        if *answer == Accepted::WithoutReservation {
            session.execute(UNRESERVED, values![job.envelope.job]).await?;
        }
    }
    session.wake();
    Ok(answers)
}

const UNRESERVED: &str = "UPDATE jobs SET unreserved = TRUE WHERE id = $1";

async fn accept_one(
    session: &mut Session,
    job: &Arrival,
    now: Timestamp,
) -> Result<Accepted, StoreError> {
    const INSERT: &str = "INSERT INTO jobs (id, forge, repository, label, priority, reply_to, \
                          asked_cpus, asked_memory, cpus, memory, state, since, deadline, \
                          queued_until, created, delivered, only_host) \
                          VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'queued', $11, $12, \
                          $12, $11, $13, $14) ON CONFLICT (id) DO NOTHING";
    const KEEP: &str = "INSERT INTO messages (job, envelope, body) VALUES ($1, $2, $3)";
    const CANCELLED: &str = "SELECT 1 AS found FROM cancels WHERE job = $1 AND time >= $2";
    const END: &str = "UPDATE jobs SET cancel_requested = TRUE WHERE id = $1";
    let envelope = &job.envelope;
    let values = values![
        envelope.job,
        forge_name(envelope.forge),
        envelope.repository.as_str(),
        envelope.label.as_str(),
        envelope.priority,
        envelope.reply_to.as_str(),
        envelope.size.cpus,
        envelope.size.memory,
        job.size.map(|size| size.cpus),
        job.size.map(|size| size.memory),
        now,
        after(now, envelope.deadlines.queued),
        // Without an address nobody takes the final event.
        envelope.reply_to.is_empty(),
        job.only,
    ];
    if session.execute(INSERT, values).await? == 0 {
        return compare(session, job).await;
    }
    let values = values![envelope.job, job.envelope_bytes.clone(), job.body.clone()];
    session.execute(KEEP, values).await?;
    let since = before(now, REMEMBERED);
    if session.row(CANCELLED, values![envelope.job, since]).await?.is_none() {
        return Ok(Accepted::New);
    }
    session.execute(END, values![envelope.job]).await?;
    Ok(Accepted::Cancelled)
}

/// Whether the job that is there already is this one.
async fn compare(session: &mut Session, job: &Arrival) -> Result<Accepted, StoreError> {
    const SAME: &str = "SELECT 1 AS found FROM messages \
                        WHERE job = $1 AND envelope = $2 AND body = $3";
    let values = values![job.envelope.job, job.envelope_bytes.clone(), job.body.clone()];
    let same = session.row(SAME, values).await?.is_some();
    Ok(if same { Accepted::Known } else { Accepted::Conflict })
}

/// Takes a share of a reservation for each of these labels; the places of those that it is not
/// valid for.
async fn use_up(
    session: &mut Session,
    reservation: ReservationId,
    labels: &[&str],
    now: Timestamp,
) -> Result<HashSet<usize>, StoreError> {
    const FIND: Sql = Sql {
        sqlite: "SELECT labels, remaining, expires FROM reservations WHERE id = $1",
        postgres: "SELECT labels, remaining, expires FROM reservations WHERE id = $1 FOR UPDATE",
    };
    const USE: &str = "UPDATE reservations SET remaining = $2 WHERE id = $1";
    let mut without: HashSet<usize> = (0..labels.len()).collect();
    let Some(row) = session.row(FIND, values![reservation]).await? else { return Ok(without) };
    if !is_held(row.time("expires")?, now) {
        return Ok(without);
    }
    let covered: Vec<String> = read_json("labels", &row.text("labels")?)?;
    let mut remaining: u32 = row.number("remaining")?;
    for (place, label) in labels.iter().enumerate() {
        if remaining > 0 && covered.iter().any(|other| other == label) {
            remaining -= 1;
            without.remove(&place);
        }
    }
    session.execute(USE, values![reservation, remaining]).await?;
    Ok(without)
}
