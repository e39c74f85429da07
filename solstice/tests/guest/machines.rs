//! Kept machines, shells and copies.

use simulators::ScriptedHost;

use crate::harness::{empty, steps};

#[test]
fn a_failed_machine_is_kept_for_its_user() {
    let ended = steps("- run: echo precious > /root/evidence; exit 1")
        .with(&["--keep"])
        .run()
        .code(1)
        .shows(", steps ");
    let name = ended
        .text
        .split("solstice shell ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or_else(|| panic!("no shell command in:\n{}", ended.text))
        .trim_matches(['`', '\''])
        .to_owned();
    let copy = ended.story.repository().join("copy");
    let source = format!("{name}:/root/evidence");
    let (code, _, error) = ended.story.solstice(&["cp", &source, copy.to_str().unwrap()]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), "precious\n");
    let target = format!("{name}:/root/returned");
    let (code, _, error) = ended.story.solstice(&["cp", copy.to_str().unwrap(), &target]);
    assert_eq!(code, 0, "{error}");
    // A shell without a terminal takes its commands from standard input and passes its end on.
    let (code, said, error) =
        ended.story.solstice_with_input(&["shell", &name], "cat /root/returned; exit 7\n");
    assert_eq!((code, said.as_str()), (7, "precious\n"), "{error}");
    // Directories need -r, and keep what is in them.
    let tree = ended.story.repository().join("tree");
    std::fs::create_dir_all(tree.join("a/empty")).unwrap();
    std::fs::write(tree.join("a/file"), "deep\n").unwrap();
    std::os::unix::fs::symlink("file", tree.join("a/link")).unwrap();
    let target = format!("{name}:/root");
    let (code, _, error) = ended.story.solstice(&["cp", "tree", &target]);
    assert!(code == 64 && error.contains("copy it with -r"), "{error}");
    let (code, _, error) = ended.story.solstice(&["cp", "-r", "tree", &target]);
    assert_eq!(code, 0, "{error}");
    let source = format!("{name}:/root/tree/a");
    let (code, _, error) = ended.story.solstice(&["cp", &source, "back"]);
    assert!(code == 64 && error.contains("copy it with -r"), "{error}");
    let (code, _, error) = ended.story.solstice(&["cp", "-r", &source, "back"]);
    assert_eq!(code, 0, "{error}");
    let back = ended.story.repository().join("back");
    assert_eq!(std::fs::read_to_string(back.join("link")).unwrap(), "deep\n");
    assert!(back.join("empty").is_dir());
    let (code, _, error) = ended.story.solstice(&["cp", "-r", &source, "back"]);
    assert_eq!(code, 0, "it goes below a directory that is there: {error}");
    let (code, _, error) = ended.story.solstice(&["cp", "-r", &source, "back"]);
    assert!(code == 64 && error.contains("is there already"), "{error}");
    assert!(back.join("a/file").exists());
    // A wrong path is the user's mistake.
    let (code, _, error) =
        ended.story.solstice(&["cp", &format!("{name}:/root/none"), copy.to_str().unwrap()]);
    assert_eq!(code, 64, "{error}");
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), "precious\n");
    let (code, _, error) = ended.story.solstice(&["rm", &name]);
    assert_eq!(code, 0, "{error}");
}

/// No real server does this on request.
#[test]
fn a_shell_whose_exit_status_is_missing_has_not_succeeded() {
    let mut story = empty();
    let directory = story.state().with_file_name("scripted");
    std::fs::create_dir(&directory).unwrap();
    for (name, value) in ScriptedHost::new(&directory).unwrap().environment() {
        story = story.env(name, value.to_str().unwrap());
    }
    let shell = |input| story.solstice_with_input(&["shell", ScriptedHost::LABEL], input);
    let (code, said, error) = shell("echo here\nvanish\n");
    assert_eq!((code, said.as_str()), (2, "here\n"), "{error}");
    assert!(error.contains("the guest closed the shell without an exit status"), "{error}");
    let (code, said, error) = shell("echo here\nexit 3\n");
    assert_eq!((code, said.as_str()), (3, "here\n"), "{error}");
}
