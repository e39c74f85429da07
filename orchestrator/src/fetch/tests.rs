//! Fetching from a real git server on this host.

mod sparse;
mod submodules;
mod tree;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::call::CallErrorKind;
use common::size::ByteSize;
use simulators::GitServer;

use super::store::{ActionStore, Archive};
use super::{FetchSettings, Origin, Policy, Repository, room, store, sweep};

const FILE: (&str, &str) = ("action.yml", "name: one\n");

/// A git server, and a directory for what is fetched from it.
struct Place {
    server: GitServer,
    directory: tempfile::TempDir,
}

async fn place() -> Place {
    Place { server: GitServer::start().await, directory: tempfile::tempdir().unwrap() }
}

impl Place {
    fn origin(&self) -> Origin {
        Origin::parse(self.server.url()).unwrap()
    }

    fn policy(&self) -> Policy {
        Policy { forge: Some(self.origin()), trusted: Vec::new() }
    }

    fn store(&self, quota: u64) -> std::sync::Arc<ActionStore> {
        ActionStore::new(self.settings(quota))
    }

    fn settings(&self, quota: u64) -> FetchSettings {
        let origin = Origin::parse("https://forge.example").unwrap();
        FetchSettings {
            directory: self.directory.path().join("fetched"),
            quota: ByteSize(quota),
            github: origin.clone(),
            forgejo: origin.clone(),
            gitea: origin,
            trusted: Vec::new(),
        }
    }

    fn repository(&self, name: &str) -> Repository {
        Repository::new(self.origin(), "", name).unwrap()
    }

    async fn fetch(&self, name: &str, version: &str) -> Result<Archive, (CallErrorKind, String)> {
        let (store, repository, policy) =
            (self.store(1 << 30), self.repository(name), self.policy());
        let fetched = store.fetch(&repository, version, &policy).await;
        fetched.map_err(|error| (error.kind, error.message))
    }
}

