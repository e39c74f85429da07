//! Checkouts: what git makes of what a job gets.

use std::path::PathBuf;
use std::process::Command;

use common::call::{Submodules, TreeWish};
use common::request::Secret;
use simulators::forgejo::{Forge, Scope};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use super::super::tree::{self, TreeStore};
use super::*;

pub(super) fn wish(reference: &str) -> TreeWish {
    TreeWish {
        repository: "own/a".to_owned(),
        reference: reference.to_owned(),
        commit: None,
        depth: 1,
        tags: false,
        token: None,
        keeps_token: true,
        submodules: Submodules::None,
        sparse: None,
    }
}

/// A checkout as it arrives in a guest.
pub(super) struct Arrived {
    pub(super) place: TempDir,
    pub(super) commit: String,
}

impl Place {
    pub(super) async fn check_out(
        &self,
        wish: &TreeWish,
    ) -> Result<Arrived, (CallErrorKind, String)> {
        self.check_out_by(wish, &self.policy()).await
    }

    pub(super) async fn check_out_by(
        &self,
        wish: &TreeWish,
        policy: &Policy,
    ) -> Result<Arrived, (CallErrorKind, String)> {
        self.check_out_from(&TreeStore::new(self.settings(1 << 30)), wish, policy).await
    }

    /// The only mirror.
    fn mirror(&self) -> PathBuf {
        let mirrors = self.directory.path().join("fetched/mirrors");
        std::fs::read_dir(mirrors).unwrap().next().unwrap().unwrap().path().join("git")
    }

    async fn check_out_from(
        &self,
        store: &TreeStore,
        wish: &TreeWish,
        policy: &Policy,
    ) -> Result<Arrived, (CallErrorKind, String)> {
        let fetched = store.fetch(&self.repository("own/a"), wish, policy).await;
        let mut tree = fetched.map_err(|error| (error.kind, error.message))?;
        let mut bytes = Vec::new();
        tree.archive.read_to_end(&mut bytes).await.unwrap();
        let place = tempfile::tempdir().unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        archive.set_preserve_permissions(true);
        archive.unpack(place.path()).unwrap();
        Ok(Arrived { place, commit: tree.commit })
    }

    fn packs(&self) -> usize {
        self.server.asked().iter().filter(|line| line.starts_with("POST")).count()
    }
}

impl Arrived {
    pub(super) fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "safe.directory=*", "-C"])
            .arg(self.place.path())
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(super) fn file(&self, path: &str) -> String {
        std::fs::read_to_string(self.place.path().join(path)).unwrap()
    }
}

#[tokio::test]
async fn a_branch_arrives_with_what_git_needs_to_know() {
    let place = place().await;
    place.server.commit("own/a", &[("old", "1")]);
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let files = [
        ("a b", "text\n"),
        ("left/out", "not left out\n"),
        (".gitattributes", "left export-ignore\nsubst export-subst\n"),
        ("subst", "$Format:%H$\n"),
        (&long, "deep\n"),
    ];
    let commit = place.server.commit("own/a", &files);
    let there = place.check_out(&wish("main")).await.unwrap();
    assert_eq!(there.commit, commit);
    assert_eq!(there.git(&["status", "--porcelain", "--branch"]), "## main...origin/main");
    assert_eq!(there.git(&["rev-parse", "HEAD", "origin/main"]), format!("{commit}\n{commit}"));
    assert_eq!(there.git(&["rev-list", "--count", "HEAD"]), "1");
    assert_eq!(there.git(&["remote", "-v"]).lines().count(), 2);
    assert_eq!(there.git(&["fsck"]), "");
    let url = there.git(&["config", "remote.origin.url"]);
    assert_eq!(url, format!("{}/own/a", place.server.url()));
    assert_eq!(there.file("left/out"), "not left out\n");
    assert_eq!(there.file("subst"), "$Format:%H$\n");
    assert_eq!(there.file(&long), "deep\n");
    assert!(!there.place.path().join("old").exists());
    assert!(!there.place.path().join(".git/hooks").exists());
    assert!(!there.file(".git/config").contains("extraheader"));
}

