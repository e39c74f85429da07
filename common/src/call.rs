//! Calls of the guest program to its host, on the connection on which the job's events go.
//!
//! ```text
//!  orchestrator                                  guest
//!      │◀──────────────── Ask::Begin {call} ───────│  a number that the guest chose
//!      │◀──────────────── Ask::Data, Ask::End ─────│  the body, as far as there is room
//!      │── Reply::Room ───────────────────────────▶│  more of it
//!      │── Reply::Head {answer or error} ─────────▶│
//!      │── Reply::Data, Reply::End ───────────────▶│  the body of the answer
//!      │◀──────────────── Ask::Room ───────────────│
//!      │◀──────────────── Ask::Drop ───────────────│  the guest wants no more of it
//! ```
//!
//! Each side may send [`CALL_ROOM_BYTES`] of a body, and then as much as the other grants. A call ends
//! with its answer: behind an error as its head, behind [`Reply::End`], [`Reply::Broken`] or
//! [`Ask::Drop`]. What the guest still had on its way then is no fault. An answer may begin before the
//! body of its call is complete, and the rest of that is of no interest then.
//!
//! Calls live on one connection. When it is lost, so are they, and the guest makes them again: whatever
//! a call does may be done twice. A request whose body is at hand no more is not made again; whoever
//! made it is told that it got no answer.

use serde::{Deserialize, Serialize};

use crate::guest::GuestService;
use crate::request::Secret;

/// The bytes of a body that may be sent before room was granted.
pub const CALL_ROOM_BYTES: u32 = 256 * 1024;
/// The bytes of a body in one message.
pub const CALL_DATA_BYTES: usize = 32 * 1024;
/// Calls that may be open at the same time. Further ones are answered with [`CallErrorKind::Busy`].
pub const OPEN_CALLS: usize = 64;

/// What a guest asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostCall {
    /// The files of an action, as an uncompressed tar archive without a directory around them.
    Action {
        /// What stands in `uses` without the path inside the repository: `owner/name@version`, or an
        /// address with the version behind it.
        reference: String,
    },
    /// A commit of a repository of the job's forge, as an uncompressed tar archive of its files with
    /// `.git` beside them.
    Tree(TreeWish),
    /// A request to one of the job's services; the body of the answer is that of the call's.
    Forward(ForwardWish),
    /// One of the archives, in the frame format of LZ4: a guest unpacks that many times sooner than it
    /// deciphers what the connection would carry otherwise.
    Packed(Box<HostCall>),
}

impl HostCall {
    /// Whether a body comes with it.
    #[must_use]
    pub fn has_body(&self) -> bool {
        matches!(self, Self::Forward(ForwardWish { has_body: true, .. }))
    }
}

/// The service that keeps caches, on the host itself.
pub const CACHE_SERVICE: &str = "cache";

/// What stands before the paths of the first version of its protocol (forgejo-runner-protocol 8.8).
pub const CACHE_PATH: &str = "/_apis/artifactcache/";

/// What stands before those of the second (github-runner-protocol 8.5).
pub const CACHE_CALLS: &str = "/twirp/github.actions.results.api.v1.CacheService/";

/// The host's own service for caches, which no forge names.
#[must_use]
pub fn cache_service() -> GuestService {
    GuestService {
        name: CACHE_SERVICE.to_owned(),
        base_url: String::new(),
        token: None,
        paths: vec![CACHE_PATH.to_owned(), CACHE_CALLS.to_owned()],
    }
}

/// The host's own service for artifacts, for a job of a run that no forge knows of.
#[must_use]
pub fn artifact_service(token: Option<Secret>) -> GuestService {
    GuestService {
        name: ARTIFACT_SERVICE.to_owned(),
        base_url: String::new(),
        token,
        paths: [ARTIFACT_CALLS, ARTIFACT_FILES, OLDER_ARTIFACT_CALLS].map(str::to_owned).to_vec(),
    }
}

/// The service that keeps artifacts: the forge's, or the host's for a job that has no forge.
pub const ARTIFACT_SERVICE: &str = "artifacts";

/// What stands before the calls of its fourth version (forgejo-runner-protocol 8.9).
pub const ARTIFACT_CALLS: &str = "/twirp/github.actions.results.api.v1.ArtifactService/";

/// What stands before the calls of its older versions (forgejo-runner-protocol 8.9).
pub const OLDER_ARTIFACT_CALLS: &str = "/api/actions_pipeline/";

