//! What stands in the tables, as the types of the store.

use std::time::Duration;

use common::event::{Finished, Phase};
use common::request::{Forge, MachineSize};
use common::size::ByteSize;
use queue::message::JobMessage;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::value::Row;
use super::{Active, HostReport, Job, JobState, LabelOffer, Size, StoreError, TryRow};

/// The columns that [`job`] reads.
macro_rules! job_columns {
    () => {
        "id, forge, repository, label, priority, state, since, deadline, cpus, memory, \
         only_host, host, lease, tries, user_step_started, cancel_requested, created, claimed, finished, ended"
    };
}
pub(super) use job_columns;

/// The columns that [`active`] reads, of a job with its message.
macro_rules! active_columns {
    () => {
        concat!(
            $crate::store::rows::job_columns!(),
            ", vm, envelope, body, (SELECT count(*) FROM tries \
             WHERE tries.job = jobs.id AND cause IS NOT NULL) AS failures"
        )
    };
}
pub(super) use active_columns;

/// One job with its message.
pub(super) const ACTIVE: &str = concat!(
    "SELECT ",
    active_columns!(),
    " FROM jobs JOIN messages ON messages.job = jobs.id WHERE id = $1"
);

pub(super) fn job(row: &Row) -> Result<Job, StoreError> {
    let finished = row.optional_text("finished")?;
    Ok(Job {
        id: row.parsed("id")?,
        forge: forge(&row.text("forge")?)?,
        repository: row.text("repository")?,
        label: row.text("label")?,
        priority: row.number("priority")?,
        state: state(row)?,
        since: row.time("since")?,
        deadline: row.optional_time("deadline")?,
        size: size(row)?,
        only: row.optional_parsed("only_host")?,
        host: row.optional_parsed("host")?,
        lease: row.optional_parsed("lease")?,
        tries: row.number("tries")?,
        user_step_started: row.flag("user_step_started")?,
        cancel_requested: row.flag("cancel_requested")?,
        created: row.time("created")?,
        claimed: row.optional_time("claimed")?,
        finished: finished.map(|text| read_json::<Finished>("finished", &text)).transpose()?,
        ended: row.optional_time("ended")?,
    })
}

/// A job with its message.
pub(super) fn active(row: &Row) -> Result<Active, StoreError> {
    Ok(Active {
        job: job(row)?,
        message: message(row)?,
        vm: row.optional_parsed("vm")?,
        failures: row.number("failures")?,
    })
}

pub(super) fn state(row: &Row) -> Result<JobState, StoreError> {
    let name = row.text("state")?;
    JobState::from_name(&name).ok_or_else(|| malformed(format!("there is a state {name:?}")))
}

/// The size of a machine; absent unless both of its columns are there.
fn size(row: &Row) -> Result<Option<Size>, StoreError> {
    let cpus = row.optional_number("cpus")?;
    let memory = row.optional_number("memory")?.map(ByteSize);
    Ok(cpus.zip(memory).map(|(cpus, memory)| Size { cpus, memory }))
}

/// What a request asks for.
pub(super) fn asked(row: &Row) -> Result<MachineSize, StoreError> {
    Ok(MachineSize {
        cpus: row.optional_number("asked_cpus")?,
        memory: row.optional_number("asked_memory")?.map(ByteSize),
    })
}

pub(super) fn message(row: &Row) -> Result<JobMessage, StoreError> {
    let (envelope, body) = (row.bytes("envelope")?, row.bytes("body")?);
    JobMessage::from_stored(&envelope, &body)
        .map_err(|error| malformed(format!("the message of a job: {error}")))
}

/// The report of a host, and whether operators said that it takes nothing new.
pub(super) fn report(row: &Row) -> Result<HostReport, StoreError> {
    Ok(HostReport {
        host: row.parsed("id")?,
        name: row.text("name")?,
        labels: read_json::<Vec<LabelOffer>>("labels", &row.text("labels")?)?,
        capacity: Size { cpus: row.number("cpus")?, memory: ByteSize(row.number("memory")?) },
        usable: Size {
            cpus: row.number("room_cpus")?,
            memory: ByteSize(row.number("room_memory")?),
        },
        acceleration: row.text("acceleration")?,
        load: row.number("load")?,
        draining: row.flag("draining")?,
        version: row.text("version")?,
    })
}

/// One try, still without its phases.
pub(super) fn try_row(row: &Row) -> Result<TryRow, StoreError> {
    Ok(TryRow {
        number: row.number("number")?,
        host: row.parsed("host")?,
        vm: row.optional_parsed("vm")?,
        began: row.time("began")?,
        ended: row.optional_time("ended")?,
        cause: row.optional_text("cause")?,
        phases: Vec::new(),
    })
}

/// The number of a try, and one of its phases.
pub(super) fn phase(row: &Row) -> Result<(u32, (Phase, Duration)), StoreError> {
    let name = row.text("phase")?;
    let phase = PHASES
        .into_iter()
        .find(|phase| phase.name() == name)
        .ok_or_else(|| malformed(format!("there is a phase {name:?}")))?;
    Ok((row.number("number")?, (phase, row.duration("took")?)))
}

const PHASES: [Phase; 7] = [
    Phase::Queue,
    Phase::Image,
    Phase::Boot,
    Phase::Ready,
    Phase::Upload,
    Phase::Steps,
    Phase::Cleanup,
];

pub(super) fn forge_name(forge: Forge) -> &'static str {
    match forge {
        Forge::Local => "local",
        Forge::Github => "github",
        Forge::Forgejo => "forgejo",
        Forge::Gitea => "gitea",
    }
}

fn forge(name: &str) -> Result<Forge, StoreError> {
    [Forge::Local, Forge::Github, Forge::Forgejo, Forge::Gitea]
        .into_iter()
        .find(|forge| forge_name(*forge) == name)
        .ok_or_else(|| malformed(format!("there is a forge {name:?}")))
}

/// What is stored as JSON: lists and results, which no statement looks into.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("these types have only text keys")
}

pub(super) fn read_json<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| malformed(format!("{column}: {error}")))
}

fn malformed(reason: String) -> StoreError {
    StoreError::Malformed { reason }
}
