//! `solstice actions`: the actions that the runner does itself.

use serde::Serialize;
use workflow_runner::workflow::{NATIVE_ACTIONS, NATIVE_ORIGINS, NativeAction};

use crate::cli::ActionsCommand;
use crate::exit::{CommandError, Exit};
use crate::table;

/// An action of the table, for programs.
#[derive(Serialize)]
struct Row {
    /// As it stands in `uses`, without the version.
    action: String,
    /// The major versions that the runner stands for.
    majors: Vec<u32>,
    /// What the log calls it.
    native: &'static str,
    /// The forges from which it may be named by its whole address; by name alone it is the dialect's.
    origins: [&'static str; 3],
}

/// Carries out `solstice actions`.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn actions(command: &ActionsCommand) -> Result<Exit, CommandError> {
    let ActionsCommand::List { json } = command;
    let rows = NATIVE_ACTIONS.iter().map(row);
    if *json {
        return table::print_json(&rows.collect::<Vec<_>>());
    }
    table::print(&["ACTION", "VERSIONS", "NATIVE"], rows.map(|row| cells(&row)))
}

fn row(action: &NativeAction) -> Row {
    let name = match action.path {
        "" => action.repository.to_owned(),
        path => format!("{}/{path}", action.repository),
    };
    Row {
        action: name,
        majors: action.majors.clone().collect(),
        native: action.native.name(),
        origins: NATIVE_ORIGINS.map(|origin| origin.trim_end_matches('/')),
    }
}

fn cells(row: &Row) -> [String; 3] {
    let versions = match (row.majors.first(), row.majors.last()) {
        (Some(first), Some(last)) if first != last => format!("v{first} to v{last}"),
        (Some(only), _) => format!("v{only}"),
        (None, _) => String::new(),
    };
    [row.action.clone(), versions, row.native.to_owned()]
}