/// What stands before the files of the artifacts that the host keeps: clients take the first two names
/// for an account and a container.
pub const ARTIFACT_FILES: &str = "/_apis/artifacts/files/";

/// Whether a character may stand in the path of a file in an artifact. The originals refuse what Windows
/// could not have (forgejo-runner-protocol 8.9).
#[must_use]
pub fn may_be_in_artifact(character: char) -> bool {
    !"\":<>|*?\r\n".contains(character)
}

/// Whether a character may stand in the name of an artifact (forgejo-runner-protocol 8.9).
#[must_use]
pub fn may_name_artifact(character: char) -> bool {
    may_be_in_artifact(character) && !matches!(character, '/' | '\\')
}

/// The service that makes tokens which say who a job is.
pub const ID_SERVICE: &str = "oidc";

/// The bytes of a path with its query, and of the names and values of all headers.
pub const FORWARD_HEAD_BYTES: usize = 64 * 1024;

/// An HTTP request to a service of the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardWish {
    /// Which, by its name in the job.
    pub service: String,
    /// `GET`, `HEAD`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// The path below the service's address, beginning with a slash, and the query.
    pub path: String,
    /// Headers but for those that are about one connection. The `host` is where the program in the
    /// guest found the service.
    pub headers: Vec<(String, String)>,
    /// Whether a body follows.
    pub has_body: bool,
}

/// Which commit of which repository, and how much of its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeWish {
    /// `owner/name`.
    pub repository: String,
    /// The name of a branch or tag, alone or with `refs/` in front, or the whole id of a commit; empty
    /// for the branch that the repository begins with.
    pub reference: String,
    /// The commit, where it is known; `reference` names it in `.git` then.
    pub commit: Option<String>,
    /// How many commits of the history; 0 for all.
    pub depth: u32,
    /// Whether all tags come too.
    pub tags: bool,
    /// What the forge lets in by.
    pub token: Option<Secret>,
    /// Whether git in the guest finds that too.
    pub keeps_token: bool,
    /// Which submodules come too.
    #[serde(default)]
    pub submodules: Submodules,
    /// Which files come; all of them where it is absent.
    #[serde(default)]
    pub sparse: Option<Sparse>,
}

/// Which submodules of a repository come with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Submodules {
    /// None.
    #[default]
    None,
    /// Its own.
    Own,
    /// Its own, and those of submodules.
    Nested,
}

/// Which files of a commit are wanted (git-sparse-checkout(1)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sparse {
    /// Directories, or patterns as in `.gitignore`.
    pub patterns: Vec<String>,
    /// Whether they are directories; the files beside and above those come too.
    pub is_cone: bool,
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallAnswer {
    /// The archive follows.
    Action {
        /// The commit that the version stands for.
        commit: String,
    },
    /// The archive follows.
    Tree {
        /// The commit.
        commit: String,
    },
    /// The service has answered; the body follows.
    Forward {
        /// The status, from 100 to 999.
        status: u16,
        /// Headers but for those that are about one connection.
        headers: Vec<(String, String)>,
    },
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// Of which kind the reason is.
    pub kind: CallErrorKind,
    /// A sentence without a full stop: what happened, and what to do.
    pub message: String,
}

impl CallError {
    /// An error of this kind.
    pub fn new(kind: CallErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// The kinds of reasons why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallErrorKind {
    /// What was asked for does not exist.
    NotFound,
    /// The host must not do it.
    Refused,
    /// It may work another time.
    Unavailable,
    /// The call makes no sense.
    Invalid,
    /// There are [`OPEN_CALLS`] already.
    Busy,
}

/// A message about a call to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// A new call.
    Begin(HostCall),
    /// A part of its body, up to [`CALL_DATA_BYTES`].
    Data(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Its body is complete.
    End,
    /// So many more bytes of the answer may be sent.
    Room(u32),
    /// The guest wants nothing more of it.
    Drop,
}

/// A message about a call to the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The answer begins, or there is none.
    Head(Result<CallAnswer, CallError>),
    /// A part of its body, up to [`CALL_DATA_BYTES`].
    Data(#[serde(with = "serde_bytes")] Vec<u8>),
    /// It is complete.
    End,
    /// It will never be complete.
    Broken(CallError),
    /// So many more bytes of the call's body may be sent.
    Room(u32),
}
