//! docs/actions.md says of each feature what checks it; what it names is there, and nothing is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::case;

/// What the last column of a row names.
fn names(row: &str) -> Vec<String> {
    let cell = row.trim().trim_matches('|').rsplit('|').next().unwrap();
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_row_names_what_checks_it_and_every_case_is_named() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/actions.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let rows = rows.filter(|row| !row.ends_with("| Checked by |") && !row.starts_with("| ---"));
    let cases: BTreeSet<String> = case::all().into_iter().map(|case| case.name).collect();
    let mut named = BTreeSet::new();
    for row in rows {
        let checks = names(row);
        assert!(!checks.is_empty(), "nothing checks: {row}");
        for check in checks {
            if check.contains('/') {
                assert!(root.join(&check).is_file(), "{check} does not exist: {row}");
            } else {
                assert!(cases.contains(&check), "{check} is no case: {row}");
                named.insert(check);
            }
        }
    }
    let forgotten: Vec<_> = cases.difference(&named).collect();
    assert!(forgotten.is_empty(), "no row names {forgotten:?}");
}
