//! Every bad settings file in `tests/config` is refused with exactly the text beside it, which has
//! every mistake in the file and shows no password.
//!
//! To write the texts anew after a change of words: `SOLSTICE_ACCEPT=1 cargo test -p solstice --test
//! config`, then read what `git diff` shows.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use solstice::exit::CommandError;
use solstice::settings::{Surroundings, load_all};

/// The variable that makes the test write what it should expect.
const ACCEPT: &str = "SOLSTICE_ACCEPT";

/// The password in the files that have one.
const PASSWORD: &str = "hunter2";

#[test]
fn bad_settings_are_refused_with_every_mistake_and_its_place() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let accept = std::env::var_os(ACCEPT).is_some();
    let (settings, texts) = files(&folder);
    assert!(settings.len() > 20, "only {} bad files were found", settings.len());

    let mut wrong = Vec::new();
    for path in &settings {
        let name = path.file_name().unwrap().to_str().unwrap();
        let found = mistakes(path).replace(&format!("{}/", folder.display()), "");
        assert!(!found.contains(PASSWORD), "{name} shows its password:\n{found}");
        if found.is_empty() {
            wrong.push(format!("{name} is accepted"));
            continue;
        }
        let beside = path.with_extension("txt");
        if accept {
            fs::write(&beside, &found).unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{name}\n--- expected\n{expected}--- found\n{found}"));
        }
    }
    let left: Vec<_> =
        texts.iter().filter(|text| !settings.contains(&text.with_extension("toml"))).collect();
    assert!(left.is_empty(), "these texts belong to no file: {left:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every mistake in a file, a line each, with its hint; empty if there is none.
fn mistakes(path: &Path) -> String {
    let surroundings = Surroundings { user_id: 0, ..Surroundings::default() };
    let mistakes = match load_all(&surroundings, Some(path)) {
        Ok((_, mistakes)) => mistakes,
        Err(mistake) => vec![mistake],
    };
    let line = |mistake: &CommandError| {
        let hint = mistake.advice().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        format!("error: {mistake}\n{hint}")
    };
    mistakes.iter().map(line).collect()
}

/// The settings and the texts in a folder, in the order of their names.
fn files(folder: &Path) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
    let paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let of = |kind: &str| {
        let ends = |path: &&PathBuf| path.extension().is_some_and(|end| end == kind);
        paths.iter().filter(ends).cloned().collect()
    };
    (of("toml"), of("txt"))
}
