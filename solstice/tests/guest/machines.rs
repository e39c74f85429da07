//! Kept machines, shells and copies.

use crate::harness::steps;

#[test]
fn a_failed_machine_is_kept_for_its_user() {
    let ended =
        steps("- run: echo precious > /root/evidence; exit 1").with(&["--keep"]).run().code(1);
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
    // A wrong path is the user's mistake.
    let (code, _, error) =
        ended.story.solstice(&["cp", &format!("{name}:/root/none"), copy.to_str().unwrap()]);
    assert_eq!(code, 64, "{error}");
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), "precious\n");
    let (code, _, error) = ended.story.solstice(&["rm", &name]);
    assert_eq!(code, 0, "{error}");
}
