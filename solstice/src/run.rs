//! `solstice run`.
mod discover;
mod drive;
mod event;
mod execute;
mod git;
mod schedule;
mod secrets;

use crate::cli::RunArgs;
use crate::exit::{CommandError, Exit};
use crate::settings::Settings;

pub(crate) async fn run(_: &Settings, _: RunArgs) -> Result<Exit, CommandError> {
    Err(CommandError::usage("not yet"))
}
