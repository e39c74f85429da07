//! Machines of failed jobs that are frozen to files, and go on later.

use std::fs;
use std::path::Path;

use crate::harness::{Ended, Story, steps};

/// In the guest's memory, on its disk, and in no file of the host that can be read.
const CANARY: &str = "canary-5e1f0c3b9d";

/// A job that leaves a process behind, and fails.
fn failing() -> Story {
    steps(&format!(
        "- run: |\n    echo {CANARY} | tee /root/canary >/dev/shm/canary; sync\n    \
         setsid sh -c 'echo $$ >/dev/shm/pid; while :; do sleep 1; done' >/dev/null 2>&1 &\n    \
         while [ ! -s /dev/shm/pid ]; do :; done; exit 1"
    ))
}

/// The name behind a command that the user was shown.
fn name(ended: &Ended, command: &str) -> String {
    let rest = ended.text.split(&format!("solstice {command} ")).nth(1);
    let name = rest.and_then(|rest| rest.split_whitespace().next());
    name.unwrap_or_else(|| panic!("no `solstice {command}` in:\n{}", ended.text)).to_owned()
}

/// Runs a command of the program that must succeed; gives what it printed.
fn done(story: &Story, arguments: &[&str]) -> String {
    let (code, said, error) = story.solstice(arguments);
    assert_eq!(code, 0, "{arguments:?}: {error}");
    said
}

/// Whether the machine of that name has the process and the files of the job.
fn goes_on(story: &Story, name: &str) {
    let look = "kill -0 $(cat /dev/shm/pid) && cat /dev/shm/canary /root/canary\n";
    let (code, said, error) = story.solstice_with_input(&["shell", name], look);
    assert_eq!((code, said), (0, format!("{CANARY}\n{CANARY}\n")), "{error}");
}

/// The files below a directory, with their bytes.
fn read_all(directory: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { read_all(&path, found) } else { found.push(fs::read(path).unwrap()) }
    }
}

fn hides_canary(story: &Story) {
    let mut files = Vec::new();
    read_all(&story.state().join("frozen"), &mut files);
    assert!(files.iter().map(Vec::len).sum::<usize>() > 1 << 20, "the guest's memory is there");
    let has = |file: &Vec<u8>| file.windows(CANARY.len()).any(|part| part == CANARY.as_bytes());
    assert!(!files.iter().any(has));
}

#[test]
fn a_failed_job_is_frozen_and_its_processes_go_on_when_it_thaws() {
    let ended = failing().with(&["--keep=frozen"]).run().code(1).shows("is frozen until");
    let name = name(&ended, "thaw");
    let story = ended.story;
    story.wait_until_no_machine();
    hides_canary(&story);
    let listed = done(&story, &["frozen", "--json"]);
    assert!(listed.contains(&name) && listed.contains("tiny"), "{listed}");

    done(&story, &["thaw"]);
    goes_on(&story, &name);
    assert!(!done(&story, &["frozen"]).contains(&name));

    // Once more, by hand.
    done(&story, &["freeze", &name]);
    story.wait_until_no_machine();
    hides_canary(&story);
    let (code, _, error) = story.solstice(&["shell", &name]);
    assert!(code == 64 && error.contains("no machine is kept"), "{error}");
    done(&story, &["thaw", &name]);
    goes_on(&story, &name);
    done(&story, &["rm", &name]);
}

#[test]
fn a_machine_that_booted_is_frozen_and_a_changed_file_is_refused() {
    let booted = failing().env("SOLSTICE_TEMPLATE_QUOTA", "0").with(&["--keep"]);
    let ended = booted.run().code(1);
    let name = name(&ended, "shell");
    let story = ended.story;
    let (code, _, error) = story.solstice(&["thaw", &name]);
    assert!(code == 64 && error.contains("none is frozen"), "{error}");
    done(&story, &["freeze"]);
    story.wait_until_no_machine();
    hides_canary(&story);

    let guest = story.state().join("frozen").join(&name).join("guest");
    let whole = fs::read(&guest).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    fs::write(&guest, changed).unwrap();
    let (code, _, error) = story.solstice(&["thaw", &name]);
    assert!(code == 2 && error.contains("was changed"), "{error}");
    story.wait_until_no_machine();
    fs::write(&guest, whole).unwrap();
    done(&story, &["thaw", &name]);
    goes_on(&story, &name);
    done(&story, &["freeze", &name]);
    story.wait_until_no_machine();
    // A frozen machine is removed as a running one.
    done(&story, &["rm", &name]);
    assert_eq!(done(&story, &["frozen", "--json"]).trim(), "[]");
}

#[test]
fn a_service_freezes_the_machines_of_failed_jobs() {
    let story = failing().env("SOLSTICE_FREEZE_FAILED", "1h");
    let service = story.serve();
    let ended = story.start().end().code(1).shows("is frozen until");
    let name = name(&ended, "thaw");
    let story = ended.story;
    story.wait_until_no_machine();
    hides_canary(&story);
    service.stop();
    done(&story, &["thaw", &name]);
    goes_on(&story, &name);
    done(&story, &["rm", &name]);
}
