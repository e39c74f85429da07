//! `solstice forgejo unregister`: forgets a runner, and deletes it on its instance where it may.

use forgejo_runner::identity::rest::{Rest, Scope};
use forgejo_runner::identity::stored::Stored;

use super::connections::identities;
use super::token;
use crate::cli::UnregisterArgs;
use crate::exit::{CommandError, Exit};
use crate::settings::Settings;
use crate::table;

/// Forgets a runner.
///
/// # Errors
/// There is none of this name, or the instance does not delete it; then nothing is forgotten.
pub(super) async fn unregister(
    settings: &Settings,
    arguments: UnregisterArgs,
) -> Result<Exit, CommandError> {
    let name = &arguments.connection;
    let identities = identities(settings);
    let path = identities.path(name);
    let stored = match identities.load(name) {
        Ok(Some(stored)) => stored,
        Ok(None) => return Err(unknown(settings, name)?),
        // What is damaged can still be forgotten.
        Err(error) if arguments.api_token_file.is_some() => return Err(error.into()),
        Err(_) => {
            identities.remove(name)?;
            return table::print_text(&format!("removed {}\n", path.display()));
        }
    };
    let scope = match (arguments.scope, &stored.scope) {
        (Some(scope), _) => Some(scope),
        (None, Some(text)) => text.parse::<Scope>().ok(),
        (None, None) => None,
    };
    let text = match &arguments.api_token_file {
        Some(file) => {
            let token = token(file)?;
            let scope = scope.ok_or_else(|| {
                CommandError::usage(format!("where is the runner {name}?")).hint(
                    "add --scope admin, --scope org/NAME, --scope user or --scope OWNER/REPOSITORY",
                )
            })?;
            let url = stored.address().map_err(CommandError::usage)?;
            let rest = Rest::new(&url, &stored.trust(), token)?;
            let deleted = rest.delete(&scope, &stored.uuid, stored.id).await?;
            if deleted {
                format!("the runner {} is deleted on {}\n", stored.uuid, stored.url)
            } else {
                let page = scope.page(&url);
                format!("{page} does not have it; where another page has it, delete it there\n")
            }
        }
        None => by_hand(&stored, scope)?,
    };
    identities.remove(name)?;
    table::print_text(&format!("{name} is forgotten here; {text}"))
}

fn unknown(settings: &Settings, name: &str) -> Result<CommandError, CommandError> {
    if let Some(keys) = settings.forgejo.connections.get(name) {
        let text = format!("{name} was not registered by `solstice forgejo register`");
        let hint = format!("remove the table [forgejo.{name}], which begins at {}", keys.place);
        return Ok(CommandError::usage(text).hint(hint));
    }
    let names = identities(settings).names()?.join(", ");
    let hint = if names.is_empty() {
        "none is kept here".to_owned()
    } else {
        format!("there are {names}")
    };
    Ok(CommandError::usage(format!("no runner is kept under the name {name:?}")).hint(hint))
}

/// Where a person deletes the runner.
fn by_hand(stored: &Stored, scope: Option<Scope>) -> Result<String, CommandError> {
    let url = stored.address().map_err(CommandError::usage)?;
    let uuid = &stored.uuid;
    let page = match scope {
        Some(scope) => format!("on {}", scope.page(&url)),
        None => format!(
            "on the page of its instance, organization or repository, such as {}",
            Scope::Admin.page(&url)
        ),
    };
    Ok(format!("delete the runner {:?} ({uuid}) {page}\n", stored.name))
}
