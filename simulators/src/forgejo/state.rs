//! What the server knows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::artifacts::Artifact;
use super::calls::{Call, Conduct};
use super::clock::Clock;
use super::faults::Faults;
use super::log::Log;
use super::profile::Profile;
use super::status::Status;
use super::workflow::{Concurrency, Workflow};

/// Whose jobs a runner gets (forgejo-runner-protocol 3.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Those of every repository.
    Global,
    /// Those of the repositories of an owner.
    Owner(String),
    /// Those of one repository, `owner/name`.
    Repository(String),
}

impl Scope {
    /// Whether its runners serve another scope too.
    pub(super) fn is_above(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Global, _) => true,
            (Self::Owner(owner), Self::Repository(name)) => owner_of(name) == owner,
            _ => false,
        }
    }

    /// Whether it covers a repository.
    pub(super) fn covers(&self, repository: &str) -> bool {
        match self {
            Self::Global => true,
            Self::Owner(owner) => owner_of(repository) == owner,
            Self::Repository(name) => name == repository,
        }
    }
}

/// The first part of `owner/name`.
pub(super) fn owner_of(repository: &str) -> &str {
    repository.split_once('/').map_or(repository, |(owner, _)| owner)
}

/// Everything a server keeps.
#[derive(Debug)]
pub(super) struct State {
    pub(super) profile: Profile,
    pub(super) clock: Clock,
    /// Where it is reached, without a slash at the end.
    pub(super) url: String,
    /// Where `uses: owner/repo@ref` is looked for, without a slash at the end.
    pub(super) actions_url: String,
    /// Repositories that everybody may read.
    pub(super) public: HashSet<String>,
    /// The least time between two fetches of a runner.
    pub(super) fetch_minimum: Option<Duration>,
    /// Bytes from which a proxy in front answers 413.
    pub(super) body_limit: Option<usize>,
    /// What tasks carry instead of their workflows.
    pub(super) payload: Option<Vec<u8>>,
    /// Connections get no answer.
    pub(super) down: bool,
    pub(super) last_id: i64,
    pub(super) registration_tokens: HashMap<String, Scope>,
    /// Tokens of users of the REST API, who may do everything.
    pub(super) api_tokens: HashSet<String>,
    pub(super) runners: BTreeMap<i64, Runner>,
    /// Secrets and variables of repositories, owners and, as `""`, of the instance.
    pub(super) settings: BTreeMap<String, Settings>,
    pub(super) runs: BTreeMap<i64, Run>,
    pub(super) jobs: BTreeMap<i64, Job>,
    pub(super) tasks: BTreeMap<i64, Task>,
    pub(super) artifacts: BTreeMap<i64, Artifact>,
    /// What signs the tokens and addresses that only the server reads.
    pub(super) secret: [u8; 32],
    pub(super) versions: HashMap<Scope, i64>,
    pub(super) calls: Vec<Call>,
    pub(super) violations: Vec<String>,
    pub(super) faults: Faults,
    /// Two log calls of one task at once, the earlier first: it counts if that one is still answered.
    pub(super) overlaps: Vec<(usize, usize)>,
}

/// Secrets and variables.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) secrets: BTreeMap<String, String>,
    pub(super) variables: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub(super) struct Runner {
    pub(super) id: i64,
    pub(super) uuid: String,
    pub(super) token: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) scope: Scope,
    pub(super) labels: Vec<String>,
    pub(super) ephemeral: bool,
    pub(super) last_online: Option<SystemTime>,
    pub(super) last_active: Option<SystemTime>,
    /// When it fetched last, by the machine's clock.
    pub(super) last_fetch: Option<Instant>,
    /// Request keys under which it got an answer.
    pub(super) answered_keys: HashSet<String>,
}

/// What started a run.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) event: String,
    pub(super) payload: Value,
    pub(super) reference: String,
    pub(super) sha: String,
    pub(super) base: String,
    pub(super) head: String,
    pub(super) actor: String,
    /// A pull request of a fork.
    pub(super) fork: bool,
    pub(super) inputs: Value,
}