#[tokio::test]
async fn tags_commits_and_pull_requests_are_checked_out_by_themselves() {
    let place = place().await;
    let first = place.server.commit("own/a", &[FILE]);
    place.server.tag("own/a", "v1", &first, true);
    let second = place.server.commit("own/a", &[("two", "")]);
    place.server.name("own/a", "refs/pull/7/head", &first);
    for (reference, known, commit) in [
        ("v1", None, &first),
        ("refs/tags/v1", None, &first),
        (&first, None, &first),
        ("refs/pull/7/head", Some(&first), &first),
        // The branch has gone on since the job began.
        ("refs/heads/main", Some(&first), &first),
        ("", None, &second),
    ] {
        let wish = TreeWish { commit: known.cloned(), ..wish(reference) };
        let there = place.check_out(&wish).await.unwrap();
        assert_eq!(&there.git(&["rev-parse", "HEAD"]), commit, "{reference}");
        assert_eq!(there.git(&["status", "--porcelain"]), "", "{reference}");
        let branch = there.git(&["branch", "--show-current"]);
        let is_branch = reference.is_empty() || reference.starts_with("refs/heads/");
        assert_eq!(branch, if is_branch { "main" } else { "" }, "{reference}");
    }
    for reference in ["main", "v1"] {
        let there = place.check_out(&TreeWish { tags: true, ..wish(reference) }).await.unwrap();
        assert_eq!(there.git(&["tag"]), "v1", "{reference}");
    }
}

#[tokio::test]
async fn a_mirror_fetches_what_is_new_and_as_much_history_as_is_wished() {
    let place = place().await;
    for number in 0..5 {
        place.server.commit("own/a", &[("number", &number.to_string())]);
    }
    let count = |there: &Arrived| there.git(&["rev-list", "--count", "HEAD"]);
    assert_eq!(count(&place.check_out(&wish("main")).await.unwrap()), "1");
    let before = place.packs();
    assert_eq!(count(&place.check_out(&wish("main")).await.unwrap()), "1");
    assert_eq!(place.packs(), before, "it is there");
    let deeper = TreeWish { depth: 3, ..wish("main") };
    assert_eq!(count(&place.check_out(&deeper).await.unwrap()), "3");
    let all = TreeWish { depth: 0, ..wish("main") };
    assert_eq!(count(&place.check_out(&all).await.unwrap()), "5");
    let before = place.packs();
    for (wish, expected) in [(&all, "5"), (&deeper, "3")] {
        assert_eq!(count(&place.check_out(wish).await.unwrap()), expected);
    }
    assert_eq!(place.packs(), before, "the mirror is complete");
    place.server.commit("own/a", &[("number", "6")]);
    assert_eq!(count(&place.check_out(&wish("main")).await.unwrap()), "1");
    assert_eq!(count(&place.check_out(&all).await.unwrap()), "6");
}

#[tokio::test]
async fn what_is_not_there_or_not_this_jobs_is_refused() {
    let place = place().await;
    place.server.commit("own/a", &[FILE]);
    let (kind, text) = place.check_out(&wish("elsewhere")).await.err().unwrap();
    assert_eq!(kind, CallErrorKind::NotFound);
    assert!(text.contains("has no branch or tag elsewhere"), "{text}");
    let none = Some("0".repeat(40));
    let gone = place.check_out(&TreeWish { commit: none, ..wish("main") }).await;
    assert!(gone.is_err());
}

/// A repository that only its own jobs may read.
#[tokio::test]
async fn a_private_repository_is_asked_for_with_the_jobs_token_each_time() {
    let forge = Forge::start(simulators::forgejo::Profile::V15).await;
    forge.git().commit("own/a", &[FILE]);
    drop(forge.create_runner("r", Scope::Global));
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::parse(&forge.url()).unwrap();
    let store = TreeStore::new(FetchSettings {
        directory: directory.path().to_owned(),
        quota: ByteSize(1 << 30),
        github: origin.clone(),
        forgejo: origin.clone(),
        gitea: origin.clone(),
        trusted: Vec::new(),
    });
    let policy = Policy { forge: Some(origin.clone()), trusted: Vec::new() };
    let repository = Repository::new(origin, "", "own/a").unwrap();
    for token in [None, Some(Secret::new("wrong"))] {
        let wish = TreeWish { token, ..wish("main") };
        let Err(error) = store.fetch(&repository, &wish, &policy).await else { panic!("read") };
        assert_eq!(error.kind, CallErrorKind::NotFound);
        assert!(error.message.contains("this job may not read it (401"), "{error}");
        assert!(!error.message.contains("wrong"), "{error}");
    }
    // Once it is public, the mirror has it; when it is private again, nobody gets it from there.
    forge.make_public("own/a");
    drop(store.fetch(&repository, &wish("main"), &policy).await.unwrap());
    forge.make_private("own/a");
    assert!(store.fetch(&repository, &wish("main"), &policy).await.is_err());
}

