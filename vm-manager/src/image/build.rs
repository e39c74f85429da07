//! Runs a recipe.

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::size::ByteSize;

use super::error::ImageError;
use super::process::Helper;
use super::progress::Progress;
use super::recipe::Recipe;
use super::space::Room;

/// The longest build.
const BUILD_DEADLINE: Duration = Duration::from_secs(60 * 60);
/// What a recipe leaves in its output directory, and nothing else.
pub(super) const PRODUCTS: [&str; 3] = [DISK, KERNEL, INITRD];
/// The disk, qcow2.
pub(super) const DISK: &str = "disk.qcow2";
/// The kernel, for direct boot.
pub(super) const KERNEL: &str = "vmlinuz";
/// The initial RAM disk, for direct boot.
pub(super) const INITRD: &str = "initrd";

/// Runs the recipe in the working directory `work` and checks that its products lie in `out`.
pub(super) async fn build(
    recipe: &Recipe,
    disk: ByteSize,
    work: &Path,
    out: &Path,
    room: &Room,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(), ImageError> {
    room.check(recipe.work.0)?;
    let (scripts, scratch) = (work.join("recipe"), work.join("scratch"));
    for directory in [&scripts, &scratch] {
        fs::create_dir(directory).map_err(ImageError::store("create", directory))?;
    }
    for (name, text) in recipe.files {
        let path = scripts.join(name);
        fs::write(&path, text).map_err(ImageError::store("write", &path))?;
    }
    let helper = Helper {
        label: &room.label,
        what: "the recipe",
        program: "/bin/sh",
        directory: work,
        deadline: BUILD_DEADLINE,
    };
    let script = scripts.join("build.sh");
    let size = disk.0.to_string();
    let arguments = [script.as_os_str(), out.as_os_str(), scratch.as_os_str(), size.as_ref()];
    let report = |line: &str| progress(Progress::Building { line: line.to_owned() });
    helper.run(arguments, report, || room.check(0)).await?;
    for name in PRODUCTS {
        if !fs::symlink_metadata(out.join(name)).is_ok_and(|found| found.is_file()) {
            let reason = format!("its recipe ended well and left no {name}");
            return Err(ImageError::Unusable { label: room.label.clone(), reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    struct Built {
        result: Result<(), ImageError>,
        lines: Vec<String>,
        files: Vec<String>,
    }

    async fn run(recipe: &Recipe, free: u64) -> Built {
        let work = tempfile::tempdir().unwrap();
        let out = work.path().join("out");
        fs::create_dir(&out).unwrap();
        let room = Room {
            label: "x".to_owned(),
            path: work.path().to_owned(),
            reserve: ByteSize(10),
            free_space: Arc::new(move |_| Ok(free)),
        };
        let lines = Mutex::new(Vec::new());
        let progress = |progress| {
            if let Progress::Building { line } = progress {
                lines.lock().unwrap().push(line);
            }
        };
        let result = build(recipe, ByteSize(4096), work.path(), &out, &room, &progress).await;
        let mut files: Vec<_> = fs::read_dir(&out)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        Built { result, lines: lines.into_inner().unwrap(), files }
    }

    #[tokio::test]
    async fn a_recipe_gets_its_files_and_its_size() {
        const RECIPE: Recipe = Recipe {
            files: &[
                ("build.sh", ". \"$(dirname \"$0\")/more.sh\"\nmake \"$@\"\n"),
                (
                    "more.sh",
                    "make() { for f in disk.qcow2 vmlinuz initrd; do echo $3 >$1/$f; done; ls -d $2; echo size $3 >&2; }\n",
                ),
            ],
            work: ByteSize(0),
        };
        let built = run(&RECIPE, u64::MAX).await;
        built.result.unwrap();
        assert_eq!(built.files, ["disk.qcow2", "initrd", "vmlinuz"]);
        assert!(built.lines.contains(&"size 4096".to_owned()), "{:?}", built.lines);
    }

    #[tokio::test]
    async fn a_recipe_that_leaves_something_out_has_failed() {
        const RECIPE: Recipe =
            Recipe { files: &[("build.sh", ": >$1/disk.qcow2; : >$1/vmlinuz")], work: ByteSize(0) };
        let error = run(&RECIPE, u64::MAX).await.result.unwrap_err();
        assert!(error.to_string().contains("left no initrd"), "{error}");
    }

    #[tokio::test]
    async fn a_failed_recipe_shows_what_it_said() {
        const RECIPE: Recipe = Recipe {
            files: &[("build.sh", "echo 'no Debian mirror' >&2; exit 1")],
            work: ByteSize(0),
        };
        let error = run(&RECIPE, u64::MAX).await.result.unwrap_err();
        assert!(error.to_string().contains("no Debian mirror"), "{error}");
    }

    #[tokio::test]
    async fn a_build_does_not_start_without_room() {
        const RECIPE: Recipe = Recipe { files: &[("build.sh", "echo ran")], work: ByteSize(100) };
        let built = run(&RECIPE, 109).await;
        assert!(matches!(built.result, Err(ImageError::NoRoom { .. })), "{:?}", built.result);
        assert!(built.lines.is_empty());
    }
}
