//! One file for each way in which a catalogue can be wrong.

use std::path::Path;

use vm_manager::image::Catalogue;

/// The first line of each file is the message that refuses it, without the file's name.
#[test]
fn every_invalid_catalogue_is_refused_at_its_place() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/invalid-catalogues");
    let mut wrong = Vec::new();
    let mut files = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        files += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap();
        let expected = format!("{}:{expected}", path.display());
        match Catalogue::load(Some(&path)) {
            Ok(_) => wrong.push(format!("{} was accepted", path.display())),
            Err(error) if error.to_string() != expected => {
                wrong.push(format!("expected {expected}\n   found {error}"));
            }
            Err(_) => {}
        }
    }
    assert!(files > 40, "only {files} files");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
