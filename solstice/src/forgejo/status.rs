//! `solstice forgejo status`: every connection, and whether its instance answers and accepts it.

use anstyle::{AnsiColor, Style};
use forgejo_runner::Connection;
use forgejo_runner::client::{self, Kind, RpcErrorKind};
use forgejo_runner::identity::accepted;
use futures_util::future::join_all;
use serde::Serialize;

use super::connections::{Known, known, room};
use crate::exit::{CommandError, Exit};
use crate::message;
use crate::settings::Settings;
use crate::table::{self, Cell};

/// Labels that a row shows; `--json` has all.
const LABELS: usize = 4;

/// A connection as it is now.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    /// Its name.
    pub(crate) name: String,
    /// The instance.
    pub(crate) url: Option<String>,
    /// The runner's id.
    pub(crate) uuid: Option<String>,
    /// Where the identity is from.
    pub(crate) source: String,
    /// What it offers, as labels are written.
    pub(crate) labels: Vec<String>,
    /// How many jobs it has at most.
    pub(crate) capacity: Option<u32>,
    /// What the instance says it is.
    pub(crate) server: Option<String>,
    /// Whether the instance answers.
    pub(crate) reachable: bool,
    /// Whether it accepts the identity.
    pub(crate) accepted: bool,
    /// What is wrong.
    pub(crate) problem: Option<String>,
    /// What to do about it.
    pub(crate) cure: Option<String>,
}

/// Shows every connection. The exit code is 2 if one of them takes no jobs.
///
/// # Errors
/// The connections cannot be read at all.
pub(super) async fn status(settings: &Settings, json: bool) -> Result<Exit, CommandError> {
    let known = known(settings, room(settings))?;
    for warning in known.iter().flat_map(|one| &one.warnings) {
        message::warning(warning);
    }
    let rows: Vec<Status> = join_all(known.iter().map(look)).await;
    if json {
        table::print_json(&rows)?;
    } else if rows.is_empty() {
        message::notice(
            "this host is no runner of an instance; `solstice forgejo register` makes it one",
        );
    } else {
        table::print(
            &["NAME", "URL", "SERVER", "IDENTITY", "JOBS", "LABELS", "SOURCE"],
            rows.iter().map(row),
        )?;
        for Status { name, problem, cure, .. } in &rows {
            let Some(problem) = problem else { continue };
            let error = CommandError::infrastructure(format!("{name}: {problem}"));
            message::error(&match cure {
                Some(cure) => error.hint(cure),
                None => error,
            });
        }
    }
    let failed = rows.iter().any(|row| row.problem.is_some());
    Ok(if failed { Exit::Infrastructure } else { Exit::Passed })
}

/// Asks an instance whether it is there and accepts the runner. Nothing is changed by that: a daemon
/// may be at work.
pub(crate) async fn look(known: &Known) -> Status {
    let mut status = Status {
        name: known.name.clone(),
        url: None,
        uuid: None,
        source: known.source.clone(),
        labels: Vec::new(),
        capacity: None,
        server: None,
        reachable: false,
        accepted: false,
        problem: None,
        cure: None,
    };
    let connection = match &known.connection {
        Ok(connection) => connection,
        Err(error) => {
            status.problem = Some(error.to_string());
            status.cure = error.advice().map(str::to_owned);
            return status;
        }
    };
    status.url = Some(connection.url.as_str().trim_end_matches('/').to_owned());
    status.uuid = Some(connection.uuid.clone());
    status.labels = connection.labels.iter().map(ToString::to_string).collect();
    status.capacity = Some(connection.capacity);
    ask(connection, &mut status).await;
    status
}

async fn ask(connection: &Connection, status: &mut Status) {
    if let Err(error) = client::ping(&connection.url, &connection.trust).await {
        status.problem = Some(format!("the instance does not answer: {error}"));
        status.cure = Some(
            "check the URL, that this host reaches it, and that Actions are enabled there"
                .to_owned(),
        );
        return;
    }
    status.reachable = true;
    // Who says nothing about itself can be right all the same.
    if let Ok(Some(version)) = client::version(&connection.url, &connection.trust).await {
        let name = match version.kind {
            Kind::Forgejo => "Forgejo",
            Kind::Gitea => "Gitea",
        };
        let text: String = version.text.chars().take(60).collect();
        status.server = Some(format!("{name} {text}"));
    }
    match accepted(connection).await {
        Ok(()) => status.accepted = true,
        Err(error) => {
            status.problem = Some(format!("the instance does not accept the runner: {error}"));
            status.cure = Some(if error.kind == RpcErrorKind::Unauthenticated {
                let name = &connection.name;
                format!(
                    "look whether the instance still has the runner {}; if not, register again: \
                     solstice forgejo register --replace --connection {name} --url {}",
                    connection.uuid, connection.url
                )
            } else {
                "the log of the server says more".to_owned()
            });
        }
    }
}

fn row(status: &Status) -> [Cell; 7] {
    let red = AnsiColor::Red.on_default();
    let server = match (&status.server, status.reachable) {
        (Some(server), _) => server.clone().into(),
        (None, true) => "answers".into(),
        (None, false) if status.url.is_some() => Cell::styled("no answer", red),
        (None, false) => "".into(),
    };
    let identity = match (status.accepted, status.reachable) {
        (true, _) => Cell::styled("accepted", Style::new()),
        (false, true) => Cell::styled("REFUSED", red),
        (false, false) if status.url.is_some() => "unknown".into(),
        (false, false) => Cell::styled("UNUSABLE", red),
    };
    let mut labels: Vec<&str> =
        status.labels.iter().map(|label| label.split(':').next().unwrap_or(label)).collect();
    let more = labels.len().saturating_sub(LABELS);
    labels.truncate(LABELS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    [
        status.name.clone().into(),
        status.url.clone().unwrap_or_default().into(),
        server,
        identity,
        status.capacity.map_or_else(String::new, |capacity| capacity.to_string()).into(),
        format!("{}{more}", labels.join(", ")).into(),
        status.source.clone().into(),
    ]
}
