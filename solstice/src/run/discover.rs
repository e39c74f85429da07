//! Which workflow file is meant, and what is known from where it lies.

use std::io::Read;
use std::path::{Path, PathBuf};

use common::limits::WORKFLOW_BYTES;
use common::plan::Dialect;
use workflow_runner::workflow::KDL_FILE;

use crate::exit::CommandError;

/// Where forges look for workflows, and whose rules apply there.
const FOLDERS: &[(&str, Dialect)] = &[
    (".forgejo/workflows", Dialect::Forgejo),
    (".gitea/workflows", Dialect::Gitea),
    (".github/workflows", Dialect::Github),
];

/// A workflow file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkflowFile {
    /// As messages name it: relative to the working directory where that is shorter.
    pub(crate) shown: String,
    /// Relative to the project, for `github.workflow_ref`.
    pub(crate) in_project: String,
    /// The directory that `actions/checkout` places in the guest.
    pub(crate) project: PathBuf,
    /// Whose rules apply.
    pub(crate) dialect: Dialect,
    /// The text.
    pub(crate) text: String,
}

/// Finds and reads the workflow file.
///
/// `directory` is the working directory and `repository` the top of the git repository around it.
///
/// # Errors
/// There is none, there are several and none was named, or it cannot be read.
pub(crate) fn discover(
    directory: &Path,
    repository: Option<&Path>,
    requested: Option<&Path>,
    dialect: Option<Dialect>,
) -> Result<WorkflowFile, CommandError> {
    let path = match requested {
        Some(path) => named(directory, repository, path)?,
        None => only(directory, repository)?,
    };
    open(&path, directory, repository, dialect)
}

/// Finds and reads all workflow files, or those that are named.
///
/// # Errors
/// There is none, or one cannot be read.
pub(crate) fn discover_all(
    directory: &Path,
    repository: Option<&Path>,
    requested: &[PathBuf],
    dialect: Option<Dialect>,
) -> Result<Vec<WorkflowFile>, CommandError> {
    let paths = if requested.is_empty() {
        all(directory, repository)
    } else {
        let named = requested.iter().map(|path| named(directory, repository, path));
        named.collect::<Result<_, _>>()?
    };
    if paths.is_empty() {
        return Err(nothing("solstice check WORKFLOW"));
    }
    paths.iter().map(|path| open(path, directory, repository, dialect)).collect()
}

/// Reads a workflow file, and says what is known from where it lies.
fn open(
    path: &Path,
    directory: &Path,
    repository: Option<&Path>,
    dialect: Option<Dialect>,
) -> Result<WorkflowFile, CommandError> {
    let text = read(path, directory)?;
    let folder = folder_of(path);
    let project = match &folder {
        Some((project, _)) => project.clone(),
        None => repository.unwrap_or(directory).to_path_buf(),
    };
    let by_folder = folder.map_or(Dialect::Github, |(_, dialect)| dialect);
    let in_project = path.strip_prefix(&project).unwrap_or(path).display().to_string();
    let shown = shown(path, directory);
    Ok(WorkflowFile { shown, in_project, project, dialect: dialect.unwrap_or(by_folder), text })
}

/// The file that the user named: a path, or the name of a file in one of the folders.
fn named(
    directory: &Path,
    repository: Option<&Path>,
    requested: &Path,
) -> Result<PathBuf, CommandError> {
    let path = directory.join(requested);
    if path.is_file() {
        // Without `..`, so that the folder and the project can be read from it.
        return path.canonicalize().map_err(|error| unreadable(requested, &error));
    }
    let found = all(directory, repository);
    let matches: Vec<&PathBuf> = found
        .iter()
        .filter(|path| {
            path.file_name() == Some(requested.as_os_str())
                || path.file_stem() == Some(requested.as_os_str())
        })
        .collect();
    match matches.as_slice() {
        [path] => Ok((*path).clone()),
        [] if path.is_dir() => Err(CommandError::usage(format!(
            "{} is a directory, not a workflow file",
            requested.display()
        ))),
        [] => {
            let error =
                CommandError::usage(format!("there is no workflow file {}", requested.display()));
            if found.is_empty() { Err(error) } else { Err(error.hint(listing(&found, directory))) }
        }
        _ => Err(several(&matches, directory)),
    }
}

