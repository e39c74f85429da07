//! Containers of jobs and actions, with an engine that acts on this machine.

mod actions;
mod job;
mod reach;
mod services;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::story::{JobBuilder, Story, job};
use crate::workflow;

/// The program of that engine.
const PROGRAM: &str = include_str!("containers/engine.sh");

/// The programs that containers have.
const INSIDE: [&str; 12] = [
    "echo", "sh", "bash", "dash", "cat", "env", "grep", "mkdir", "basename", "sleep", "tr", "touch",
];

/// A directory with an engine and what it notes.
struct Engine {
    directory: TempDir,
}

impl Engine {
    /// An engine with this program.
    fn new(program: &str) -> Self {
        let engine = Self { directory: tempfile::tempdir().unwrap() };
        engine.add(program);
        let bin = engine.directory.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for name in INSIDE {
            let found = ["/usr/bin", "/bin"].map(|directory| format!("{directory}/{name}"));
            let found = found.iter().find(|path| fs::metadata(path).is_ok()).expect(name);
            std::os::unix::fs::symlink(found, bin.join(name)).unwrap();
        }
        engine
    }

    /// Where the machine has its programs.
    fn search_path(&self) -> String {
        format!("{}:/usr/bin:/bin", self.directory.path().display())
    }

    /// Adds a program of this name, which acts the same.
    fn add(&self, program: &str) {
        self.write(program, PROGRAM);
        let path = self.directory.path().join(program);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Writes a file that the engine looks at.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).unwrap();
    }

    /// Reads a file that the engine wrote; empty where there is none.
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    /// A job on a machine that has this engine, with `container` and `services` of this YAML.
    fn job(&self, containers: &str) -> JobBuilder {
        job().search_path(&self.search_path()).containers(read(containers))
    }

    /// How the engine was called, without what differs from run to run.
    fn calls(&self, story: &Story) -> Vec<String> {
        let work = story.path("work").to_str().unwrap().to_owned();
        let id = story.job.short();
        let long = story.job.to_string();
        let calls = self.read("calls").replace(&work, "WORK").replace(&long, "JOB");
        calls.replace(&id, "ID").lines().map(str::to_owned).collect()
    }

    /// The calls that begin with these words behind the program's name.
    fn calls_of(&self, story: &Story, words: &str) -> Vec<String> {
        let mut calls = self.calls(story);
        calls.retain(|call| call.split_once(' ').is_some_and(|(_, call)| call.starts_with(words)));
        calls
    }

    /// The first words of all calls.
    fn commands(&self, story: &Story) -> Vec<String> {
        let first = |call: &String| call.split(' ').nth(1).unwrap_or_default().to_owned();
        self.calls(story).iter().map(first).collect()
    }

    /// Everything that was made is gone.
    fn assert_clean(&self) {
        assert_eq!((self.read("containers"), self.read("network")), (String::new(), String::new()));
    }
}

/// The containers of a job in YAML.
fn read(containers: &str) -> common::plan::Containers {
    let lines: String = containers.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!("on: push\njobs:\n  a:\n    runs-on: x\n{lines}    steps: [run: x]\n");
    let parsed = workflow::parse(&text, "ci.yml").unwrap_or_else(|error| panic!("{error}"));
    parsed.workflow.jobs[0].on_machine().unwrap().containers.clone()
}
