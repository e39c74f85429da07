//! The submodules of a commit: each is fetched as any other commit, by the same rules, and placed where
//! the repository above it says.

use std::time::Duration;

use common::call::{CallError, CallErrorKind, Submodules, TreeWish};
use reqwest::Url;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::modules::{self, Module, SUBMODULES, locate, refused, too_many};
use super::parts::{BYTES, Part};
use super::tree::TreeStore;
use super::{Policy, Repository, export, git, room};

/// How deep submodules may lie in submodules.
const DEPTH: usize = 10;

/// How long all submodules of one tree may take.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

/// What was fetched, with the submodules that are wished.
///
/// # Errors
/// One of them must not be fetched, or cannot be; or there are too many.
pub(super) async fn with_all(
    store: &TreeStore,
    top: (Part, &Repository),
    wish: &TreeWish,
    policy: &Policy,
) -> Result<Vec<Part>, CallError> {
    let (part, repository) = top;
    if wish.submodules == Submodules::None {
        return Ok(vec![part]);
    }
    let all = All { store, forge: repository, wish, policy };
    timeout(DEADLINE, all.fetch(part)).await.map_err(|_| {
        let text = format!("the submodules were not fetched in {DEADLINE:?}");
        CallError::new(CallErrorKind::Unavailable, text)
    })?
}

/// All submodules of a tree.
struct All<'a> {
    store: &'a TreeStore,
    /// The repository at the top: the job's token is for its origin only.
    forge: &'a Repository,
    wish: &'a TreeWish,
    policy: &'a Policy,
}

impl All<'_> {
    async fn fetch(&self, top: Part) -> Result<Vec<Part>, CallError> {
        let mut bytes = size(&top).await;
        let mut parts = vec![top];
        // Where each of them is, and how deep.
        let mut known = vec![(self.forge.clone(), 0)];
        let mut next = 0;
        while let Some(above) = parts.get_mut(next) {
            let (repository, depth) = known[next].clone();
            let is_wished = depth == 0 || self.wish.submodules == Submodules::Nested;
            let modules = match is_wished {
                true => modules::read(above.work.path()).await.map_err(|e| inside(above, e))?,
                false => Vec::new(),
            };
            if depth == DEPTH && !modules.is_empty() {
                let place = &above.place.files;
                return Err(refused(format!(
                    "the submodule {place} has submodules that lie more than {DEPTH} deep"
                )));
            }
            if known.len() - 1 + modules.len() > SUBMODULES {
                return Err(too_many());
            }
            let place = above.place.clone();
            for module in modules {
                let place = place.below(&module.path, &module.name);
                let path = place.files.clone();
                let located = locate(&module.url, &repository, self.forge.origin());
                let located = located.map_err(|why| {
                    refused(format!("the submodule {path} is not fetched: {why}"))
                })?;
                let url = located.url();
                let wish = self.wish_for(&module, &located);
                let part = self.store.part(&located, &wish, self.policy, place).await;
                let part = part.map_err(|error| cannot(&path, &url, &module.commit, &error))?;
                bytes += size(&part).await;
                if bytes > BYTES {
                    let text = format!("the submodules have more than {BYTES} bytes");
                    return Err(refused(text));
                }
                parts[next].configuration.push_str(&export::section(&module.name, &url));
                parts.push(part);
                known.push((located, depth + 1));
            }
            next += 1;
        }
        Ok(parts)
    }

    fn wish_for(&self, module: &Module, repository: &Repository) -> TreeWish {
        let is_home = repository.origin() == self.forge.origin();
        TreeWish {
            repository: String::new(),
            reference: String::new(),
            commit: Some(module.commit.clone()),
            token: self.wish.token.clone().filter(|_| is_home),
            submodules: Submodules::None,
            sparse: None,
            ..*self.wish
        }
    }
}

/// An error about the submodules of a part.
fn inside(part: &Part, error: CallError) -> CallError {
    if part.place.is_top() {
        return error;
    }
    let text = format!("in the submodule {}: {}", part.place.files, error.message);
    CallError::new(error.kind, text)
}

fn cannot(path: &str, url: &Url, commit: &str, error: &CallError) -> CallError {
    let what = format!("the submodule {path} ({url} at {commit}) cannot be fetched");
    let said = &error.message;
    if git::refuses_ids(error) {
        let text = format!(
            "{what}: its server does not give out this commit; push it there, or let the submodule \
             stand at the end of a branch or at a tag ({said})"
        );
        return CallError::new(CallErrorKind::NotFound, text);
    }
    CallError::new(error.kind, format!("{what}: {said}"))
}

/// The bytes of what was made for a part.
async fn size(part: &Part) -> u64 {
    let path = part.work.path().to_owned();
    // What cannot be counted is counted when it is sent.
    spawn_blocking(move || room::size(&path)).await.unwrap_or_default()
}
