//! JobRequest: one run attempt of one job, as a forge runner hands it to an orchestrator.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::ids::{JobId, ReservationId, RunId};
use crate::plan::Plan;
use crate::size::ByteSize;

/// The version of JobRequest and JobEvent that this program speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// One run attempt of one job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRequest {
    /// What schedulers may read.
    pub envelope: Envelope,
    /// Everything else; sealed wherever it rests or travels outside this process.
    pub body: JobBody,
}

/// The part of a JobRequest that is not sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// [`PROTOCOL_VERSION`] when written by this program.
    pub version: u16,
    /// The job.
    pub job: JobId,
    /// Where the job comes from.
    pub forge: Forge,
    /// `owner/name` of the repository.
    pub repository: String,
    /// The label that names the image.
    pub label: String,
    /// The machine's size where it differs from the image's default.
    pub size: MachineSize,
    /// Higher starts first; 0 is ordinary.
    pub priority: i32,
    /// The limits on the job as a whole.
    pub deadlines: Deadlines,
    /// The address to which events go.
    pub reply_to: String,
    /// The reservation that the job was claimed against.
    pub reservation: Option<ReservationId>,
}

/// Where a job comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forge {
    /// A person at a terminal: `solstice run`.
    Local,
    /// GitHub.
    Github,
    /// Forgejo.
    Forgejo,
    /// Gitea.
    Gitea,
}

/// A machine's size; what is absent comes from the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineSize {
    /// Number of virtual processors.
    pub cpus: Option<u32>,
    /// Bytes of memory.
    pub memory: Option<ByteSize>,
}

/// The limits on a job as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadlines {
    /// How long the job may wait for a host.
    pub queued: Duration,
    /// How long the job may run, counted from its first step; the plan's own limit counts too.
    pub running: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { queued: Duration::from_secs(24 * 3600), running: Duration::from_secs(6 * 3600) }
    }
}

/// The sealed part of a JobRequest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobBody {
    /// What to do.
    pub plan: Plan,
    /// The contexts that the forge delivers.
    pub contexts: Contexts,
    /// The job's secrets by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Further values that must not appear in the log.
    pub masks: Vec<Secret>,
    /// The local working tree that `actions/checkout` places in the workspace, for `solstice run`.
    pub tree: Option<PathBuf>,
    /// Whether a step of the plan places the tree. If none does, the tree is for a label whose images
    /// check out by themselves, and no other is sent it.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub has_checkout: bool,
    /// How long a failed machine is kept for its user; absent means not at all.
    pub keep: Option<Duration>,
    /// Whether it is kept frozen, in files instead of memory.
    #[serde(default, skip_serializing_if = "is_no")]
    pub keep_frozen: bool,
    /// Where actions are that name no host, where the forge says so; absent means the place of the
    /// plan's dialect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions_url: Option<String>,
    /// The run that the job belongs to, where no forge keeps its artifacts: then the host does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The services that the job may reach through the host: of its forge, and none of ours.
    #[serde(default)]
    pub services: Vec<Service>,
    /// The wish for a session in the machine if the job fails. No part of this version grants it yet.
    #[serde(default)]
    pub debug: Option<DebugWish>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_no(value: &bool) -> bool {
    !value
}

/// Programs that know no [`JobBody::has_checkout`] send a tree only where a step places it.
fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

/// A service of a job's forge that programs in the guest reach through the host, which adds TLS and
/// forwards bytes without knowing what they mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// By what the guest program asks for it, such as `cache`.
    pub name: String,
    /// Where it is, as an `http` or `https` URL without user and password.
    pub base_url: String,
    /// Which of the job's [`JobBody::secrets`] is sent as bearer token; absent means none.
    pub token: Option<String>,
    /// Beginnings of the paths that may be asked for, each with its slash; nothing else is forwarded.
    pub paths: Vec<String>,
}

/// A person's wish to look into the machine of a job that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugWish {
    /// The public keys that may log in, as lines of OpenSSH's `authorized_keys` without options:
    /// those that the forge publishes for whoever triggered the run.
    pub keys: Vec<String>,
}

/// The contexts that the forge delivers with a job. Keys keep their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contexts {
    /// `github`, with `event` in it; `forgejo` and `gitea` are other names for it.
    pub github: Map<String, Json>,
    /// `vars`.
    pub vars: Map<String, Json>,
    /// `needs`.
    pub needs: Map<String, Json>,
    /// `matrix`; null where the job has none.
    pub matrix: Json,
    /// `strategy`.
    pub strategy: Map<String, Json>,
    /// `inputs`.
    pub inputs: Map<String, Json>,
}

/// A value that must not be seen. Its debug form shows nothing of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself; the caller keeps it out of logs, files and command lines.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}
