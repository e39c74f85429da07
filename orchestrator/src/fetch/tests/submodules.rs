//! Checkouts with submodules.

use common::call::{Submodules, TreeWish};
use common::request::Secret;

use super::tree::{Arrived, wish};
use super::*;

/// `.gitmodules` with submodules of these names, which are their paths too, and addresses.
fn modules(all: &[(&str, &str)]) -> String {
    let section = |(path, url): &(&str, &str)| {
        format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n")
    };
    all.iter().map(section).collect()
}

fn own() -> TreeWish {
    TreeWish { submodules: Submodules::Own, ..wish("main") }
}

fn nested() -> TreeWish {
    TreeWish { submodules: Submodules::Nested, ..wish("main") }
}

impl Place {
    /// Commits submodules at these paths, addresses and commits.
    fn commit_submodules(&self, repository: &str, all: &[(&str, &str, &str)]) -> String {
        let pairs: Vec<_> = all.iter().map(|&(path, url, _)| (path, url)).collect();
        let links: Vec<_> = all.iter().map(|&(path, _, commit)| (path, commit)).collect();
        let files = [FILE, (".gitmodules", &modules(&pairs))];
        self.server.commit_with(repository, &files, &links)
    }

    /// Why a submodule with such an address, beside `own/b`, is not fetched.
    async fn refusal(&self, url: &str) -> (CallErrorKind, String) {
        let commit = self.server.commit("own/b", &[FILE]);
        self.commit_submodules("own/a", &[("libs/b", url, &commit)]);
        self.check_out(&own()).await.err().unwrap()
    }

    /// Why this `.gitmodules`, with a submodule at `libs/b`, is not followed.
    async fn refusal_of_file(&self, text: &str) -> String {
        let commit = self.server.commit("own/b", &[FILE]);
        self.server.commit_with("own/a", &[(".gitmodules", text)], &[("libs/b", &commit)]);
        let (kind, text) = self.check_out(&own()).await.err().unwrap();
        assert_eq!(kind, CallErrorKind::Refused, "{text}");
        text
    }
}

impl Arrived {
    /// git finds nothing to do here and in the submodules, and in theirs with `--recursive`.
    fn assert_clean(&self, how: &[&str]) {
        assert_eq!(self.git(&["status", "--porcelain", "--ignored"]), "");
        let each = [&["submodule", "foreach", "--quiet"], how, &["git status -s"]].concat();
        assert_eq!(self.git(&each), "");
        for line in self.git(&[&["submodule", "status"], how].concat()).lines() {
            // A sign in front says that something is missing or another commit.
            assert!(line.trim_start().starts_with(|c: char| c.is_ascii_hexdigit()), "{line}");
        }
    }

    fn exists(&self, path: &str) -> bool {
        self.place.path().join(path).exists()
    }
}

#[tokio::test]
async fn submodules_come_as_git_lays_them_out() {
    let place = place().await;
    let inner = place.server.commit("own/c", &[("deep", "c\n")]);
    let middle = place.commit_submodules("own/b", &[("c", "../c", &inner)]);
    let again = place.server.commit("own/c", &[("other", "")]);
    let all = [("libs/b b", "../b.git", &*middle), ("c", "../../own/c", &again)];
    place.commit_submodules("own/a", &all);
    // Without the wish they are empty directories.
    let there = place.check_out(&wish("main")).await.unwrap();
    assert!(there.exists("libs/b b") && !there.exists("libs/b b/action.yml"));
    assert_eq!(there.git(&["status", "--porcelain"]), "");

    let there = place.check_out(&own()).await.unwrap();
    there.assert_clean(&[]);
    assert_eq!(there.file("libs/b b/action.yml"), FILE.1);
    assert!(there.exists("c/other") && !there.exists("libs/b b/c/deep"));
    assert_eq!(there.file("libs/b b/.git"), "gitdir: ../../.git/modules/libs/b b\n");
    assert_eq!(there.git(&["-C", "libs/b b", "rev-parse", "HEAD"]), middle);
    assert_eq!(there.git(&["-C", "libs/b b", "branch", "--show-current"]), "");
    let url = format!("{}/own/b.git", place.server.url());
    assert_eq!(there.git(&["-C", "libs/b b", "config", "remote.origin.url"]), url);
    assert_eq!(there.git(&["config", "submodule.libs/b b.url"]), url);

    let there = place.check_out(&nested()).await.unwrap();
    there.assert_clean(&["--recursive"]);
    assert_eq!(there.file("libs/b b/c/deep"), "c\n");
    assert_eq!(there.git(&["submodule", "status", "--recursive"]).lines().count(), 3);
    // git itself goes on from there.
    there.git(&["submodule", "update", "--init", "--recursive", "--force"]);
    there.git(&["submodule", "sync", "--recursive"]);
    there.git(&["submodule", "deinit", "--all", "--force"]);
    assert!(!there.exists("c/other"));
}

