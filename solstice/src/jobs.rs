//! `solstice jobs`, `cancel` and `retry`: the jobs that the service knows.

mod end;
mod find;

use std::collections::HashMap;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use common::event::{Finished, JobResult};
use common::ids::HostId;
use common::time::Timestamp;
use orchestrator::store::{HostRow, Job, JobFilter, JobState};

use crate::cli::JobsArgs;
use crate::client::Client;
use crate::exit::{CommandError, Exit};
use crate::message::DIM;
use crate::render::human_duration;
use crate::settings::Settings;
use crate::table::{self, Cell};

pub(crate) use end::{cancel, retry};
pub(crate) use find::find;

/// Jobs that a list has at most.
const MOST: u32 = 10_000;

/// `solstice jobs`.
///
/// # Errors
/// The service cannot be used.
pub(crate) async fn jobs(settings: &Settings, arguments: JobsArgs) -> Result<Exit, CommandError> {
    let client = Client::open(&settings.socket_path())?;
    let states = match arguments.states {
        states if !states.is_empty() => states,
        _ if arguments.all => Vec::new(),
        _ => JobState::ALL.into_iter().filter(|state| *state != JobState::Done).collect(),
    };
    let filter = JobFilter {
        states,
        repository: arguments.repository,
        label: arguments.label,
        most: arguments.most.unwrap_or(MOST),
    };
    let jobs = client.jobs(&filter).await?;
    if arguments.json {
        return table::print_json(&jobs);
    }
    let names = HostNames::of(&client.hosts().await?);
    let now = Timestamp::now();
    let rows = jobs.iter().map(|job| row(job, &names, now));
    table::print(&["JOB", "STATE", "REPOSITORY", "LABEL", "HOST", "AGE", "TOOK"], rows)
}

fn row(job: &Job, names: &HostNames, now: Timestamp) -> [Cell; 7] {
    let (state, style) = state(job);
    let took = job.claimed.map(|claimed| job.ended.unwrap_or(now).since(claimed));
    [
        job.id.short().into(),
        Cell::styled(state, style),
        job.repository.clone().into(),
        job.label.clone().into(),
        job.host.map(|host| names.name(host)).unwrap_or_default().into(),
        age(now.since(job.created)).into(),
        took.map(human_duration).unwrap_or_default().into(),
    ]
}

/// Where a job stands, or how it ended, in a word.
pub(crate) fn state(job: &Job) -> (String, Style) {
    match &job.finished {
        Some(finished) => result(finished),
        None if job.state == JobState::Running => {
            (job.state.name().to_owned(), AnsiColor::Cyan.on_default())
        }
        None if job.state == JobState::Queued => (job.state.name().to_owned(), DIM),
        None => (job.state.name().to_owned(), Style::new()),
    }
}

/// How a job ended, in a word.
pub(crate) fn result(finished: &Finished) -> (String, Style) {
    let failed = AnsiColor::Red.on_default();
    if let Some(infrastructure) = &finished.infrastructure {
        return (infrastructure.cause.code().to_owned(), failed);
    }
    let style = match finished.result {
        JobResult::Success => AnsiColor::Green.on_default(),
        JobResult::Failure => failed,
        JobResult::Cancelled => AnsiColor::Yellow.on_default(),
        JobResult::Skipped => DIM,
    };
    (finished.result.name().to_owned(), style)
}

/// How long ago something was, without more digits than matter.
pub(crate) fn age(since: Duration) -> String {
    const DAY: u64 = 24 * 3600;
    match since.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..DAY => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        seconds => format!("{}d", seconds / DAY),
    }
}

/// The hosts' names for people.
#[derive(Debug)]
pub(crate) struct HostNames(HashMap<HostId, String>);

impl HostNames {
    pub(crate) fn of(hosts: &[HostRow]) -> Self {
        Self(hosts.iter().map(|row| (row.report.host, row.report.name.clone())).collect())
    }

    /// A host's name, else the short form of its id: a host that is long gone is forgotten.
    pub(crate) fn name(&self, host: HostId) -> String {
        self.0.get(&host).cloned().unwrap_or_else(|| host.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let ages = [0, 59, 60, 3599, 3600, 86_399, 86_400, 1_000_000];
        let ages = ages.map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["0s", "59s", "1m", "59m", "1h 00m", "23h 59m", "1d", "11d"]);
    }
}
