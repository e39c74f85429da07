//! docs/errors.md has a section for every cause, and no other.

use common::infrastructure::Cause;

#[test]
fn every_cause_is_on_the_page() {
    let page = include_str!("../../docs/errors.md");
    let headings: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let codes: Vec<&str> = Cause::ALL.iter().map(|cause| cause.code()).collect();
    assert_eq!(headings, codes);
    for cause in Cause::ALL {
        let cure = format!("What to do: {}.", cause.cure());
        assert!(page.contains(&cure), "{} has another cure on the page", cause.code());
        let section = page.split(&format!("## {}\n", cause.code())).nth(1).unwrap();
        let tried = if cause.is_transient() { "Tried again: yes." } else { "Tried again: no." };
        assert!(section.split("\n## ").next().unwrap().contains(tried), "{}", cause.code());
    }
}
