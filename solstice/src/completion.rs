//! `solstice completion`: a script that a shell reads.

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::{CommandError, Exit};
use crate::table;

/// Prints the script.
///
/// # Errors
/// Standard output cannot be written, other than because nobody reads it any more.
pub(crate) fn print(shell: Shell) -> Result<Exit, CommandError> {
    table::print_text(&script(shell))
}

fn script(shell: Shell) -> String {
    let all = Cli::command();
    // The generators know nothing of hidden commands, so they get those that are not.
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set());
    let mut shown = Command::new("solstice").args(all.get_arguments()).subcommands(shown.cloned());
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown, "solstice", &mut script);
    String::from_utf8(script).expect("names and sentences of our own are text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_without_hidden_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            assert!(script.contains("doctor") && script.contains("config"), "{shell}");
            assert!(!script.contains("watch-instance"), "{shell}");
        }
    }
}
