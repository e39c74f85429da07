//! The command line of a container, and what of a step's environment goes into it.

use crate::engine::variables::Variables;

use super::paths::PathMap;
use super::reach::ServicePlaces;

/// What the program of an engine reads itself, so that it stands in the command line in place of the
/// environment. None of it is a secret.
const OF_THE_PROGRAM: [&str; 19] = [
    "PATH",
    "HOME",
    "USER",
    "TMPDIR",
    "LANG",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "DOCKER_API_VERSION",
    "CONTAINER_HOST",
    "CONTAINERS_CONF",
    "REGISTRY_AUTH_FILE",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
];

/// What every process on the machine has and no container wants: it has its own.
const OF_THE_MACHINE: [&str; 5] = ["PATH", "HOME", "USER", "LOGNAME", "LANG"];

/// The arguments of a command of the engine, with the variables that it hands on.
#[derive(Debug, Default)]
pub(in crate::engine) struct Arguments {
    words: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Arguments {
    /// Adds words.
    pub(in crate::engine) fn words<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        self.words.extend(words.into_iter().map(str::to_owned));
    }

    /// Sets a variable of the container: the program takes it from its own environment, where it
    /// can.
    pub(in crate::engine) fn variable(&mut self, name: &str, value: &str) {
        // Neither could be told apart from something else.
        if name.is_empty() || name.contains(['=', '*']) {
            return;
        }
        self.words.push("--env".to_owned());
        if OF_THE_PROGRAM.contains(&name) {
            self.words.push(format!("{name}={value}"));
        } else {
            self.words.push(name.to_owned());
            self.environment.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Places the directories of the machine in the container.
    pub(in crate::engine) fn mounts(&mut self, paths: &PathMap) {
        for (here, there) in paths.iter() {
            self.words.extend(["--volume".to_owned(), format!("{here}:{there}")]);
        }
    }

    /// The words, and what comes to the environment of the program.
    pub(in crate::engine) fn take(self) -> (Vec<String>, Vec<(String, String)>) {
        (self.words, self.environment)
    }
}

/// What of the environment of a step goes into a container: all but what the machine's processes have
/// by themselves, unless the workflow set it. Paths, and addresses of the job's services, become those of
/// the container; an address that leads nowhere from there is left out.
pub(in crate::engine) fn of_workflow<'a>(
    environment: &'a [(String, String)],
    set: &'a Variables,
    paths: &'a PathMap,
    services: ServicePlaces<'a>,
) -> impl Iterator<Item = (&'a str, String)> {
    let is_wanted = |(name, _): &&(String, String)| {
        !OF_THE_MACHINE.contains(&name.as_str()) || set.get(name).is_some()
    };
    environment
        .iter()
        .filter(is_wanted)
        .filter_map(move |(name, value)| Some((name.as_str(), services.enter(paths.enter(value))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_stands_in_the_command_line_but_those_of_the_program() {
        let mut arguments = Arguments::default();
        for (name, value) in [("TOKEN", "secret"), ("PATH", "/bin"), ("A=B", "x"), ("", "x")] {
            arguments.variable(name, value);
        }
        let (words, environment) = arguments.take();
        assert_eq!(words, ["--env", "TOKEN", "--env", "PATH=/bin"]);
        assert_eq!(environment, [("TOKEN".to_owned(), "secret".to_owned())]);
    }

    #[test]
    fn the_machines_own_variables_stay_there() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = [
            pair("PATH", "/bin"),
            pair("HOME", "/root"),
            pair("FILE", "/work/a"),
            pair("LANG", "C"),
        ];
        let mut set = Variables::default();
        set.set("LANG", "C");
        let paths = PathMap::new([("/work", "/__w")]);
        let kept: Vec<_> =
            of_workflow(&environment, &set, &paths, ServicePlaces::default()).collect();
        assert_eq!(kept, [("FILE", "/__w/a".to_owned()), ("LANG", "C".to_owned())]);
    }
}