#[tokio::test]
async fn a_commit_that_no_branch_has_is_fetched_by_its_id() {
    let place = place().await;
    let first = place.server.commit("own/b", &[("first", "")]);
    let gone = place.server.commit("own/b", &[("gone", "")]);
    place.server.name("own/b", "refs/heads/main", &first);
    place.commit_submodules("own/a", &[("b", "../b", &gone)]);
    let there = place.check_out(&own()).await.unwrap();
    there.assert_clean(&[]);
    assert!(there.exists("b/gone"));
    // An old server gives out what has a name.
    let tagged = place.server.commit("own/c", &[("tagged", "")]);
    place.server.tag("own/c", "v1", &tagged, true);
    place.server.commit("own/c", &[("later", "")]);
    place.server.refuse_ids("own/c");
    place.commit_submodules("own/a", &[("c", "../c", &tagged)]);
    let there = place.check_out(&own()).await.unwrap();
    there.assert_clean(&[]);
    assert!(there.exists("c/tagged"));
    let second = place.server.commit("own/c", &[("between", "")]);
    place.server.commit("own/c", &[("end", "")]);
    for commit in [&second, &"1".repeat(40)] {
        place.commit_submodules("own/a", &[("libs/c", "../c", commit)]);
        let (kind, text) = place.check_out(&own()).await.err().unwrap();
        assert_eq!(kind, CallErrorKind::NotFound, "{text}");
        let what = format!("the submodule libs/c ({}/own/c at {commit})", place.server.url());
        assert!(text.starts_with(&what), "{text}");
        assert!(text.contains("its server does not give out this commit; push it there"), "{text}");
    }
}

#[tokio::test]
async fn as_much_history_comes_as_of_the_repository_itself() {
    let place = place().await;
    for number in 0..3 {
        place.server.commit("own/b", &[("number", &number.to_string())]);
    }
    let commit = place.server.commit("own/b", &[FILE]);
    place.commit_submodules("own/a", &[("b", "../b", &commit)]);
    for (depth, count) in [(1, "1"), (2, "2"), (0, "4")] {
        let there = place.check_out(&TreeWish { depth, ..own() }).await.unwrap();
        assert_eq!(there.git(&["-C", "b", "rev-list", "--count", "HEAD"]), count);
    }
}

