//! The directories of a job (github-runner-protocol 7.1).

use common::guest::RunnerFacts;
use serde_json::{Map, Value as Json};

use crate::system::{Owner, System, SystemError};

use super::container::PathMap;

/// Where everything lies; all paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directories {
    /// `GITHUB_WORKSPACE`.
    pub(super) workspace: String,
    /// `RUNNER_WORKSPACE`.
    pub(super) runner_workspace: String,
    /// `RUNNER_TEMP`, empty before and after the job.
    pub(super) temp: String,
    /// `RUNNER_TOOL_CACHE`.
    pub(super) tool_cache: String,
    /// Where the files of actions lie, a directory for each.
    pub(super) actions: String,
    /// What all of the job's directories but the tool cache are in.
    pub(super) work: String,
    /// The home directory of what runs in containers, made when one is started.
    pub(super) home: String,
    /// `GITHUB_EVENT_PATH`.
    pub(super) event_path: String,
    /// The directory of the command files.
    pub(super) file_commands: String,
    /// What the names of files made for this job contain.
    job: String,
}

/// The files in which a step leaves something, by the end of their variable's name and the
/// beginning of their own.
pub(super) const COMMAND_FILES: [(&str, &str); 5] = [
    ("env", "set_env"),
    ("output", "set_output"),
    ("path", "add_path"),
    ("state", "save_state"),
    ("step_summary", "step_summary"),
];

/// The name of the workspace where the repository has none that can be a directory's.
const UNNAMED: &str = "workspace";

impl Directories {
    /// The layout below `work_directory` for a repository `owner/name`.
    pub(super) fn new(
        work_directory: &str,
        repository: &str,
        runner: &RunnerFacts,
        job: &str,
    ) -> Self {
        let work = work_directory.trim_end_matches('/');
        let name = repository.rsplit('/').next().unwrap_or_default();
        let name = match name {
            "" | "." | ".." | "_temp" | "_tool" | "_actions" => UNNAMED,
            name => name,
        };
        let temp = format!("{work}/_temp");
        let tool_cache = if runner.tool_cache.is_empty() {
            format!("{work}/_tool")
        } else {
            runner.tool_cache.clone()
        };
        Self {
            workspace: format!("{work}/{name}/{name}"),
            runner_workspace: format!("{work}/{name}"),
            actions: format!("{work}/_actions"),
            work: work.to_owned(),
            home: format!("{temp}/_github_home"),
            event_path: format!("{temp}/_github_workflow/event.json"),
            file_commands: format!("{temp}/_runner_file_commands"),
            temp,
            tool_cache,
            job: job.to_owned(),
        }
    }

    /// The same for a job that runs inside a step: only the names of its files are others.
    pub(super) fn for_job_inside(&self, number: usize) -> Self {
        Self { job: format!("{}_{number}", self.job), ..self.clone() }
    }

    /// The same as the job's container has them.
    pub(super) fn within(&self, paths: &PathMap) -> Self {
        Self {
            workspace: paths.enter(&self.workspace),
            runner_workspace: paths.enter(&self.runner_workspace),
            temp: paths.enter(&self.temp),
            tool_cache: paths.enter(&self.tool_cache),
            actions: paths.enter(&self.actions),
            work: paths.enter(&self.work),
            home: paths.enter(&self.home),
            event_path: paths.enter(&self.event_path),
            file_commands: paths.enter(&self.file_commands),
            job: self.job.clone(),
        }
    }

    /// The directory with the event.
    pub(super) fn workflow(&self) -> &str {
        self.event_path.rsplit_once('/').map_or("/", |(directory, _)| directory)
    }

    /// The file of the job's container in which a process says its number. Every container has this
    /// directory, and every user may write there.
    pub(super) fn process_number(&self, step: u32) -> String {
        format!("/dev/shm/solstice_{}_{step}", self.job)
    }

    /// The path of a command file of a step; `kind` is from [`COMMAND_FILES`].
    pub(super) fn command_file(&self, kind: &str, step: u32) -> String {
        format!("{}/{kind}_{}_{step}", self.file_commands, self.job)
    }

    /// Where a tree lies on its way into the workspace: on the same file system, as a rule.
    pub(super) fn fetched_tree(&self, step: u32) -> String {
        format!("{}/tree_{}_{step}", self.temp, self.job)
    }

    /// The path of a step's script.
    pub(super) fn script(&self, step: u32, extension: &str) -> String {
        format!("{}/{}_{step}{extension}", self.temp, self.job)
    }

    /// The absolute path of a directory that a workflow names, relative to the workspace.
    pub(super) fn in_workspace(&self, path: &str) -> String {
        if path.starts_with('/') {
            path.to_owned()
        } else if path.is_empty() || path == "." {
            self.workspace.clone()
        } else {
            format!("{}/{path}", self.workspace)
        }
    }

    /// Makes the directories, empties the temporary one, and writes the event.
    pub(super) async fn prepare(
        &self,
        system: &dyn System,
        owner: Owner,
        event: &Json,
    ) -> Result<(), SystemError> {
        self.clear_temporary(system).await?;
        for directory in [&self.workspace, &self.temp, &self.file_commands] {
            system.create_directory(directory, owner).await?;
        }
        system.create_directory(self.workflow(), owner).await?;
        let empty = Json::Object(Map::new());
        let event = if event.is_null() { &empty } else { event };
        let text = serde_json::to_vec_pretty(event).unwrap_or_default();
        system.create_file(&self.event_path, &text, 0o644, owner).await?;
        // An image may keep its tools on a file system that cannot be written; that is no reason to
        // fail a job that may never look there.
        if let Err(error) = system.create_directory(&self.tool_cache, owner).await {
            drop(error);
        }
        Ok(())
    }

    /// Removes the temporary directory with all that is in it.
    pub(super) async fn clear_temporary(&self, system: &dyn System) -> Result<(), SystemError> {
        system.remove(&self.temp).await
    }
}

/// A path inside a directory, without `.` and `..`; `None` when it would lie outside.
pub(super) fn inside(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories(repository: &str) -> Directories {
        let runner = RunnerFacts {
            os: String::new(),
            arch: String::new(),
            name: String::new(),
            tool_cache: String::new(),
        };
        Directories::new("/work/", repository, &runner, "j")
    }

    #[test]
    fn the_layout_follows_the_repository() {
        let directories = directories("owner/name");
        assert_eq!(directories.workspace, "/work/name/name");
        assert_eq!(directories.runner_workspace, "/work/name");
        assert_eq!(directories.tool_cache, "/work/_tool");
        assert_eq!(directories.in_workspace("a/b"), "/work/name/name/a/b");
        assert_eq!(directories.in_workspace("/a"), "/a");
        assert_eq!(self::directories("o/.github").runner_workspace, "/work/.github");
    }

    #[test]
    fn no_repository_name_leaves_the_work_directory() {
        for repository in ["", "owner/..", "owner/.", "owner/_temp", "owner/"] {
            assert_eq!(directories(repository).workspace, "/work/workspace/workspace");
        }
    }

    #[test]
    fn paths_outside_are_refused() {
        assert_eq!(inside("a/./b/../c").as_deref(), Some("a/c"));
        assert_eq!(inside("a/..").as_deref(), Some(""));
        assert_eq!(inside("a/../../b"), None);
    }
}
