//! The state of a guest as QEMU tells it when asked.

use serde_json::Value;

use super::ended::Ended;
use super::qmp::{COMMAND_DEADLINE, Qmp, QmpError};

/// The states in which a guest's processors stand still for good (QEMU's `RunState`), although no
/// event that we know names the cause. A failing accelerator ends in the first.
const DEAD_STATES: [&str; 3] = ["internal-error", "io-error", "guest-panicked"];

/// The answer to `query-status`, one of QEMU's `RunState`.
pub(super) async fn of(qmp: &Qmp) -> Result<String, QmpError> {
    let command = "query-status";
    let answer = qmp.execute(command, Value::Null, COMMAND_DEADLINE).await?;
    let status = answer.get("status").and_then(Value::as_str).map(str::to_owned);
    status.ok_or(QmpError::Incomplete { command, what: "status" })
}

/// Whether a guest in this state never goes on.
pub(super) fn is_dead(state: &str) -> bool {
    DEAD_STATES.contains(&state)
}

/// The end of a machine of which no more is known than its state.
pub(super) fn stopped_for_good(state: &str) -> Ended {
    let detail = format!("it stopped the guest for good and gives as its state `{state}`");
    Ended::QemuGone { detail }
}

/// Whether a disk of the guest stands still because the host had no room (`io-status` in the answer
/// to `query-block`).
pub(super) async fn is_out_of_room(qmp: &Qmp) -> Result<bool, QmpError> {
    let answer = qmp.execute("query-block", Value::Null, COMMAND_DEADLINE).await?;
    let full = |disk: &Value| disk.get("io-status").and_then(Value::as_str) == Some("nospace");
    Ok(answer.as_array().is_some_and(|disks| disks.iter().any(full)))
}
