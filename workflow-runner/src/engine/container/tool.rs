//! The container engine of a machine.

use crate::system::{Command, Facts, System};

/// The engines that are known, the preferred one first.
pub(super) const ENGINES: [Engine; 2] = [Engine::Docker, Engine::Podman];

/// The label of an image that has one, for messages.
const LABEL: &str = "debian-12-podman";

/// The registry of names that say none.
pub(super) const DEFAULT_REGISTRY: &str = "docker.io";

/// The first part of the names of images that are on this machine and nowhere else.
const LOCAL: &str = "localhost";

/// A kind of container engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// Docker, whose program talks to a daemon.
    Docker,
    /// Podman, which needs none.
    Podman,
}

impl Engine {
    /// The name of its program.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// The command that ends containers at once and removes them: podman would first wait for them
    /// to end by themselves.
    pub(super) fn remove(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &["rm", "--force"],
            Self::Podman => &["rm", "--force", "--time", "0"],
        }
    }

    /// The network of a container that names none.
    pub(super) fn default_network(self) -> &'static str {
        match self {
            Self::Docker => "bridge",
            Self::Podman => "podman",
        }
    }

    /// The name of an image as this engine needs it: podman looks in no registry that is not named,
    /// docker means its own.
    pub(super) fn image(self, name: &str) -> String {
        match (self, name.split_once('/')) {
            (Self::Docker, _) => name.to_owned(),
            (Self::Podman, Some((first, _))) if is_registry(first) => name.to_owned(),
            (Self::Podman, Some(_)) => format!("{DEFAULT_REGISTRY}/{name}"),
            (Self::Podman, None) => format!("{DEFAULT_REGISTRY}/library/{name}"),
        }
    }
}

/// Whether the first part of an image's name is a registry.
fn is_registry(first: &str) -> bool {
    first == LOCAL || first.contains(['.', ':'])
}

/// Whether a text can be the name of an image, and is no option.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && !text.contains(char::is_whitespace)
}

/// The registry of an image.
pub(super) fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if is_registry(first) => first,
        _ => DEFAULT_REGISTRY,
    }
}

/// Whether an image is on this machine or nowhere.
pub(super) fn is_local(image: &str) -> bool {
    registry(image) == LOCAL
}

/// An engine whose program was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Tool {
    pub(super) engine: Engine,
    program: String,
    environment: Vec<(String, String)>,
}

impl Tool {
    /// The engines on a search path, the preferred one first. `facts` are those of this program's own
    /// user, who drives them.
    pub(super) async fn all(search_path: &str, facts: &Facts, system: &dyn System) -> Vec<Self> {
        let mut found = Vec::new();
        for engine in ENGINES {
            let program = system.find_program(engine.program(), search_path).await;
            found.extend(program.map(|program| {
                Self {
                    engine,
                    program,
                    environment: [
                        ("PATH", search_path),
                        ("HOME", &facts.home),
                        ("USER", &facts.user),
                        ("LANG", &facts.language),
                    ]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
                }
            }));
        }
        found
    }

    /// Whether there is one on a search path, working or not.
    pub(super) async fn is_there(search_path: &str, system: &dyn System) -> bool {
        for engine in ENGINES {
            if system.find_program(engine.program(), search_path).await.is_some() {
                return true;
            }
        }
        false
    }

    /// One of its commands; `environment` comes to what it has anyway.
    pub(in crate::engine) fn command(
        &self,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Command {
        let own = self.environment.iter().cloned();
        Command {
            program: self.program.clone(),
            arguments,
            environment: own.chain(environment).collect(),
            directory: "/".to_owned(),
            // Whoever drives an engine is root in its containers anyway.
            identity: None,
        }
    }

    /// A command of the shell that gets a text on its standard input; `{}` in `arguments` cannot be.
    pub(super) fn with_input(&self, arguments: Vec<String>, input: &str) -> Command {
        /// The shell has it as a variable: neither a command line nor a file shows it.
        const INPUT: &str = "SOLSTICE_INPUT";
        let script =
            format!("printf '%s\\n' \"${INPUT}\" | {{ unset {INPUT}; exec \"$0\" \"$@\"; }}");
        let mut all = vec!["-c".to_owned(), script, self.program.clone()];
        all.extend(arguments);
        let input = vec![(INPUT.to_owned(), input.to_owned())];
        Command { program: "/bin/sh".to_owned(), ..self.command(all, input) }
    }
}

/// What a job or step is told that needs an engine where there is none; `who` needs it.
pub(in crate::engine) fn no_engine(who: &str) -> String {
    format!(
        "{who}, and this machine has neither docker nor podman; let `runs-on` name a label whose \
         image has one of them, such as {LABEL}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_are_completed_for_podman() {
        for (name, expected) in [
            ("alpine:3", "docker.io/library/alpine:3"),
            ("me/app", "docker.io/me/app"),
            ("ghcr.io/me/app:1", "ghcr.io/me/app:1"),
            ("localhost:5000/app", "localhost:5000/app"),
            ("localhost/app", "localhost/app"),
        ] {
            assert_eq!(Engine::Podman.image(name), expected);
            assert_eq!(Engine::Docker.image(name), name);
        }
    }

    #[test]
    fn the_registry_is_in_the_name() {
        assert_eq!(registry("me/app:1"), DEFAULT_REGISTRY);
        assert_eq!(registry("ghcr.io/me/app"), "ghcr.io");
        assert!(is_local("localhost/app") && !is_local("localhost:5000/app"));
    }
}