/// The only file in the folders.
fn only(directory: &Path, repository: Option<&Path>) -> Result<PathBuf, CommandError> {
    let found = all(directory, repository);
    match found.as_slice() {
        [path] => Ok(path.clone()),
        [] => Err(nothing("solstice run WORKFLOW")),
        _ => Err(several(&found.iter().collect::<Vec<_>>(), directory)),
    }
}

fn nothing(command: &str) -> CommandError {
    let folders: Vec<&str> = FOLDERS.iter().map(|(folder, _)| *folder).collect();
    let folders = folders.join(", ");
    CommandError::usage(format!("there is no workflow file in {folders}, and no {KDL_FILE}"))
        .hint(format!("name one: {command}"))
}

fn several(found: &[&PathBuf], directory: &Path) -> CommandError {
    let mut message = "there are several workflow files:".to_owned();
    for path in found {
        message.push_str("\n  ");
        message.push_str(&shown(path, directory));
    }
    CommandError::usage(message).hint("name one: solstice run WORKFLOW")
}

fn listing(found: &[PathBuf], directory: &Path) -> String {
    let names: Vec<String> = found.iter().map(|path| shown(path, directory)).collect();
    format!("there are {}", names.join(", "))
}

/// Every workflow file of the nearest directory, from the working directory up to the top of the
/// repository, that has one.
fn all(directory: &Path, repository: Option<&Path>) -> Vec<PathBuf> {
    let top = repository.unwrap_or(directory);
    for level in directory.ancestors() {
        let mut found = Vec::new();
        for (folder, _) in FOLDERS {
            // A folder that does not exist or cannot be read has no workflows.
            let Ok(entries) = std::fs::read_dir(level.join(folder)) else { continue };
            let paths = entries.flatten().map(|entry| entry.path());
            let mut paths: Vec<PathBuf> = paths.filter(|path| is_workflow(path)).collect();
            paths.sort();
            found.append(&mut paths);
        }
        found.extend(Some(level.join(KDL_FILE)).filter(|path| path.is_file()));
        if !found.is_empty() || level == top {
            return found;
        }
    }
    Vec::new()
}

fn is_workflow(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yml" | "yaml")) && path.is_file()
}

/// The project and the dialect of a file in one of the folders, or of the one in KDL.
fn folder_of(path: &Path) -> Option<(PathBuf, Dialect)> {
    let parent = path.parent()?;
    if path.ends_with(KDL_FILE) {
        return Some((parent.parent()?.to_path_buf(), Dialect::Github));
    }
    FOLDERS.iter().find_map(|(folder, dialect)| {
        let project = parent.ancestors().nth(Path::new(folder).components().count())?;
        (project.join(folder) == parent).then(|| (project.to_path_buf(), *dialect))
    })
}

