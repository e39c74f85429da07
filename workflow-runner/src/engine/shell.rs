//! Which program runs a script, and how (github-runner-protocol 7.5, forgejo-runner-protocol 8.5).

use crate::system::System;

use super::dialect::DialectRules;

/// The place of the script's path in a command line.
const SCRIPT: &str = "{0}";

/// A shell that was found on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shell {
    /// The absolute path of its program.
    pub(super) program: String,
    /// Its arguments, with `{0}` where the script's path goes.
    arguments: Vec<String>,
    /// The end of the script's file name.
    pub(super) extension: &'static str,
    wrap: Wrap,
}

/// What is put around a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrap {
    Nothing,
    /// Errors end the script, and the exit code of its last program is its own.
    PowerShell,
}

/// A shell that has a name.
struct Known {
    name: &'static str,
    /// Programs of that name, the first one that exists is taken.
    programs: &'static [&'static str],
    arguments: &'static [&'static str],
    extension: &'static str,
    wrap: Wrap,
}

const KNOWN: &[Known] = &[
    Known {
        name: "bash",
        programs: &["bash"],
        arguments: &["--noprofile", "--norc", "-e", "-o", "pipefail", SCRIPT],
        extension: ".sh",
        wrap: Wrap::Nothing,
    },
    Known {
        name: "sh",
        programs: &["sh"],
        arguments: &["-e", SCRIPT],
        extension: ".sh",
        wrap: Wrap::Nothing,
    },
    Known {
        name: "pwsh",
        programs: &["pwsh"],
        arguments: &["-command", ". '{0}'"],
        extension: ".ps1",
        wrap: Wrap::PowerShell,
    },
    Known {
        name: "powershell",
        programs: &["powershell", "pwsh"],
        arguments: &["-command", ". '{0}'"],
        extension: ".ps1",
        wrap: Wrap::PowerShell,
    },
    // Many systems have Python 3 under its longer name only.
    Known {
        name: "python",
        programs: &["python", "python3"],
        arguments: &[SCRIPT],
        extension: ".py",
        wrap: Wrap::Nothing,
    },
    // Forgejo has it by name; on GitHub the name alone would be refused, which helps nobody.
    Known {
        name: "node",
        programs: &["node"],
        arguments: &[SCRIPT],
        extension: ".js",
        wrap: Wrap::Nothing,
    },
];

/// Why a step has no shell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ShellError {
    /// The program does not exist.
    #[error(
        "the shell \"{shell}\" of step \"{step}\" is not on this machine: no program \"{program}\" \
         on the PATH; install it in an earlier step, choose an image that has it, or write \
         \"shell: sh\""
    )]
    Missing {
        /// As the workflow names it.
        shell: String,
        /// The step's name.
        step: String,
        /// What was looked for.
        program: String,
    },
    /// It is for Windows.
    #[error(
        "step \"{step}\" asks for the shell \"cmd\", which exists on Windows only; write \"shell: \
         sh\" or \"shell: pwsh\""
    )]
    Cmd {
        /// The step's name.
        step: String,
    },
    /// A command line without a place for the script.
    #[error(
        "the shell \"{shell}\" of step \"{step}\" is not one of bash, sh, pwsh, powershell, python \
         and node, so it must be a command line with {{0}} in the place of the script's path, such \
         as \"perl {{0}}\""
    )]
    NoPlace {
        /// As the workflow names it.
        shell: String,
        /// The step's name.
        step: String,
    },
}

/// Where the programs of a step are.
#[derive(Clone, Copy)]
pub(super) enum Programs<'a> {
    /// On the machine, in the directories of this search path.
    Machine(&'a str, &'a dyn System),
    /// In a container that has a shell, and bash or not. What else it lacks is found missing when it
    /// is to run.
    Container {
        /// Whether bash is the default shell.
        has_bash: bool,
    },
}

impl Programs<'_> {
    async fn find(self, name: &str) -> Option<String> {
        match self {
            Self::Machine(search_path, system) => system.find_program(name, search_path).await,
            Self::Container { .. } => Some(name.to_owned()),
        }
    }

    /// The default shells to look for, the first first.
    fn defaults(self) -> &'static [&'static str] {
        match self {
            Self::Machine(..) | Self::Container { has_bash: true } => &["bash", "sh"],
            Self::Container { has_bash: false } => &["sh"],
        }
    }
}

/// Finds the shell that a step asks for; an empty name means the default.
pub(super) async fn find(
    name: &str,
    step: &str,
    programs: Programs<'_>,
    rules: &DialectRules,
) -> Result<Shell, ShellError> {
    let words = split_words(name);
    let Some((command, arguments)) = words.split_first() else {
        return find_default(step, programs, rules).await;
    };
    if command.eq_ignore_ascii_case("cmd") {
        return Err(ShellError::Cmd { step: step.to_owned() });
    }
    let known = KNOWN.iter().find(|known| known.name == command);
    let names = known.map_or(&[][..], |known| known.programs);
    let arguments = match known {
        Some(known) if arguments.is_empty() => strings(known.arguments),
        _ => arguments.to_vec(),
    };
    if !arguments.iter().any(|argument| argument.contains(SCRIPT)) {
        return Err(ShellError::NoPlace { shell: name.to_owned(), step: step.to_owned() });
    }
    let candidates = std::iter::once(command.as_str()).chain(names.iter().copied());
    for program in candidates {
        if let Some(program) = programs.find(program).await {
            return Ok(Shell {
                program,
                arguments,
                extension: known.map_or("", |known| known.extension),
                wrap: known.map_or(Wrap::Nothing, |known| known.wrap),
            });
        }
    }
    Err(ShellError::Missing {
        shell: name.to_owned(),
        step: step.to_owned(),
        program: command.clone(),
    })
}

