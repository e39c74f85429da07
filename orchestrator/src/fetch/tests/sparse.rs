//! Checkouts of some of the files.

use common::call::{Sparse, Submodules, TreeWish};

use super::super::check_sparse;
use super::tree::{Arrived, wish};
use super::*;

const FILES: [(&str, &str); 8] = [
    ("readme", ""),
    ("a/one", ""),
    ("a/deep/two", ""),
    ("a/deep/er/three", ""),
    ("a-b/four", ""),
    ("a.c", ""),
    ("b b/five", ""),
    (".gitattributes", "a export-ignore\n"),
];

fn sparse(patterns: &[&str], is_cone: bool) -> TreeWish {
    let patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
    TreeWish { sparse: Some(Sparse { patterns, is_cone }), ..wish("main") }
}

impl Arrived {
    /// The files beside `.git`.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .git(&["ls-files", "-t"])
            .lines()
            .filter_map(|line| line.strip_prefix("H "))
            .map(str::to_owned)
            .collect();
        names.sort();
        let listed = std::process::Command::new("find")
            .args([".", "-path", "./.git", "-prune", "-o", "!", "-type", "d", "-print"])
            .current_dir(self.place.path())
            .output()
            .unwrap();
        let mut there: Vec<_> = String::from_utf8(listed.stdout)
            .unwrap()
            .lines()
            .map(|line| line.trim_start_matches("./").to_owned())
            .collect();
        there.sort();
        assert_eq!(names, there, "the index knows what is there");
        names
    }
}

#[tokio::test]
async fn directories_come_with_the_files_above_them() {
    let place = place().await;
    place.server.commit("own/a", &FILES);
    let there =
        place.check_out(&sparse(&["a/deep", "b b", "not/there", "--stdin"], true)).await.unwrap();
    let expected =
        [".gitattributes", "a.c", "a/deep/er/three", "a/deep/two", "a/one", "b b/five", "readme"];
    assert_eq!(there.names(), expected);
    assert_eq!(there.git(&["status", "--porcelain", "--branch"]), "## main...origin/main");
    assert_eq!(there.git(&["config", "core.sparseCheckout"]), "true");
    assert_eq!(there.git(&["config", "core.sparseCheckoutCone"]), "true");
    assert_eq!(there.git(&["sparse-checkout", "list"]), "--stdin\na/deep\nb b\nnot/there");
    // git itself goes on from there.
    there.git(&["sparse-checkout", "add", "a-b"]);
    assert_eq!(there.names().len(), 8);
    there.git(&["sparse-checkout", "disable"]);
    assert_eq!(there.git(&["status", "--porcelain"]), "");
    assert_eq!(there.names().len(), 8);
}

#[tokio::test]
async fn patterns_choose_files_as_git_reads_them() {
    let place = place().await;
    place.server.commit("own/a", &FILES);
    let patterns = ["/a/", "!/a/deep/er/", "*.c", "-odd", "# a remark"];
    let there = place.check_out(&sparse(&patterns, false)).await.unwrap();
    assert_eq!(there.names(), ["a.c", "a/deep/two", "a/one"]);
    assert_eq!(there.git(&["status", "--porcelain"]), "");
    assert_eq!(there.git(&["config", "core.sparseCheckoutCone"]), "false");
    assert_eq!(there.file(".git/info/sparse-checkout"), patterns.join("\n") + "\n");
    // Names that an archive has to write in another way.
    let long = format!("{}/{}", "d".repeat(120), "é \"\\f".repeat(30));
    place.server.commit("own/a", &[(&long, ""), ("d\tt/\nx", ""), ("e", "")]);
    let there = place.check_out(&sparse(&["/d*/", "!/d\tt/"], false)).await.unwrap();
    assert!(there.place.path().join(&long).exists());
    assert_eq!(there.git(&["status", "--porcelain"]), "");
    assert_eq!(there.git(&["ls-files", "-t"]).lines().filter(|l| l.starts_with('S')).count(), 2);
    place.server.commit("own/a", &FILES);
    let there = place.check_out(&sparse(&["nothing"], false)).await.unwrap();
    assert!(there.names().is_empty());
    assert_eq!(there.git(&["status", "--porcelain"]), "");
    // Without the wish nothing of it is there.
    let there = place.check_out(&wish("main")).await.unwrap();
    assert_eq!(there.names().len(), 8);
    assert!(!there.file(".git/config").contains("sparse"));
    assert!(!there.place.path().join(".git/info").exists());
}

#[tokio::test]
async fn submodules_come_whole_whether_they_are_chosen_or_not() {
    let place = place().await;
    let commit = place.server.commit("own/b", &FILES);
    let modules = ["libs/b", "far/b"]
        .map(|path| format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = ../b\n"));
    let files = [("top", ""), ("libs/x", ""), ("far/x", ""), (".gitmodules", &modules.concat())];
    place.server.commit_with("own/a", &files, &[("libs/b", &commit), ("far/b", &commit)]);
    let plain = sparse(&["libs"], true);
    let there = place.check_out(&plain).await.unwrap();
    assert_eq!(there.git(&["status", "--porcelain"]), "");
    assert!(there.place.path().join("libs/b").exists() && !there.place.path().join("far").exists());
    let with = TreeWish { submodules: Submodules::Own, ..plain };
    let there = place.check_out(&with).await.unwrap();
    assert_eq!(there.git(&["status", "--porcelain"]), "");
    for path in ["libs/b/a/deep/two", "far/b/a/deep/two", "libs/x", "top"] {
        assert!(there.place.path().join(path).exists(), "{path}");
    }
    assert!(!there.place.path().join("far/x").exists());
    let each = there.git(&["submodule", "foreach", "--quiet", "git status --porcelain"]);
    assert_eq!(each, "");
    // Also where the patterns leave out `.gitmodules` itself.
    let with = TreeWish { submodules: Submodules::Own, ..sparse(&["/far/x"], false) };
    let there = place.check_out(&with).await.unwrap();
    assert!(there.place.path().join("far/b/readme").exists());
    assert_eq!(there.git(&["status", "--porcelain"]), "");
}

#[tokio::test]
async fn patterns_where_directories_are_wished_are_refused() {
    let place = place().await;
    place.server.commit("own/a", &FILES);
    for (pattern, expected) in [
        ("/a", "leading slash"),
        ("!a", "specify directories"),
        ("*.c", "specify directories"),
        ("../x", "normalize"),
    ] {
        let (kind, text) = place.check_out(&sparse(&[pattern], true)).await.err().unwrap();
        assert_eq!(kind, CallErrorKind::Invalid, "{pattern}: {text}");
        assert!(text.contains("the input sparse-checkout cannot be used"), "{text}");
        assert!(text.contains(expected), "{pattern}: {text}");
    }
    let check = |patterns: Vec<String>| check_sparse(&Sparse { patterns, is_cone: true });
    assert_eq!(check(vec!["a".to_owned()]), Ok(()));
    assert!(check(vec!["a".to_owned(); 1001]).is_err());
    assert!(check(vec!["a".repeat(70_000)]).is_err());
    assert!(check(vec!["a\nb".to_owned()]).is_err());
}
