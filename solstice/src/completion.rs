//! `solstice completion`: a script that a shell reads.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::{CommandError, Exit};

/// Prints the script.
///
/// # Errors
/// Standard output cannot be written, other than because nobody reads it any more.
pub(crate) fn print(shell: Shell) -> Result<Exit, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "solstice", &mut script);
    match io::stdout().write_all(&script) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CommandError::infrastructure(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(Exit::Passed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_without_hidden_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "solstice", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("doctor"), "{shell}");
        }
    }
}
