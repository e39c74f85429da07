//! The conformance workflows of `workflow-runner/tests/workflows`, in the dialects of both forges, by
//! the engine on this host and by the guest program in a machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod actions;
mod case;
mod compare;
mod document;
mod given;
mod here;
#[path = "../../../vm-manager/tests/guest/host.rs"]
#[expect(dead_code, reason = "the tests of machines need more of it")]
mod host;
mod served;
mod there;

use std::fmt::Write;
use std::sync::Arc;

use common::guest::JobDocument;
use common::plan::Dialect;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use case::Case;
use here::Played;
use there::There;

/// Jobs at a time on this host: most of a job is waiting for its processes.
const HERE: usize = 4;

/// Jobs at a time in the machine, which has one processor: one waits for the host while the other
/// runs.
const THERE: usize = 2;

/// The forges whose rules are checked. Gitea's are Forgejo's but for what its table says.
const DIALECTS: [Dialect; 2] = [Dialect::Github, Dialect::Forgejo];

/// Where jobs run.
#[derive(Clone)]
enum Stage {
    /// On this host.
    Here,
    /// In a machine.
    There(Arc<There>),
}

#[tokio::test(flavor = "multi_thread")]
async fn every_workflow_on_this_host() {
    check(&Stage::Here, HERE, case::all()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_workflow_in_a_machine() {
    let host = host::Host::new();
    let instance = host.instance();
    let there = Arc::new(There::boot(&instance).await);
    let cases = case::all().into_iter().filter(|case| !case.is_slow()).collect();
    check(&Stage::There(there.clone()), THERE, cases).await;
    Arc::into_inner(there).unwrap().stop().await;
    drop(instance);
    host.assert_empty();
}

/// Plays every case in every dialect that it is for, so many at a time, and compares.
async fn check(stage: &Stage, at_a_time: usize, cases: Vec<Case>) {
    let room = Arc::new(Semaphore::new(at_a_time));
    let mut jobs = JoinSet::new();
    for case in cases {
        for dialect in DIALECTS.into_iter().filter(|dialect| case.is_for(*dialect)) {
            let (case, room, stage) = (case.clone(), room.clone(), stage.clone());
            jobs.spawn(async move {
                let _room = room.acquire().await.unwrap();
                findings(&case, dialect, &stage).await
            });
        }
    }
    let runs = jobs.len();
    let findings: Vec<String> = jobs.join_all().await.into_iter().flatten().collect();
    let all = findings.iter().fold(String::new(), |mut all, finding| {
        writeln!(all, "{finding}").unwrap();
        all
    });
    assert!(findings.is_empty(), "{} of {runs} differ:\n{all}", findings.len());
}

/// Runs a workflow by a forge's rules; what differs from what is expected, or nothing.
async fn findings(case: &Case, dialect: Dialect, stage: &Stage) -> Option<String> {
    let found = match given::document(case, dialect) {
        Ok(document) => {
            let played = stage.play(document, case.has_node()).await;
            compare::compare(case, dialect, &played)
        }
        Err(refusal) if case.may_be_refused(dialect) => {
            assert!(refusal.starts_with(&format!("{}.yml:", case.name)), "no place: {refusal}");
            return None;
        }
        Err(refusal) => vec![format!("it is refused: {refusal}")],
    };
    let found = match case.unmet(dialect) {
        None if found.is_empty() => return None,
        None => found,
        Some(_) if !found.is_empty() => return None,
        Some(unmet) => vec![format!("it is met, but said not to be: {unmet}")],
    };
    Some(format!("== {} ({}): {}\n{}", case.name, dialect.name(), case.about(), found.join("\n")))
}

impl Stage {
    async fn play(&self, document: JobDocument, has_node: bool) -> Played {
        match self {
            Self::Here => here::play(document, has_node).await,
            Self::There(there) => there.play(document, has_node).await,
        }
    }
}