#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) id: i64,
    pub(super) number: i64,
    pub(super) repository: String,
    pub(super) file: String,
    pub(super) workflow: Workflow,
    pub(super) origin: Origin,
    pub(super) concurrency: Option<Concurrency>,
    pub(super) priority: i64,
    pub(super) attempt: i64,
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: i64,
    pub(super) run: i64,
    pub(super) key: String,
    pub(super) name: String,
    pub(super) runs_on: Vec<String>,
    pub(super) payload: String,
    pub(super) titles: Vec<String>,
    pub(super) needs: Vec<String>,
    pub(super) condition: Option<String>,
    pub(super) status: Status,
    pub(super) task: Option<i64>,
    pub(super) attempt: i64,
    pub(super) handle: String,
    pub(super) updated: SystemTime,
    /// Its matrix or labels depend on outputs of jobs that it needs.
    pub(super) incomplete: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) id: i64,
    pub(super) job: i64,
    pub(super) run: i64,
    pub(super) attempt: i64,
    pub(super) runner: i64,
    pub(super) runner_uuid: String,
    pub(super) status: Status,
    pub(super) started: SystemTime,
    pub(super) stopped: Option<SystemTime>,
    pub(super) updated: SystemTime,
    pub(super) steps: Vec<Step>,
    pub(super) log: Log,
    pub(super) outputs: BTreeMap<String, String>,
    pub(super) token: String,
    pub(super) runtime_token: String,
    /// What must not be in anything that is shown: secrets and every token it ever had.
    pub(super) hidden: Vec<String>,
    pub(super) request_key: Option<String>,
    pub(super) conduct: Conduct,
}

/// A step row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) title: String,
    pub(super) status: Status,
    pub(super) started: Option<SystemTime>,
    pub(super) stopped: Option<SystemTime>,
    pub(super) index: i64,
    pub(super) length: i64,
}

impl Step {
    pub(super) fn new(title: String) -> Self {
        Self { title, status: Status::Waiting, started: None, stopped: None, index: 0, length: 0 }
    }
}

impl State {
    pub(super) fn new(profile: Profile, clock: Clock, url: String) -> Self {
        Self {
            profile,
            clock,
            url,
            actions_url: "https://data.forgejo.org".to_owned(),
            public: HashSet::new(),
            fetch_minimum: None,
            body_limit: None,
            payload: None,
            down: false,
            last_id: 0,
            registration_tokens: HashMap::new(),
            api_tokens: HashSet::new(),
            runners: BTreeMap::new(),
            settings: BTreeMap::new(),
            runs: BTreeMap::new(),
            jobs: BTreeMap::new(),
            tasks: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            secret: rand::random(),
            versions: HashMap::new(),
            calls: Vec::new(),
            violations: Vec::new(),
            faults: Faults::default(),
            overlaps: Vec::new(),
        }
    }

    /// An id that nothing else has: who takes one kind for another is found out.
    pub(super) fn new_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    /// The jobs of a run, in order.
    pub(super) fn jobs_of(&self, run: i64) -> impl Iterator<Item = &Job> {
        self.jobs.values().filter(move |job| job.run == run)
    }

    /// The status of a run.
    pub(super) fn status_of(&self, run: i64) -> Status {
        Status::of_all(self.jobs_of(run).map(|job| job.status))
    }

    /// Settings of an instance (`""`), an owner or a repository, later ones over earlier ones.
    pub(super) fn merged<'a>(
        &self,
        places: impl IntoIterator<Item = &'a str>,
        pick: impl Fn(&Settings) -> &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut merged = BTreeMap::new();
        for settings in places.into_iter().filter_map(|place| self.settings.get(place)) {
            merged.extend(pick(settings).clone());
        }
        merged
    }

    /// The counter of a scope (forgejo-runner-protocol 4.1).
    pub(super) fn version(&self, scope: &Scope) -> i64 {
        self.versions.get(scope).copied().unwrap_or(1)
    }

    /// Raises the counters of all scopes that cover a repository.
    pub(super) fn raise_versions(&mut self, repository: &str) {
        let scopes = [
            Scope::Global,
            Scope::Owner(owner_of(repository).to_owned()),
            Scope::Repository(repository.to_owned()),
        ];
        for scope in scopes {
            *self.versions.entry(scope).or_insert(1) += 1;
        }
    }
}

/// 20 random bytes in hexadecimal: a token, or a commit.
pub(super) fn hexadecimal() -> String {
    hex::encode(rand::random::<[u8; 20]>())
}
