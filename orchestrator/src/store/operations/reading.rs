//! What is asked about jobs.

use common::ids::{HostId, JobId};
use queue::message::JobMessage;

use crate::store::operations::hosts::{Used, offers};
use crate::store::rows::{
    active as active_row, active_columns, asked, job as job_row, job_columns,
    message as message_of, phase, state, try_row,
};
use crate::store::rules::placing::HostOffer;
use crate::store::rules::runnable::unrunnable as reason;
use crate::store::session::Session;
use crate::store::value::{Value, values};
use crate::store::{Active, Job, JobDetail, JobFilter, JobState, StoreError};

// Each statement has an index that answers it without going through the jobs that are over; a test
// looks at how SQLite means to run them.
pub(super) const ACTIVE: &str = concat!(
    "SELECT ",
    active_columns!(),
    " FROM jobs JOIN messages ON messages.job = jobs.id \
     WHERE host = $1 AND lease IS NOT NULL ORDER BY created, id"
);
pub(super) const OPEN: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE state <> 'done' AND ($1 = '' OR $1 LIKE '% ' || state || ' %') \
     AND ($2 = '' OR repository = $2) AND ($3 = '' OR label = $3) \
     ORDER BY created DESC, id DESC LIMIT $4"
);
pub(super) const REPOSITORY: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE ($1 = '' OR $1 LIKE '% ' || state || ' %') \
     AND repository = $2 AND ($3 = '' OR label = $3) \
     ORDER BY created DESC, id DESC LIMIT $4"
);
pub(super) const ALL: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE ($1 = '' OR $1 LIKE '% ' || state || ' %') \
     AND ($2 = '' OR repository = $2) AND ($3 = '' OR label = $3) \
     ORDER BY created DESC, id DESC LIMIT $4"
);
pub(super) const OVERDUE: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE state = 'queued' AND NOT cancel_requested AND deadline < $1 \
     ORDER BY deadline, id"
);
pub(super) const CANCELLED: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE state = 'queued' AND cancel_requested ORDER BY created, id"
);

/// Jobs of one answer, where the filter sets no number.
const LISTED: u32 = 1000;

pub(in crate::store) async fn active(
    session: &mut Session,
    host: HostId,
) -> Result<Vec<Active>, StoreError> {
    session.rows(ACTIVE, values![host]).await?.iter().map(active_row).collect()
}

pub(in crate::store) async fn job(
    session: &mut Session,
    id: JobId,
) -> Result<Option<JobDetail>, StoreError> {
    const JOB: &str = concat!(
        "SELECT ",
        active_columns!(),
        " FROM jobs JOIN messages ON messages.job = jobs.id WHERE id = $1"
    );
    const TRIES: &str = "SELECT number, host, vm, began, ended, cause FROM tries \
                         WHERE job = $1 ORDER BY number";
    const PHASES: &str = "SELECT number, phase, took FROM phases \
                          WHERE job = $1 ORDER BY number, position";
    let Some(row) = session.row(JOB, values![id]).await? else { return Ok(None) };
    let (job, envelope) = (job_row(&row)?, message_of(&row)?.envelope().clone());
    let mut tries = Vec::new();
    for row in session.rows(TRIES, values![id]).await? {
        tries.push(try_row(&row)?);
    }
    for row in session.rows(PHASES, values![id]).await? {
        let (number, phase) = phase(&row)?;
        if let Some(one) = tries.iter_mut().find(|one| one.number == number) {
            one.phases.push(phase);
        }
    }
    Ok(Some(JobDetail { job, tries, envelope }))
}

pub(in crate::store) async fn message(
    session: &mut Session,
    job: JobId,
) -> Result<Option<JobMessage>, StoreError> {
    const MESSAGE: &str = "SELECT envelope, body FROM messages WHERE job = $1";
    session.row(MESSAGE, values![job]).await?.as_ref().map(message_of).transpose()
}

pub(in crate::store) async fn jobs(
    session: &mut Session,
    filter: &JobFilter,
) -> Result<Vec<Job>, StoreError> {
    let mut states = String::new();
    for state in &filter.states {
        states.push(' ');
        states.push_str(state.name());
        states.push(' ');
    }
    let over = filter.states.is_empty() || filter.states.contains(&JobState::Done);
    let repository = filter.repository.as_deref().unwrap_or_default();
    let statement = match (over, repository) {
        (false, _) => OPEN,
        (true, "") => ALL,
        (true, _) => REPOSITORY,
    };
    let most = if filter.most == 0 { LISTED } else { filter.most };
    let label = filter.label.as_deref().unwrap_or_default();
    rows_of(session, statement, values![states, repository, label, most]).await
}

pub(in crate::store) async fn overdue_queued(
    session: &mut Session,
) -> Result<Vec<Job>, StoreError> {
    let now = session.now().await?;
    rows_of(session, OVERDUE, values![now]).await
}

pub(in crate::store) async fn cancelled_queued(
    session: &mut Session,
) -> Result<Vec<Job>, StoreError> {
    rows_of(session, CANCELLED, &[]).await
}

pub(in crate::store) async fn unrunnable(
    session: &mut Session,
) -> Result<Vec<(Job, String)>, StoreError> {
    const KINDS: &str = "SELECT DISTINCT label, asked_cpus, asked_memory, only_host FROM jobs \
                         WHERE state = 'queued' AND NOT cancel_requested";
    const OF_KIND: &str = concat!(
        "SELECT ",
        job_columns!(),
        " FROM jobs WHERE state = 'queued' AND NOT cancel_requested AND label = $1 \
         AND COALESCE(asked_cpus, -1) = $2 AND COALESCE(asked_memory, -1) = $3 \
         AND COALESCE(only_host, '') = $4 \
         ORDER BY created, id"
    );
    let hosts = offers(session, &Used::default(), true).await?;
    let mut jobs = Vec::new();
    for row in session.rows(KINDS, &[]).await? {
        let (label, asked) = (row.text("label")?, asked(&row)?);
        let only: Option<HostId> = row.optional_parsed("only_host")?;
        let may_run = |host: &&HostOffer| only.is_none_or(|only| only == host.host);
        let hosts: Vec<HostOffer> = hosts.iter().filter(may_run).cloned().collect();
        let Some(mut reason) = reason(&hosts, &label, asked) else { continue };
        if only.is_some() {
            reason.push_str("; the job was given to one host and runs on no other");
        }
        let cpus = asked.cpus.map_or(-1, i64::from);
        let memory = asked.memory.map_or(Value::from(-1_i64), Value::from);
        let values = [
            label.into(),
            cpus.into(),
            memory,
            only.map_or_else(String::new, |only| only.to_string()).into(),
        ];
        let kind = rows_of(session, OF_KIND, &values).await?;
        jobs.extend(kind.into_iter().map(|job| (job, reason.clone())));
    }
    Ok(jobs)
}

pub(in crate::store) async fn counts(
    session: &mut Session,
) -> Result<Vec<(JobState, String, u64)>, StoreError> {
    const COUNTS: &str = "SELECT state, label, count(*) AS jobs FROM jobs \
                          WHERE state <> 'done' GROUP BY state, label ORDER BY state, label";
    let rows = session.rows(COUNTS, &[]).await?;
    rows.iter().map(|row| Ok((state(row)?, row.text("label")?, row.number("jobs")?))).collect()
}

async fn rows_of(
    session: &mut Session,
    statement: &'static str,
    values: &[Value],
) -> Result<Vec<Job>, StoreError> {
    session.rows(statement, values).await?.iter().map(job_row).collect()
}