#[tokio::test]
async fn a_token_goes_to_the_forge_and_into_the_repository_if_it_is_wished() {
    const REFS: &str = "/info/refs?service=git-upload-pack";
    let (place, other) = (place().await, GitServer::start().await);
    place.server.commit("own/a", &[FILE]);
    other.commit("own/a", &[FILE]);
    let token = Some(Secret::new("hush"));
    let kept = TreeWish { token: token.clone(), ..wish("main") };
    let encoded = "eC1hY2Nlc3MtdG9rZW46aHVzaA==";
    let there = place.check_out(&kept).await.unwrap();
    let header = there.git(&["config", &format!("http.{}/.extraheader", place.server.url())]);
    assert_eq!(header, format!("AUTHORIZATION: basic {encoded}"));
    let there = place.check_out(&TreeWish { keeps_token: false, ..kept.clone() }).await.unwrap();
    assert!(!there.file(".git/config").contains(encoded));
    assert!(place.server.credentials().iter().all(|sent| sent.contains(encoded)));
    // Elsewhere it is not sent, also where that place may be asked.
    place.server.redirect(&format!("/own/a{REFS}"), &format!("{}/own/a{REFS}", other.url()));
    let store = TreeStore::new(place.settings(1 << 30));
    let trusted = vec![Origin::parse(other.url()).unwrap()];
    let policy = Policy { trusted, ..place.policy() };
    drop(store.fetch(&place.repository("own/a"), &kept, &policy).await.unwrap());
    assert!(!other.asked().is_empty());
    assert!(other.credentials().is_empty(), "{:?}", other.credentials());
}

#[tokio::test]
async fn what_came_before_does_not_stand_in_the_way() {
    let place = place().await;
    let commit = place.server.commit("own/a", &[FILE]);
    place.server.name("own/a", "refs/heads/feature", &commit);
    place.check_out(&wish("feature")).await.unwrap();
    // A branch goes, and one below its name comes; a tag goes.
    place.server.remove("own/a", "refs/heads/feature");
    place.server.tag("own/a", "gone", &commit, false);
    place.check_out(&TreeWish { tags: true, ..wish("main") }).await.unwrap();
    place.server.remove("own/a", "refs/tags/gone");
    let next = place.server.commit("own/a", &[("two", "")]);
    place.server.name("own/a", "refs/heads/feature/x", &next);
    let there = place.check_out(&TreeWish { tags: true, ..wish("feature/x") }).await.unwrap();
    assert_eq!((there.commit.as_str(), there.git(&["tag"])), (next.as_str(), String::new()));
    // A git that was killed in the middle leaves its locks.
    let mirror = place.mirror();
    std::fs::write(mirror.join("shallow.lock"), "").unwrap();
    std::fs::write(mirror.join("objects/pack/tmp_pack_x"), "").unwrap();
    let kept = std::fs::read_dir(mirror.join("refs/kept")).unwrap().count();
    assert!(kept > 0);
    let next = place.server.commit("own/a", &[("locked", "")]);
    std::fs::write(mirror.join(format!("refs/kept/{next}.lock")), "").unwrap();
    assert_eq!(place.check_out(&wish("main")).await.unwrap().commit, next);
    let last = place.server.commit("own/a", &[("three", "")]);
    assert_eq!(place.check_out(&wish("main")).await.unwrap().commit, last);
    assert!(!mirror.join("objects/pack/tmp_pack_x").exists());
}

