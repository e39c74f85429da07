//! `solstice drain`: a host takes nothing new and finishes what runs.

use std::time::Duration;

use common::ids::HostId;

use crate::cli::DrainArgs;
use crate::client::Client;
use crate::exit::{CommandError, Exit};
use crate::hosts::find;
use crate::message::{self, visible};
use crate::settings::Settings;
use crate::stop::Stop;
use crate::table;
use crate::waiting::Waiting;

/// How often the host's jobs are counted while `--wait` waits.
const LOOK: Duration = Duration::from_secs(1);

/// `solstice drain`.
///
/// # Errors
/// There is no such host, or the service cannot be used.
pub(crate) async fn drain(settings: &Settings, arguments: DrainArgs) -> Result<Exit, CommandError> {
    let client = Client::open(&settings.socket_path())?;
    let on = !arguments.off;
    let host = match &arguments.host {
        Some(text) => find(&client.hosts().await?, text)?,
        None => client.health().await?.host,
    };
    let stop = Stop::on_signals()
        .map_err(|error| CommandError::infrastructure(format!("cannot handle signals: {error}")))?;
    client.drain(host, on).await?;
    let mut jobs = running(&client, host).await?;
    if arguments.wait && jobs.1 > 0 {
        tokio::select! {
            () = stop.cancel.cancelled() => {
                message::notice("it goes on draining; --off takes that back");
                return Ok(Exit::Cancelled);
            }
            waited = wait(&client, host, &mut jobs) => waited?,
        }
    }
    let (name, jobs) = jobs;
    if arguments.json {
        let report = serde_json::json!({ "host": host, "draining": on, "jobs": jobs });
        return table::print_json(&report);
    }
    let name = visible(&name);
    let takes = if on { "takes nothing new" } else { "takes jobs again" };
    let has = match (on, jobs) {
        (false, _) => String::new(),
        (true, 0) => "; no job runs on it".to_owned(),
        (true, 1) => "; 1 job runs on it".to_owned(),
        (true, jobs) => format!("; {jobs} jobs run on it"),
    };
    table::print_text(&format!("{name} {takes}{has}\n"))
}

/// Waits until no job is left on a host.
async fn wait(client: &Client, host: HostId, jobs: &mut (String, u32)) -> Result<(), CommandError> {
    let text = |jobs: u32| {
        let plural = if jobs == 1 { "" } else { "s" };
        format!("waiting for {jobs} job{plural}")
    };
    let mut waiting = Waiting::start(&text(jobs.1));
    while jobs.1 > 0 {
        tokio::time::sleep(LOOK).await;
        *jobs = running(client, host).await?;
        waiting.say(&text(jobs.1));
    }
    Ok(())
}

/// A host's name, and how many jobs it has. A host that is forgotten has none.
async fn running(client: &Client, host: HostId) -> Result<(String, u32), CommandError> {
    let hosts = client.hosts().await?;
    let row = hosts.into_iter().find(|row| row.report.host == host);
    Ok(row.map_or_else(|| (host.short(), 0), |row| (row.report.name, row.jobs)))
}
