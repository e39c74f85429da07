//! The lines at the beginning of a step's log (github-runner-protocol 6.6).

use common::Timestamp;

use super::events::Events;
use super::variables::Variables;

/// The cyan in which a script is shown, and its end.
const CYAN: (&str, &str) = ("\x1b[36;1m", "\x1b[0m");

/// Characters of a name that is made from a script's first line.
const NAME_CHARACTERS: usize = 120;

/// The name of a step that its author did not name.
pub(super) fn run_name(what: &str) -> String {
    let first = what.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let mut name = format!("Run {first}");
    if let Some((end, _)) = name.char_indices().nth(NAME_CHARACTERS) {
        name.truncate(end);
        name.push_str("...");
    }
    name
}

/// What a step is about to do.
pub(super) enum Header<'a> {
    /// A script with its shell's command line.
    Script {
        /// The script.
        script: &'a str,
        /// The command line.
        shell: &'a str,
    },
    /// An action with its inputs.
    Action {
        /// The reference as written.
        reference: &'a str,
        /// The inputs.
        with: &'a [(String, String)],
    },
}

/// Writes the group that says what a step does, with the variables that the workflow set.
pub(super) async fn write(
    header: Header<'_>,
    env: &Variables,
    time: Timestamp,
    events: &mut Events,
) {
    match header {
        Header::Script { script, shell } => {
            events.say(time, &format!("##[group]{}", run_name(script))).await;
            for line in script.lines() {
                events.say(time, &format!("{}{line}{}", CYAN.0, CYAN.1)).await;
            }
            events.say(time, &format!("shell: {shell}")).await;
        }
        Header::Action { reference, with } => {
            events.say(time, &format!("##[group]{}", run_name(reference))).await;
            if !with.is_empty() {
                events.say(time, "with:").await;
                for (name, value) in with {
                    events.say(time, &format!("  {name}: {value}")).await;
                }
            }
        }
    }
    if !env.is_empty() {
        events.say(time, "env:").await;
        for (name, value) in env.iter() {
            events.say(time, &format!("  {name}: {value}")).await;
        }
    }
    events.say(time, "##[endgroup]").await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_first_line_that_says_something() {
        assert_eq!(run_name("\n  make test \nmake install"), "Run make test");
        assert_eq!(run_name(&"é".repeat(500)).chars().count(), NAME_CHARACTERS + 3);
        assert_eq!(run_name(""), "Run ");
    }
}
