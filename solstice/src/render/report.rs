//! The end of a run in one value: the last object of `--json` and the last lines for people.

use std::collections::BTreeMap;
use std::time::Duration;

use common::event::{JobResult, Kept, Phase};
use common::ids::JobId;
use common::infrastructure::Infrastructure;
use serde::{Serialize, Serializer};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    /// The workflow file as the user named it.
    pub(crate) workflow: String,
    /// Every job and leg, in the order in which they were decided.
    pub(crate) jobs: Vec<JobReport>,
    /// Failure if a job failed, else cancelled if one was cancelled, else success.
    pub(crate) result: JobResult,
    /// The exit code of the command.
    pub(crate) exit_code: u8,
    /// From the first job to the last.
    pub(crate) took_ms: u64,
}

/// How one job or leg ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct JobReport {
    /// The id in the events; absent for a job that was never handed to a host.
    pub(crate) id: Option<JobId>,
    /// The key of the job in the workflow.
    pub(crate) job: String,
    /// Its name as people read it.
    pub(crate) name: String,
    /// The values of its matrix, null without one.
    pub(crate) matrix: serde_json::Value,
    /// The result.
    pub(crate) result: JobResult,
    /// Whether a failure counts, which `continue-on-error` of the job prevents.
    pub(crate) failure_counts: bool,
    /// The cause, where the infrastructure is to blame.
    pub(crate) infrastructure: Option<Infrastructure>,
    /// From its hand-over to its end.
    pub(crate) took_ms: u64,
    /// Each finished phase of the last try, in milliseconds.
    #[serde(serialize_with = "as_map")]
    pub(crate) phases_ms: Vec<(Phase, u64)>,
    /// The job's outputs.
    pub(crate) outputs: BTreeMap<String, String>,
    /// The machine that is kept.
    pub(crate) kept: Option<Kept>,
}

fn as_map<S: Serializer>(phases: &[(Phase, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(phases.iter().map(|(phase, took)| (phase.name(), took)))
}

/// A duration as people read it: `0.4s`, `12.3s`, `2m 05s`, `1h 02m`.
pub(crate) fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{}.{}s", seconds, duration.subsec_millis() / 100),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let text = [80, 1_999, 59_999, 60_000, 3_599_000, 3_600_000, 90_061_000]
            .map(|ms| human_duration(Duration::from_millis(ms)));
        assert_eq!(text, ["0.0s", "1.9s", "59.9s", "1m 00s", "59m 59s", "1h 00m", "25h 01m"]);
    }
}
