//! Machines that start from a template, and what happens when there is none.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::harness::{Story, steps, workflow};

const MAKING: &str = "Making a template";
const CLONE: &str = ", from its template";
const BOOTS: &str = "so the machine boots";

/// One step on the tiny image, with templates.
fn warm(step: &str) -> Story {
    let story = steps(&format!("- run: {step}"));
    let templates = story.state().join("templates");
    // What was said over the serial port stands in the story of a test that fails.
    let story = story.env("SOLSTICE_LOG", "vm_manager=trace");
    story.env("SOLSTICE_TEMPLATE_DIR", templates.to_str().unwrap())
}

/// The files of the only template.
fn template(story: &Story) -> PathBuf {
    let ready = story.state().join("templates/ready");
    let mut found: Vec<PathBuf> =
        fs::read_dir(ready).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn the_first_job_makes_a_template_and_all_others_start_from_it() {
    let first = warm("echo on $(hostname)").run().code(0).shows(MAKING).shows(CLONE);
    let second = first.story.run().code(0).hides(MAKING).shows(CLONE).hides(BOOTS);
    let template_of_one = template(&second.story);
    // Another shape has another one.
    let third = second.story.with(&["--cpus", "2"]).run().code(0).shows(MAKING);
    let count = fs::read_dir(template_of_one.parent().unwrap()).unwrap().count();
    assert_eq!(count, 2);
    let (code, _, said) = third.story.solstice(&["image", "warm", "tiny"]);
    assert!(code == 0 && said.contains("the template of the image tiny is here"), "{said}");
    assert!(!said.contains(MAKING), "{said}");
    let (code, listed, said) = third.story.solstice(&["image", "list", "--json"]);
    assert!(code == 0 && listed.matches("\"made\"").count() == 2, "{listed} {said}");
}

/// A label like the tiny image with something in place before its jobs come.
fn prepared(script: &str) -> Story {
    let text = "on: push\njobs:\n  job:\n    runs-on: ready\n    steps:\n      \
                - run: cat /etc/prepared /dev/shm/warm; hostname\n";
    let catalogue = format!("[ready]\nlike = \"tiny\"\nprepare = {{ script = {script:?} }}\n");
    let story = workflow(text).file("catalogue.toml", &catalogue);
    let templates = story.state().join("templates");
    let path = story.repository().join("catalogue.toml");
    story
        .env("SOLSTICE_CATALOGUE", path.to_str().unwrap())
        .env("SOLSTICE_TEMPLATE_DIR", templates.to_str().unwrap())
}

const PREPARE: &str = "echo on the disk >/etc/prepared; echo in memory >/dev/shm/warm";

#[test]
fn a_label_is_prepared_once_and_its_jobs_find_everything() {
    let first = prepared(PREPARE).run().code(0).shows(MAKING).shows("Preparing a template");
    let first = first.shows("on the disk").shows("in memory").shows(CLONE);
    let ready = first.story.state().join("templates/ready");
    assert_eq!(fs::read_dir(&ready).unwrap().count(), 2, "that of the image, and the prepared one");
    // It does without the template that it went on from.
    for template in fs::read_dir(&ready).unwrap().map(|entry| entry.unwrap().path()) {
        if !template.join("base.qcow2").exists() {
            fs::remove_dir_all(template).unwrap();
        }
    }
    let second = first.story.run().code(0).shows("in memory").shows(CLONE).hides(MAKING);
    assert_eq!(fs::read_dir(&ready).unwrap().count(), 1);
    drop(second.hides("Preparing"));
}

#[test]
fn without_templates_each_machine_is_prepared() {
    let story = prepared(PREPARE).env("SOLSTICE_TEMPLATE_QUOTA", "0");
    story.run().code(0).shows("Preparing the machine").shows("in memory");
    let story = prepared("echo no such package >&2; exit 7").env("SOLSTICE_TEMPLATE_QUOTA", "0");
    story.run().code(2).shows("SOL-PREPARE").shows("no such package").shows("exit status 7");
}

#[test]
fn a_qemu_that_cannot_restore_boots() {
    // As one that is older refuses what it does not know.
    let old = "#!/bin/sh\nfor word; do case $word in *'\"rom\"'*)\n\
               echo \"qemu-system-x86_64: -object: Parameter 'rom' is unexpected\" >&2; exit 1;;\n\
               esac; done\nexec /usr/bin/qemu-system-x86_64 \"$@\"\n";
    let story = warm("echo fine").file("old-qemu", old);
    let qemu = story.repository().join("old-qemu");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&qemu, executable).unwrap();
    let story = story.env("SOLSTICE_QEMU", qemu.to_str().unwrap());
    let boots = story.run().code(0).shows(MAKING).shows(BOOTS).shows("'rom' is unexpected");
    let boots = boots.shows("fine").hides(CLONE);
    // It is not tried again for each job.
    drop(boots.story.run().code(0).hides(MAKING).shows("a short while ago").shows("fine"));
}

#[test]
fn a_template_that_cannot_be_restored_is_made_again_and_no_job_fails() {
    let made = warm("echo fine").run().code(0).shows(MAKING).shows(CLONE).hides(BOOTS);
    let device = template(&made.story).join("device");
    fs::remove_file(&device).unwrap();
    let again = made.story.run().code(0).shows(MAKING).shows(CLONE);
    // The length alone does not tell.
    let device = template(&again.story).join("device");
    let length = usize::try_from(fs::metadata(&device).unwrap().len()).unwrap();
    fs::remove_file(&device).unwrap();
    fs::write(&device, vec![0x5a; length]).unwrap();
    let broken = again.story.run().code(0).shows(BOOTS).hides(MAKING).shows("fine");
    broken.story.run().code(0).shows(MAKING).shows(CLONE);
}

#[test]
fn a_host_that_cannot_keep_a_template_boots() {
    // The guest's memory does not fit into a file.
    let boots = warm("echo fine").through(&["prlimit", "--fsize=100000000"]);
    let ended = boots.run().code(0).shows(BOOTS).hides(CLONE).shows("fine");
    let partial = ended.story.state().join("templates/partial");
    assert_eq!(fs::read_dir(partial).unwrap().count(), 0);
}

#[test]
fn a_maker_that_is_killed_leaves_nothing_half_made() {
    let mut live = warm("echo fine").start();
    live.wait_for(MAKING);
    live.wait_until_machine();
    live.signal(Signal::SIGKILL).wait_until_gone();
    let killed = live.end();
    let ready = killed.story.state().join("templates/ready");
    assert_eq!(fs::read_dir(ready).unwrap().count(), 0);
    let again = killed.story.run().code(0).shows(MAKING).shows(CLONE);
    let partial = again.story.state().join("templates/partial");
    assert_eq!(fs::read_dir(partial).unwrap().count(), 0, "what the dead left is removed");
}