#[tokio::test]
async fn the_token_goes_to_the_jobs_forge_only() {
    let (place, other) = (place().await, GitServer::start().await);
    let stranger = other.commit("far/c", &[FILE]);
    let commit = place.server.commit("own/b", &[FILE]);
    let far = format!("{}/far/c", other.url());
    place.commit_submodules("own/a", &[("b", "../b", &commit), ("far", &far, &stranger)]);
    let wish = TreeWish { token: Some(Secret::new("hush")), ..own() };
    // It is not https, and at a private address.
    let (kind, text) = place.check_out(&wish).await.err().unwrap();
    assert_eq!(kind, CallErrorKind::Refused, "{text}");
    assert!(text.contains("the submodule far (") && text.contains("is not https"), "{text}");
    assert!(other.asked().is_empty());
    let trusted = vec![Origin::parse(other.url()).unwrap()];
    let policy = Policy { trusted, ..place.policy() };
    let there = place.check_out_by(&wish, &policy).await.unwrap();
    there.assert_clean(&[]);
    assert!(!other.asked().is_empty());
    assert!(other.credentials().is_empty(), "{:?}", other.credentials());
    let has_token =
        |module: &str| there.file(&format!(".git/modules/{module}/config")).contains("extraheader");
    assert!(has_token("b") && !has_token("far"));
    assert!(place.server.credentials().len() >= 4, "{:?}", place.server.credentials());
    let without = TreeWish { keeps_token: false, ..wish };
    let there = place.check_out_by(&without, &policy).await.unwrap();
    assert!(!there.file(".git/modules/b/config").contains("extraheader"));
    let left = std::fs::read_dir(place.directory.path().join("fetched/mirrors")).unwrap();
    let inside = left.flatten().flat_map(|entry| std::fs::read_dir(entry.path()).unwrap());
    assert!(
        inside.flatten().all(|entry| entry.file_name() == "git" || entry.file_name() == "lock")
    );
}

#[tokio::test]
async fn addresses_that_a_host_does_not_ask_are_refused() {
    let place = place().await;
    for (url, expected) in [
        ("file:///etc", "none that this host asks"),
        ("/etc", "none that this host asks"),
        ("ext::sh -c id", "odd characters"),
        ("ext::id", "none that this host asks"),
        ("--upload-pack=id", "odd characters"),
        ("ssh://git@forge.example/own/b", "none that this host asks"),
        ("git@forge.example:own/b", "none that this host asks"),
        ("../../../b", "leads out of its server"),
        ("../b/../../c", "no address of a repository"),
        ("http://192.0.2.1/own/b", "is not https"),
        ("https://127.0.0.1:1/own/b", "a private network"),
        ("https://localhost:1/own/b", "a private network"),
        ("https://169.254.169.254/latest/meta-data", "a private network"),
        ("https://me:you@forge.example/own/b", "no user and no password"),
    ] {
        let (kind, text) = place.refusal(url).await;
        assert_eq!(kind, CallErrorKind::Refused, "{url}: {text}");
        assert!(text.starts_with("the submodule libs/b"), "{url}: {text}");
        assert!(text.contains(expected), "{url}: {text}");
    }
    assert!(place.server.asked().iter().all(|line| !line.contains("/own/b")));
    let (kind, text) = place.refusal("../missing").await;
    assert_eq!(kind, CallErrorKind::NotFound);
    assert!(text.contains("the submodule libs/b (") && text.contains("does not exist"), "{text}");
}

#[tokio::test]
async fn what_stands_in_gitmodules_leads_nowhere_else() {
    let place = place().await;
    let section =
        |name: &str, path: &str| format!("[submodule \"{name}\"]\n\tpath = {path}\n\turl = ../b\n");
    let good = section("libs/b", "libs/b");
    for (text, expected) in [
        (section("libs/b", "../b"), "which leads elsewhere"),
        (section("libs/b", "/etc"), "which leads elsewhere"),
        (section("libs/b", ".git/hooks"), "which leads elsewhere"),
        (section("libs/b", "a/.GIT"), "which leads elsewhere"),
        (section("../../hooks", "libs/b"), "which leads elsewhere"),
        (section("/etc", "libs/b"), "which leads elsewhere"),
        (good.clone() + &section("a/../..", "elsewhere"), "which leads elsewhere"),
        (section("libs/b", "libs/c"), "does not say where the submodule libs/b is"),
        (String::new(), "does not say where the submodule libs/b is"),
        (good.clone() + &section("other", "libs/b"), "names the submodule libs/b twice"),
        ("[submodule \"x\"]\n\tpath = libs/b\n".to_owned(), "write its `url`"),
        ("[submodule".to_owned(), "cannot be read"),
        (format!("{good}#{}", "x".repeat(300_000)), "more than 262144 bytes"),
    ] {
        let error = place.refusal_of_file(&text).await;
        assert!(error.contains(expected), "{text}: {error}");
    }
    let one = place.server.commit("own/b", &[FILE]);
    let file = section("x", "a") + &section("x/objects", "b");
    place.server.commit_with("own/a", &[(".gitmodules", &file)], &[("a", &one), ("b", &one)]);
    let (_, text) = place.check_out(&own()).await.err().unwrap();
    assert!(text.contains("would lie in that of x"), "{text}");
    place.server.commit_with("own/a", &[], &[("a", &one)]);
    let (_, text) = place.check_out(&own()).await.err().unwrap();
    assert!(text.contains("does not say where the submodule a is"), "{text}");
}

