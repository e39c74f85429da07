//! Saving a guest to a file and restoring it, without its memory: that lies in a file of its own,
//! which clones map (vm-facts 2).

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::qmp::{COMMAND_DEADLINE, Qmp};
use crate::template::TemplateError;

/// How long saving or restoring processors and devices may take: some ten milliseconds where the
/// disk is idle.
const DEADLINE: Duration = Duration::from_secs(60);

/// How often QEMU is asked whether it is done.
const INTERVAL: Duration = Duration::from_millis(2);

/// Saves a guest that stands still to `file`, which QEMU makes.
pub(super) async fn save(qmp: &Qmp, file: &Path) -> Result<(), TemplateError> {
    leave_memory(qmp).await?;
    let arguments = json!({ "uri": uri(file)? });
    qmp.execute("migrate", arguments, COMMAND_DEADLINE).await?;
    completion(qmp, "save").await
}

/// Restores a guest; it stands still then.
pub(super) async fn restore(qmp: &Qmp, file: &Path) -> Result<(), TemplateError> {
    leave_memory(qmp).await?;
    // QEMU would end instead of saying why it cannot.
    let arguments = json!({ "uri": uri(file)?, "exit-on-error": false });
    qmp.execute("migrate-incoming", arguments, COMMAND_DEADLINE).await?;
    completion(qmp, "restore").await
}

async fn leave_memory(qmp: &Qmp) -> Result<(), TemplateError> {
    leave_shared(qmp, true).await
}

/// Has all memory saved, as it is unless it was asked to be left.
pub(super) async fn whole_memory(qmp: &Qmp) -> Result<(), TemplateError> {
    leave_shared(qmp, false).await
}

async fn leave_shared(qmp: &Qmp, leave: bool) -> Result<(), TemplateError> {
    let capability = json!({ "capability": "x-ignore-shared", "state": leave });
    let arguments = json!({ "capabilities": [capability] });
    qmp.execute("migrate-set-capabilities", arguments, COMMAND_DEADLINE).await?;
    Ok(())
}

fn uri(file: &Path) -> Result<String, TemplateError> {
    file.to_str().map(|path| format!("file:{path}")).ok_or_else(|| TemplateError::Damaged {
        path: file.to_owned(),
        reason: "its path is not UTF-8; set another state directory".to_owned(),
    })
}

/// Waits until QEMU is done.
pub(super) async fn completion(qmp: &Qmp, action: &'static str) -> Result<(), TemplateError> {
    let done = async {
        loop {
            let answer = qmp.execute("query-migrate", Value::Null, COMMAND_DEADLINE).await?;
            let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
            match text("status") {
                "completed" => return Ok(()),
                "failed" | "cancelled" => {
                    let reason = text("error-desc").to_owned();
                    return Err(TemplateError::Migration { action, reason });
                }
                _ => tokio::time::sleep(INTERVAL).await,
            }
        }
    };
    let what = "saving or restoring a guest";
    let late = |_| TemplateError::Timeout { what, deadline: DEADLINE };
    tokio::time::timeout(DEADLINE, done).await.map_err(late)?
}