fn files(archive: &Path) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(fs::File::open(archive).unwrap());
    let entries = archive.entries().unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.header().entry_type().is_file());
    let mut files: Vec<_> = files
        .map(|mut entry| {
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn versions_are_branches_tags_and_commits() {
    let place = place().await;
    let first = place.server.commit("own/a", &[FILE, ("deep/er/file", "1")]);
    place.server.tag("own/a", "v1", &first, false);
    place.server.tag("own/a", "v1.0", &first, true);
    let second = place.server.commit("own/a", &[("action.yml", "name: two\n")]);
    for (version, commit) in
        [("v1", &first), ("v1.0", &first), ("main", &second), (&first, &first), (&second, &second)]
    {
        let archive = place.fetch("own/a", version).await.unwrap();
        assert_eq!(&archive.commit, commit, "{version}");
    }
    let archive = place.fetch("own/a", "v1").await.unwrap();
    let there = [("action.yml", "name: one\n"), ("deep/er/file", "1")];
    assert_eq!(files(&archive.file), there.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[tokio::test]
async fn what_is_there_is_not_fetched_again() {
    let place = place().await;
    let commit = place.server.commit("own/a", &[FILE]);
    place.fetch("own/a", "main").await.unwrap();
    let before = place.server.asked().len();
    place.fetch("own/a", "main").await.unwrap();
    assert_eq!(place.server.asked().len(), before + 1, "its branches are asked for");
    place.fetch("own/a", &commit).await.unwrap();
    assert_eq!(place.server.asked().len(), before + 1, "a commit is what it is");
    // A branch that has gone on is another commit.
    let next = place.server.commit("own/a", &[("action.yml", "name: two\n")]);
    assert_eq!(place.fetch("own/a", "main").await.unwrap().commit, next);
}

#[tokio::test]
async fn many_ask_and_one_fetches() {
    let place = place().await;
    place.server.commit("own/a", &[FILE]);
    let all = (0..8).map(|_| place.fetch("own/a", "main"));
    for fetched in futures_util::future::join_all(all).await {
        fetched.unwrap();
    }
    let packs = place.server.asked().iter().filter(|line| line.starts_with("POST")).count();
    assert!((1..=2).contains(&packs), "{:?}", place.server.asked());
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let place = place().await;
    let commit = place.server.commit("own/a", &[FILE]);
    let (kind, text) = place.fetch("own/missing", "v1").await.unwrap_err();
    assert_eq!(kind, CallErrorKind::NotFound);
    assert!(
        text.contains("/own/missing does not exist, or this job may not read it (404"),
        "{text}"
    );
    let (kind, text) = place.fetch("own/a", "v9").await.unwrap_err();
    assert_eq!(kind, CallErrorKind::NotFound);
    assert!(text.contains("has no branch or tag v9"), "{text}");
    let (_, text) = place.fetch("own/a", &commit[..10]).await.unwrap_err();
    assert!(text.contains(&format!("write its whole id: {commit}")), "{text}");
    let (kind, text) = place.fetch("own/a", &"1".repeat(40)).await.unwrap_err();
    assert_eq!(kind, CallErrorKind::NotFound, "{text}");
    assert!(text.contains("/own/a does not give out 1111"), "{text}");
}

#[tokio::test]
async fn a_renamed_repository_is_followed_but_not_to_a_private_place() {
    const REFS: &str = "/info/refs?service=git-upload-pack";
    let (place, other) = (place().await, GitServer::start().await);
    let commit = place.server.commit("own/new", &[FILE]);
    other.commit("own/elsewhere", &[FILE]);
    place.server.redirect(&format!("/own/old{REFS}"), &format!("/own/new{REFS}"));
    assert_eq!(place.fetch("own/old", "main").await.unwrap().commit, commit);
    let away = format!("{}/own/elsewhere{REFS}", other.url());
    place.server.redirect(&format!("/own/away{REFS}"), &away);
    let (kind, text) = place.fetch("own/away", "main").await.unwrap_err();
    assert_eq!(kind, CallErrorKind::Refused, "{text}");
    assert!(other.asked().is_empty(), "{:?}", other.asked());
    place.server.redirect(&format!("/own/loop{REFS}"), &format!("/own/loop{REFS}"));
    let (_, text) = place.fetch("own/loop", "main").await.unwrap_err();
    assert!(text.contains("sends us on and on"), "{text}");
    place.server.redirect(&format!("/own/page{REFS}"), "/login");
    let (_, text) = place.fetch("own/page", "main").await.unwrap_err();
    assert!(text.contains("a place that is no repository"), "{text}");
}

#[tokio::test]
async fn the_pack_comes_from_where_the_branches_were_asked_for() {
    // A server that answers the question and sends the rest elsewhere.
    let (place, other) = (place().await, GitServer::start().await);
    place.server.commit("own/a", &[FILE]);
    let there = format!("{}/own/a/git-upload-pack", other.url());
    place.server.redirect("/own/a/git-upload-pack", &there);
    let (kind, _) = place.fetch("own/a", "main").await.unwrap_err();
    assert_eq!(kind, CallErrorKind::Unavailable);
    assert!(other.asked().is_empty(), "{:?}", other.asked());
}

#[tokio::test]
async fn nothing_of_this_hosts_user_is_used_and_no_hook_runs() {
    let place = place().await;
    place.server.commit("own/a", &[FILE, (".gitattributes", "action.yml filter=evil\n")]);
    // A stranger is refused before anybody is asked.
    let store = place.store(1 << 30);
    let refused = store.fetch(&place.repository("own/a"), "main", &Policy::default()).await;
    assert_eq!(refused.unwrap_err().kind, CallErrorKind::Refused);
    assert!(place.server.asked().is_empty());
    place.fetch("own/a", "main").await.unwrap();
    for line in place.server.asked() {
        assert!(line.contains("/own/a/"), "{line}");
    }
}

#[tokio::test]
async fn the_least_recently_used_goes_first() {
    let place = place().await;
    let large = "x".repeat(100_000);
    let mut commits = Vec::new();
    let store = place.store(250_000);
    for number in 0..3 {
        let text = format!("{number}{large}");
        commits.push(place.server.commit("own/a", &[("action.yml", &text)]));
        let repository = place.repository("own/a");
        store.fetch(&repository, &commits[number], &place.policy()).await.unwrap();
        // The first is used again before the third comes.
        store.fetch(&repository, &commits[0], &place.policy()).await.unwrap();
    }
    let before = place.server.asked().len();
    let fetch = async |commit: &str| {
        store.fetch(&place.repository("own/a"), commit, &place.policy()).await.unwrap();
        place.server.asked().len()
    };
    assert_eq!(fetch(&commits[0]).await, before);
    assert_eq!(fetch(&commits[2]).await, before);
    assert!(fetch(&commits[1]).await > before);
}

/// A directory in which a process worked that was killed.
fn dead(repository: &Path) -> PathBuf {
    let work = repository.join("new-dead");
    fs::create_dir_all(work.join("work/git")).unwrap();
    fs::write(work.join("lock"), "").unwrap();
    fs::write(work.join("work/git/pack"), "x").unwrap();
    work
}

#[tokio::test]
async fn what_the_dead_left_goes_and_what_somebody_works_with_stays() {
    let place = place().await;
    let settings = place.settings(1 << 30);
    for kind in [room::ACTIONS, room::MIRRORS] {
        let repository = settings.directory.join(kind).join("any");
        let lock = store::Lock::alone(&repository).await.unwrap();
        let living = room::work(&repository).unwrap();
        let left = dead(&repository);
        // Of an older version, whose process may live.
        let unlocked = repository.join("new-unlocked");
        fs::create_dir(&unlocked).unwrap();
        sweep(&settings).await;
        assert!(left.exists(), "who holds the repository may be making it");
        drop(lock);
        // A program that another test starts has the lock too until it runs.
        let gone = async {
            while left.exists() {
                sweep(&settings).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("it goes");
        assert!(living.path().exists() && unlocked.exists());
        let day = Duration::from_secs(25 * 3600);
        fs::File::open(&unlocked).unwrap().set_modified(SystemTime::now() - day).unwrap();
        // Whoever works there next removes it too.
        let _lock = store::Lock::alone(&repository).await.unwrap();
        let left = dead(&repository);
        let next = room::work(&repository).unwrap();
        assert!(!left.exists() && !unlocked.exists());
        assert!(living.path().exists() && next.path().exists());
        drop((living, next));
        let names = fs::read_dir(&repository).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), [store::LOCK]);
    }
}

#[tokio::test]
async fn what_is_being_made_counts_and_what_the_dead_left_makes_room() {
    let place = place().await;
    let store = place.store(250_000);
    let mut commits = Vec::new();
    for number in 0..3 {
        let text = format!("{number}{}", "x".repeat(100_000));
        commits.push(place.server.commit("own/a", &[("action.yml", &text)]));
    }
    // Whether a commit is there when it is asked for.
    let fetch = async |commit: &str| {
        let before = place.server.asked().len();
        store.fetch(&place.repository("own/a"), commit, &place.policy()).await.unwrap();
        place.server.asked().len() == before
    };
    let mirror = place.settings(0).directory.join(room::MIRRORS).join("any");
    drop(store::Lock::alone(&mirror).await.unwrap());
    fs::write(dead(&mirror).join("work/large"), "x".repeat(100_000)).unwrap();
    assert!(!fetch(&commits[0]).await);
    assert!(!fetch(&commits[1]).await);
    assert!(fetch(&commits[0]).await, "the dead make room");
    let work = room::work(&mirror).unwrap();
    fs::write(work.path().join("large"), "x".repeat(100_000)).unwrap();
    assert!(!fetch(&commits[2]).await);
    assert!(!fetch(&commits[0]).await, "it went for what is being made");
    assert!(work.path().exists());
}
