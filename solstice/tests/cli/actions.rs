//! `solstice actions`.

use crate::place::place;

#[test]
fn the_actions_that_the_runner_does_itself_are_listed() {
    let place = place();
    let done = place.solstice(&["actions", "list"]);
    assert_eq!((done.stderr.as_str(), done.code), ("", 0));
    assert!(done.stdout.starts_with("ACTION "), "{}", done.stdout);
    for expected in ["actions/checkout ", "v1 to v6", "actions/cache/restore ", "cache restore"] {
        assert!(done.stdout.contains(expected), "{expected}: {}", done.stdout);
    }
    let done = place.solstice(&["actions", "list", "--json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&done.stdout).unwrap();
    let cache = rows.iter().find(|row| row["action"] == "actions/cache").unwrap();
    assert_eq!(cache["majors"], serde_json::json!([1, 2, 3, 4, 5]));
    assert_eq!(cache["origins"][0], "https://github.com");
    assert!(!done.created);
}

/// The document's table is the program's.
#[test]
fn the_document_has_the_same_table() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/actions.md");
    let document = std::fs::read_to_string(document).unwrap();
    let place = place();
    let done = place.solstice(&["actions", "list"]);
    for line in done.stdout.lines().skip(1) {
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        let row = format!("| `{}` | {} |", cells[0], cells[1]);
        assert!(document.contains(&row), "docs/actions.md lacks {row}");
    }
}