/// Reads a workflow file; errors name it as seen from `directory`.
///
/// # Errors
/// It cannot be read, is too large, or is not UTF-8.
pub(crate) fn read(path: &Path, directory: &Path) -> Result<String, CommandError> {
    let shown = shown(path, directory);
    let file = std::fs::File::open(path).map_err(|error| unreadable(Path::new(&shown), &error))?;
    let mut bytes = Vec::new();
    file.take(WORKFLOW_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(Path::new(&shown), &error))?;
    if bytes.len() as u64 > WORKFLOW_BYTES {
        return Err(CommandError::usage(format!(
            "{shown}: a workflow file has at most {WORKFLOW_BYTES} bytes"
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        CommandError::usage(format!("{shown}:{}: the file is not UTF-8", line + 1))
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::usage(format!("cannot read {}: {error}", path.display()))
}

fn shown(path: &Path, directory: &Path) -> String {
    let canonical = directory.canonicalize();
    let inside = path
        .strip_prefix(directory)
        .ok()
        .or_else(|| path.strip_prefix(canonical.as_ref().ok()?).ok());
    inside.unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these files in it.
    fn project(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "on: push\n").unwrap();
        }
        directory
    }

    fn find(
        files: &[&str],
        from: &str,
        requested: Option<&str>,
    ) -> Result<(String, String, Dialect), String> {
        let project = project(files);
        let top = project.path().canonicalize().unwrap();
        let directory = top.join(from);
        std::fs::create_dir_all(&directory).unwrap();
        discover(&directory, Some(&top), requested.map(Path::new), None)
            .map(|file| {
                assert_eq!(file.project, top);
                (file.shown, file.in_project, file.dialect)
            })
            .map_err(|error| {
                let hint = error.advice().map(|hint| format!(" | {hint}")).unwrap_or_default();
                format!("{error}{hint}")
            })
    }

    #[test]
    fn the_only_file_is_found_and_its_folder_decides_the_rules() {
        for (folder, dialect) in FOLDERS {
            let file = format!("{folder}/ci.yml");
            let found = find(&[&file, "README.md"], "", None).unwrap();
            assert_eq!(found, (file.clone(), file, *dialect));
        }
        let found = find(&[KDL_FILE, "README.md"], "src", None).unwrap();
        assert_eq!((found.1.as_str(), found.2), (KDL_FILE, Dialect::Github));
        let file = ".github/workflows/a.yaml";
        let (shown, in_project, _) = find(&[file], "src/deep", None).unwrap();
        assert!(Path::new(&shown).is_absolute(), "{shown}");
        assert_eq!(in_project, file);
    }

    #[test]
    fn several_files_are_listed() {
        let files =
            [".github/workflows/b.yml", ".github/workflows/a.yml", ".gitea/workflows/c.yml"];
        assert_eq!(
            find(&files, "", None).unwrap_err(),
            "there are several workflow files:\n  .gitea/workflows/c.yml\n  \
             .github/workflows/a.yml\n  .github/workflows/b.yml | name one: solstice run WORKFLOW"
        );
        assert_eq!(find(&files, "", Some("a")).unwrap().0, ".github/workflows/a.yml");
        assert_eq!(find(&files, "", Some("c.yml")).unwrap().2, Dialect::Gitea);
    }

    #[test]
    fn a_file_anywhere_can_be_named() {
        let found = find(&["examples/hello.yml"], "", Some("examples/hello.yml")).unwrap();
        assert_eq!(
            found,
            ("examples/hello.yml".into(), "examples/hello.yml".into(), Dialect::Github)
        );
        let (_, in_project, _) = find(&["a/x.yml"], "b", Some("../a/x.yml")).unwrap();
        assert_eq!(in_project, "a/x.yml");
    }

    #[test]
    fn nothing_to_run_is_said() {
        assert_eq!(
            find(&["README.md"], "", None).unwrap_err(),
            "there is no workflow file in .forgejo/workflows, .gitea/workflows, \
             .github/workflows, and no .solstice/workflow.kdl | name one: solstice run WORKFLOW"
        );
        let files = [".github/workflows/ci.yml", "doc/x"];
        assert_eq!(
            find(&files, "", Some("cd.yml")).unwrap_err(),
            "there is no workflow file cd.yml | there are .github/workflows/ci.yml"
        );
        assert_eq!(
            find(&files, "", Some("doc")).unwrap_err(),
            "doc is a directory, not a workflow file"
        );
    }

    #[test]
    fn a_file_that_is_no_text_is_refused() {
        let project = project(&[]);
        let check = |bytes: &[u8], message: &str| {
            std::fs::write(project.path().join("x.yml"), bytes).unwrap();
            let found = discover(project.path(), None, Some(Path::new("x.yml")), None);
            assert_eq!(found.unwrap_err().to_string(), message);
        };
        check(b"on: push\na: \xff\n", "x.yml:2: the file is not UTF-8");
        let large = vec![b'#'; WORKFLOW_BYTES as usize + 1];
        check(&large, "x.yml: a workflow file has at most 1048576 bytes");
    }
}
