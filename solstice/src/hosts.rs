//! `solstice hosts`: where jobs run.

use anstyle::{AnsiColor, Style};
use common::ids::HostId;
use orchestrator::store::HostRow;

use crate::client::Client;
use crate::exit::{CommandError, Exit};
use crate::settings::Settings;
use crate::table::{self, Cell};

/// Labels that a row shows; `--json` has all.
const LABELS: usize = 4;

/// `solstice hosts`.
///
/// # Errors
/// The service cannot be used.
pub(crate) async fn hosts(settings: &Settings, json: bool) -> Result<Exit, CommandError> {
    let hosts = Client::open(&settings.socket_path())?.hosts().await?;
    if json {
        return table::print_json(&hosts);
    }
    table::print(
        &[
            "NAME", "HOST", "STATE", "JOBS", "CPUS", "MEMORY", "LOAD", "RUNS ON", "VERSION",
            "LABELS",
        ],
        hosts.iter().map(row),
    )
}

fn row(host: &HostRow) -> [Cell; 10] {
    let report = &host.report;
    let (state, style) = match (host.alive, report.draining) {
        (false, _) => ("lost", AnsiColor::Red.on_default()),
        (true, true) => ("draining", AnsiColor::Yellow.on_default()),
        (true, false) => ("alive", Style::new()),
    };
    let mut labels: Vec<&str> = report.labels.iter().map(|offer| offer.label.as_str()).collect();
    let more = labels.len().saturating_sub(LABELS);
    labels.truncate(LABELS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    [
        report.name.clone().into(),
        report.host.short().into(),
        Cell::styled(state, style),
        host.jobs.to_string().into(),
        share(&host.used.cpus, &report.usable.cpus, &report.capacity.cpus).into(),
        share(&host.used.memory, &report.usable.memory, &report.capacity.memory).into(),
        format!("{}.{:02}", report.load / 100, report.load % 100).into(),
        report.acceleration.clone().into(),
        report.version.clone().into(),
        format!("{}{more}", labels.join(", ")).into(),
    ]
}

/// What jobs use, may use, and could use if nothing else ran on the host.
fn share<T: std::fmt::Display + PartialOrd>(used: &T, usable: &T, capacity: &T) -> String {
    if usable < capacity {
        return format!("{used}/{usable} of {capacity}");
    }
    format!("{used}/{capacity}")
}

/// The host of a name, of an id, or of a beginning or an end of one that no other host shares.
///
/// # Errors
/// There is none, or there are several.
pub(crate) fn find(hosts: &[HostRow], text: &str) -> Result<HostId, CommandError> {
    let named = hosts.iter().filter(|row| row.report.name == text);
    let mut found: Vec<HostId> = named.map(|row| row.report.host).collect();
    if found.is_empty() {
        let digits = text.to_ascii_lowercase().replace('-', "");
        let ids = hosts.iter().map(|row| row.report.host);
        let matches = |id: &HostId| {
            let id = id.to_string().replace('-', "");
            !digits.is_empty() && (id.starts_with(&digits) || id.ends_with(&digits))
        };
        found = ids.filter(matches).collect();
    }
    let error = match found.as_slice() {
        [one] => return Ok(*one),
        [] => format!("there is no host {text:?}"),
        several => format!("{text:?} means {} hosts", several.len()),
    };
    Err(CommandError::usage(error).hint("see `solstice hosts` for their names and ids"))
}