#[tokio::test]
async fn a_tag_that_moved_since_the_job_began_is_no_hindrance() {
    let place = place().await;
    let first = place.server.commit("own/a", &[("number", "1")]);
    let second = place.server.commit("own/a", &[("number", "2")]);
    place.server.tag("own/a", "nightly", &second, false);
    for depth in [0, 1] {
        let tag = TreeWish { commit: Some(first.clone()), depth, ..wish("refs/tags/nightly") };
        let there = place.check_out(&TreeWish { tags: true, ..tag }).await.unwrap();
        let found = there.git(&["rev-parse", "HEAD", "nightly"]);
        assert_eq!(found, format!("{first}\n{second}"), "{depth}");
    }
}

#[tokio::test]
async fn what_comes_into_a_mirror_comes_as_a_whole() {
    let place = place().await;
    for number in 0..4 {
        place.server.commit("own/a", &[("number", &number.to_string())]);
        place.check_out(&wish("main")).await.unwrap();
    }
    let mirror = place.mirror();
    let names = |below: &str| {
        let entries = std::fs::read_dir(mirror.join(below)).unwrap().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let packs = || names("objects/pack").iter().filter(|name| name.ends_with(".pack")).count();
    // An object by itself could be there without those that it needs.
    assert_eq!((names("objects"), packs()), (vec!["info".to_owned(), "pack".to_owned()], 4));
    tree::gather(&mirror, 4).await;
    assert_eq!(packs(), 4);
    tree::gather(&mirror, 3).await;
    assert_eq!((packs(), names("refs/kept")), (1, vec![]));
    let there = place.check_out(&wish("main")).await.unwrap();
    assert_eq!(there.git(&["fsck"]), "");
}

#[tokio::test]
async fn a_mirror_that_takes_all_the_room_begins_anew() {
    let place = place().await;
    let store = TreeStore::new(place.settings(30_000));
    let noise: String =
        (0..4000_u32).map(|n| format!("{:08x}", n.wrapping_mul(2_654_435_761))).collect();
    let mut commits = Vec::new();
    for number in 0..3 {
        let text = format!("{number}{}", &noise[number * 10_000..]);
        commits.push(place.server.commit("own/a", &[("noise", &text)]));
        place.check_out_from(&store, &wish("main"), &place.policy()).await.unwrap();
    }
    let kept = std::fs::read_dir(place.mirror().join("refs/kept")).unwrap().flatten();
    let kept: Vec<_> = kept.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(kept.contains(&commits[2]) && !kept.contains(&commits[0]), "{kept:?}");
}

#[tokio::test]
async fn a_job_whose_commit_is_there_waits_for_nobody_who_reads() {
    let place = place().await;
    place.server.commit("own/a", &[FILE]);
    place.check_out(&wish("main")).await.unwrap();
    let repository = place.mirror().parent().unwrap().to_owned();
    let _other = super::super::store::Lock::with_others(&repository).await.unwrap();
    let wish = wish("main");
    let there = tokio::time::timeout(Duration::from_secs(60), place.check_out(&wish)).await;
    there.expect("it does not wait").unwrap();
}

#[tokio::test]
async fn nothing_of_a_job_stays_on_the_hosts_disk() {
    let place = place().await;
    place.server.commit("own/a", &[FILE]);
    let wish = TreeWish { token: Some(Secret::new("hush-hush-canary")), ..wish("main") };
    let there = place.check_out(&wish).await.unwrap();
    assert!(there.file(".git/config").contains("extraheader"));
    let found = Command::new("grep")
        .args(["-r", "-l", "-a", "-e", "aHVzaC1odXNoLWNhbmFyeQ", "-e", "hush-hush-canary"])
        .arg("-e")
        .arg("x-access-token")
        .arg(place.directory.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    let left = std::fs::read_dir(place.directory.path().join("fetched/mirrors")).unwrap();
    let inside = left.flatten().flat_map(|entry| std::fs::read_dir(entry.path()).unwrap());
    let mut names: Vec<_> = inside.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["git", "lock"]);
    let facts = std::fs::metadata(place.directory.path().join("fetched")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&facts.permissions()) & 0o777, 0o700);
}
