//! Where the file of a finding lies in its repository.

use crate::system::{Kind, System};

/// The path of a file in its repository; `None` where the file does not exist, or lies in no
/// repository below the workspace (github-runner-protocol 7.9).
///
/// A relative path begins at the directory of `from_path` if there is one, else at the workspace.
pub(in crate::engine) async fn in_repository(
    file: &str,
    from_path: Option<&str>,
    workspace: &str,
    system: &dyn System,
) -> Option<String> {
    let start = from_path.and_then(|path| path.rsplit_once('/')).map_or("", |(parent, _)| parent);
    let path = normal(&join(workspace, &join(start, file)));
    if !matches!(system.kind(&path).await, Ok(Some(kind)) if kind != Kind::Directory) {
        return None;
    }
    let workspace = normal(workspace);
    let mut directory = path.rsplit_once('/')?.0;
    while directory == workspace || is_below(directory, &workspace) {
        if let Ok(Some(_)) = system.kind(&format!("{directory}/.git")).await {
            return path.strip_prefix(directory)?.strip_prefix('/').map(str::to_owned);
        }
        directory = directory.rsplit_once('/')?.0;
    }
    None
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

fn join(directory: &str, path: &str) -> String {
    if path.starts_with('/') || directory.is_empty() {
        path.to_owned()
    } else {
        format!("{directory}/{path}")
    }
}

/// An absolute path without `.`, `..` and empty parts.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::system::Local;

    #[tokio::test]
    async fn files_of_repositories_are_found_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap();
        for path in ["w/a/.git", "w/a/src", "w/b/src", ".git"] {
            fs::create_dir_all(format!("{root}/{path}")).unwrap();
        }
        for path in ["w/a/src/x.c", "w/b/src/x.c", "x.c"] {
            fs::write(format!("{root}/{path}"), "").unwrap();
        }
        let workspace = format!("{root}/w");
        let absolute = format!("{root}/w/a/src/x.c");
        for (file, from, expected) in [
            ("a/src/x.c", None, Some("src/x.c")),
            ("./a/../a/src/./x.c", None, Some("src/x.c")),
            (&absolute, Some("elsewhere/y"), Some("src/x.c")),
            ("src/x.c", Some("a/p.proj"), Some("src/x.c")),
            ("x.c", Some("a/src/p.proj"), Some("src/x.c")),
            ("a/src", None, None),
            ("a/src/y.c", None, None),
            // No repository, and one that is outside the workspace.
            ("b/src/x.c", None, None),
            ("../x.c", None, None),
            ("", None, None),
        ] {
            let found = in_repository(file, from, &workspace, &Local::new()).await;
            assert_eq!(found.as_deref(), expected, "{file}");
        }
    }
}