#[tokio::test]
async fn no_file_of_this_host_is_read_for_gitmodules_and_no_command_is_run() {
    let place = place().await;
    let (secret, mark) =
        (place.directory.path().join("secret"), place.directory.path().join("mark"));
    fs::write(&secret, "[submodule \"b\"]\n\tpath = b\n\turl = ../b\n").unwrap();
    let commit = place.server.commit("own/b", &[FILE]);
    let include = format!("[include]\n\tpath = {}\n", secret.display());
    place.server.commit_with("own/a", &[(".gitmodules", &include)], &[("b", &commit)]);
    let (_, text) = place.check_out(&own()).await.err().unwrap();
    assert!(text.contains("does not say where the submodule b is"), "{text}");
    let mark = mark.display();
    let commands = format!(
        "[submodule \"b\"]\n\tpath = b\n\turl = ../b\n\tupdate = !touch {mark}\n\
         [core]\n\tfsmonitor = touch {mark}\n\tsshCommand = touch {mark}\n"
    );
    place.server.commit_with("own/a", &[(".gitmodules", &commands)], &[("b", &commit)]);
    place.check_out(&own()).await.unwrap();
    assert!(!place.directory.path().join("mark").exists());
    // Who updates by hand gets nothing.
    let none = "[submodule \"b\"]\n\tpath = b\n\turl = ../b\n\tupdate = none\n";
    place.server.commit_with("own/a", &[(".gitmodules", none)], &[("b", &commit)]);
    let there = place.check_out(&own()).await.unwrap();
    assert!(there.exists("b") && !there.exists("b/action.yml"));
}

#[tokio::test]
async fn submodules_of_submodules_come_to_an_end() {
    let place = place().await;
    let mut commit = place.server.commit("own/a", &[FILE]);
    // A repository that has itself as a submodule, again and again.
    for _ in 0..10 {
        commit = place.commit_submodules("own/a", &[("a", "../a", &commit)]);
    }
    let there = place.check_out(&nested()).await.unwrap();
    there.assert_clean(&["--recursive"]);
    assert!(there.exists("a/a/a/a/a/a/a/a/a/a/action.yml"));
    let there = place.check_out(&own()).await.unwrap();
    assert!(there.exists("a/.gitmodules") && !there.exists("a/a/.gitmodules"));
    place.commit_submodules("own/a", &[("a", "../a", &commit)]);
    let (kind, text) = place.check_out(&nested()).await.err().unwrap();
    assert_eq!(kind, CallErrorKind::Refused);
    assert!(text.contains("more than 10 deep"), "{text}");
    let paths: Vec<String> = (0..251).map(|number| format!("m/{number}")).collect();
    let all: Vec<_> = paths.iter().map(|path| (path.as_str(), "../b", commit.as_str())).collect();
    place.commit_submodules("own/a", &all);
    let (kind, text) = place.check_out(&nested()).await.err().unwrap();
    assert_eq!(kind, CallErrorKind::Refused);
    assert!(text.contains("more than 250 submodules"), "{text}");
}