async fn find_default(
    step: &str,
    programs: Programs<'_>,
    rules: &DialectRules,
) -> Result<Shell, ShellError> {
    for &name in programs.defaults() {
        if let Some(program) = programs.find(name).await {
            let mut arguments =
                strings(if name == "bash" { rules.default_bash } else { &["-e"][..] });
            arguments.push(SCRIPT.to_owned());
            return Ok(Shell { program, arguments, extension: ".sh", wrap: Wrap::Nothing });
        }
    }
    Err(ShellError::Missing {
        shell: "sh".to_owned(),
        step: step.to_owned(),
        program: "sh".to_owned(),
    })
}

impl Shell {
    /// The arguments for a script at this path.
    pub(super) fn arguments(&self, script: &str) -> Vec<String> {
        self.arguments.iter().map(|argument| argument.replace(SCRIPT, script)).collect()
    }

    /// The command line as the log shows it.
    pub(super) fn shown(&self) -> String {
        let mut shown = self.program.clone();
        for argument in &self.arguments {
            shown.push(' ');
            shown.push_str(argument);
        }
        shown
    }

    /// The script as it stands in its file.
    pub(super) fn file_text(&self, script: &str) -> String {
        match self.wrap {
            Wrap::Nothing => script.to_owned(),
            Wrap::PowerShell => format!(
                "$ErrorActionPreference = 'stop'\n{script}\nif (Test-Path -LiteralPath \
                 variable:LASTEXITCODE) {{ exit $LASTEXITCODE }}\n"
            ),
        }
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Words between spaces; quotes hold a word together.
fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in text.chars() {
        match (quote, character) {
            (Some(open), character) if character == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, character) if character.is_whitespace() => words.extend(word.take()),
            (_, character) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use common::plan::Dialect;

    use super::*;
    use crate::system::Local;

    /// Looks for a shell on a machine that has just these programs.
    async fn look(name: &str, programs: &[&str], dialect: Dialect) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        for program in programs {
            let path = directory.path().join(program);
            std::fs::write(&path, "").unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).unwrap();
        }
        let search_path = directory.path().to_str().unwrap();
        let rules = DialectRules::of(dialect);
        match find(name, "Build", Programs::Machine(search_path, &Local::new()), rules).await {
            Ok(shell) => Ok(shell.shown().replace(&format!("{search_path}/"), "")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[tokio::test]
    async fn shells_are_found_with_their_arguments() {
        use Dialect::{Forgejo, Github};
        let strict = "bash --noprofile --norc -e -o pipefail {0}";
        for (name, programs, dialect, expected) in [
            ("", &["bash", "sh"][..], Github, "bash -e {0}"),
            ("", &["bash", "sh"], Forgejo, strict),
            ("", &["sh"], Github, "sh -e {0}"),
            ("", &["sh"], Forgejo, "sh -e {0}"),
            ("bash", &["bash"], Github, strict),
            ("sh", &["sh"], Forgejo, "sh -e {0}"),
            ("pwsh", &["pwsh"], Github, "pwsh -command . '{0}'"),
            ("python", &["python3"], Github, "python3 {0}"),
            ("node", &["node"], Github, "node {0}"),
            ("perl -w {0}", &["perl"], Github, "perl -w {0}"),
            ("bash -x {0}", &["bash"], Github, "bash -x {0}"),
        ] {
            assert_eq!(look(name, programs, dialect).await.as_deref(), Ok(expected), "{name}");
        }
    }

    #[tokio::test]
    async fn a_container_has_its_own_default_and_is_not_searched() {
        let look = async |name: &str, has_bash| {
            let rules = DialectRules::of(Dialect::Forgejo);
            find(name, "Build", Programs::Container { has_bash }, rules).await.unwrap().shown()
        };
        assert_eq!(look("", false).await, "sh -e {0}");
        assert_eq!(look("", true).await, "bash --noprofile --norc -e -o pipefail {0}");
        assert_eq!(look("bash -x {0}", false).await, "bash -x {0}");
        assert_eq!(look("python", false).await, "python {0}");
    }

    #[tokio::test]
    async fn what_is_missing_is_named_with_a_cure() {
        let error = look("bash", &["sh"], Dialect::Github).await.unwrap_err();
        assert!(error.contains("\"bash\" of step \"Build\""), "{error}");
        assert!(error.contains("shell: sh"), "{error}");
        let error = look("cmd", &["cmd"], Dialect::Github).await.unwrap_err();
        assert!(error.contains("Windows only"), "{error}");
        let error = look("perl", &["perl"], Dialect::Github).await.unwrap_err();
        assert!(error.contains("{0}"), "{error}");
    }

    #[test]
    fn words_are_held_together_by_quotes() {
        assert_eq!(split_words(" a  'b c'\"d\" '' "), ["a", "b cd", ""]);
    }

    #[test]
    fn powershell_scripts_are_wrapped() {
        let shell = Shell {
            program: "/bin/pwsh".to_owned(),
            arguments: vec![". '{0}'".to_owned()],
            extension: ".ps1",
            wrap: Wrap::PowerShell,
        };
        assert_eq!(shell.arguments("/t/s.ps1"), [". '/t/s.ps1'"]);
        let text = shell.file_text("Get-Date");
        assert!(text.starts_with("$ErrorActionPreference = 'stop'\nGet-Date\n"), "{text}");
    }
}
