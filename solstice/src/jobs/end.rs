//! `solstice cancel` and `solstice retry`.

use common::ids::JobId;
use orchestrator::api::wire::{Cancelled, Outcome};
use serde::Serialize;

use super::{HostNames, find};
use crate::cli::{CancelArgs, JobArgs};
use crate::client::Client;
use crate::exit::{CommandError, Exit};
use crate::message;
use crate::settings::Settings;
use crate::table;

/// What became of one job.
#[derive(Serialize)]
struct Ended {
    job: JobId,
    #[serde(flatten)]
    cancelled: Cancelled,
}

/// `solstice cancel`.
///
/// # Errors
/// The service cannot be used. A job that cannot be cancelled is named on standard error, the others
/// are cancelled all the same, and the worst exit code counts.
pub(crate) async fn cancel(
    settings: &Settings,
    arguments: CancelArgs,
) -> Result<Exit, CommandError> {
    let client = Client::open(&settings.socket_path())?;
    let mut ended = Vec::new();
    let mut exit = Exit::Passed;
    for text in &arguments.jobs {
        match cancel_one(&client, text, arguments.now).await {
            Ok(one) => ended.push(one),
            Err(error) => {
                message::error(&error);
                if exit != Exit::Infrastructure {
                    exit = error.exit();
                }
            }
        }
    }
    if arguments.json {
        table::print_json(&ended)?;
    } else if !ended.is_empty() {
        let names = HostNames::of(&client.hosts().await?);
        let lines: String = ended.iter().map(|one| sentence(one, &names) + "\n").collect();
        table::print_text(&lines)?;
    }
    Ok(exit)
}

async fn cancel_one(client: &Client, text: &str, now: bool) -> Result<Ended, CommandError> {
    let job = find(client, text).await?;
    let cancelled = client.cancel(job, now).await?;
    Ok(Ended { job, cancelled })
}

fn sentence(ended: &Ended, names: &HostNames) -> String {
    let job = ended.job.short();
    let host = ended.cancelled.host.map(|host| message::visible(&names.name(host)));
    match ended.cancelled.outcome {
        Outcome::Remembered => format!("{job} is not known; if it comes within a day, it ends"),
        Outcome::WasQueued => format!("{job} is cancelled; it had not begun"),
        Outcome::Ending => {
            format!("{job} is being cancelled by {}", host.as_deref().unwrap_or("its host"))
        }
        Outcome::WasDone => format!("{job} was over already"),
    }
}

/// `solstice retry`.
///
/// # Errors
/// The job is not over or not known, or the service cannot be used.
pub(crate) async fn retry(settings: &Settings, arguments: JobArgs) -> Result<Exit, CommandError> {
    let client = Client::open(&settings.socket_path())?;
    let job = find(&client, &arguments.job).await?;
    let new = client.retry(job).await?;
    if arguments.json {
        return table::print_json(&serde_json::json!({ "job": new, "retry_of": job }));
    }
    table::print_text(&format!("{} runs again as {}\n", job.short(), new.short()))
}
