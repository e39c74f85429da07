//! The server as tests use it.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::calls::{Call, Rpc};
use super::clock::Clock;
use super::faults::FaultSwitch;
use super::profile::Profile;
use super::runners::Identity;
use super::server::{self, Accepting, Shared};
use super::state::{Scope, Settings, State, hexadecimal};
use super::trigger::{RunId, Trigger};
use super::view::{JobView, RunView};
use crate::git::Repositories;

/// Calls that a dump shows.
const DUMPED: usize = 40;

/// How a server is started.
#[derive(Clone, Debug)]
#[must_use = "nothing starts before `start`"]
pub struct Builder {
    profile: Profile,
    sub_path: String,
    clock: Clock,
    actions_url: Option<String>,
    fetch_minimum: Option<Duration>,
    body_limit: Option<usize>,
}

impl Builder {
    /// Which server it is like.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// The path below which it is, such as `/git`.
    pub fn sub_path(mut self, path: &str) -> Self {
        let path = path.trim_matches('/');
        self.sub_path = if path.is_empty() { String::new() } else { format!("/{path}") };
        self
    }

    /// Its clock, for several servers with one.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Where `uses: owner/repo@ref` is looked for, which is at Forgejo's if nothing else is said.
    pub fn actions_url(mut self, url: &str) -> Self {
        self.actions_url = Some(url.trim_end_matches('/').to_owned());
        self
    }

    /// The least time between two fetches of a runner; less is a violation.
    pub fn fetch_minimum(mut self, minimum: Duration) -> Self {
        self.fetch_minimum = Some(minimum);
        self
    }

    /// Bytes of a body above which a proxy in front answers 413.
    pub fn body_limit(mut self, limit: usize) -> Self {
        self.body_limit = Some(limit);
        self
    }

    /// Starts it on a free port of the loopback address.
    ///
    /// # Panics
    /// There is no port.
    pub async fn start(self) -> Forge {
        let (listener, address) = server::bind().await.expect("the system has a free port");
        let url = format!("http://{address}{}", self.sub_path);
        let mut state = State::new(self.profile, self.clock, url);
        state.actions_url = self.actions_url.unwrap_or(state.actions_url);
        state.fetch_minimum = self.fetch_minimum;
        state.body_limit = self.body_limit;
        let shared = Arc::new(Shared::new(state));
        let accepting = server::serve(listener, &shared, &self.sub_path);
        Forge { shared, _accepting: Arc::new(accepting) }
    }
}

/// A Forgejo or Gitea of a test, see [`forgejo`](super). Its clones are one server, which ends with the
/// last of them.
#[derive(Clone, Debug)]
pub struct Forge {
    pub(super) shared: Arc<Shared>,
    _accepting: Arc<Accepting>,
}

impl Forge {
    /// Starts a server.
    pub async fn start(profile: Profile) -> Self {
        Self::builder().profile(profile).start().await
    }

    /// A server that is like Forgejo 15 unless something else is said.
    pub fn builder() -> Builder {
        Builder {
            profile: Profile::V15,
            sub_path: String::new(),
            clock: Clock::default(),
            actions_url: None,
            fetch_minimum: None,
            body_limit: None,
        }
    }

    /// Where it is, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        self.shared.lock().url.clone()
    }

    /// Which server it is like.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.shared.lock().profile
    }

    /// Makes it a newer or older server: an upgrade.
    pub fn set_profile(&self, profile: Profile) {
        self.shared.change(|state| state.profile = profile);
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.shared.lock().clock.clone()
    }

    /// Does what the server does by its clock: ends tasks that nobody reports, tasks that run too long
    /// and jobs that nobody wants.
    pub fn reap(&self) {
        self.shared.change(State::reap);
    }

    /// A token with which runners register in a scope, as often as they like.
    #[must_use]
    pub fn registration_token(&self, scope: Scope) -> String {
        let token = hexadecimal();
        self.shared.change(|state| state.registration_tokens.insert(token.clone(), scope));
        token
    }

    /// Makes a registration token useless.
    pub fn revoke_registration_token(&self, token: &str) {
        self.shared.change(|state| state.registration_tokens.remove(token));
    }

    /// A token of an administrator for the REST API.
    #[must_use]
    pub fn api_token(&self) -> String {
        let token = hexadecimal();
        self.shared.change(|state| state.api_tokens.insert(token.clone()));
        token
    }

    /// Makes a runner, as the web pages do.
    #[must_use]
    pub fn create_runner(&self, name: &str, scope: Scope) -> Identity {
        self.add_runner(name, scope, false)
    }

    /// Makes a runner that gets one task in its life.
    #[must_use]
    pub fn create_ephemeral_runner(&self, name: &str, scope: Scope) -> Identity {
        self.add_runner(name, scope, true)
    }

    fn add_runner(&self, name: &str, scope: Scope, ephemeral: bool) -> Identity {
        self.shared.change(|state| {
            let id = state.add_runner(name, scope, ephemeral);
            let runner = &state.runners[&id];
            Identity { uuid: runner.uuid.clone(), token: runner.token.clone() }
        })
    }

    /// Makes the runner of a shared secret for all repositories.
    ///
    /// # Panics
    /// The secret is not 40 hexadecimal characters.
    pub fn register_secret(&self, secret: &str) -> Identity {
        self.shared.change(|state| state.register_secret(secret, Scope::Global))
    }

    /// Deletes a runner. Its tasks go on, and nobody can report them.
    pub fn delete_runner(&self, uuid: &str) {
        self.shared.change(|state| state.runners.retain(|_, runner| runner.uuid != uuid));
    }

    /// The uuids of all runners.
    #[must_use]
    pub fn runners(&self) -> Vec<String> {
        self.shared.lock().runners.values().map(|runner| runner.uuid.clone()).collect()
    }

    /// The labels that a runner declared; nothing if there is no such runner.
    #[must_use]
    pub fn labels(&self, uuid: &str) -> Option<Vec<String>> {
        self.of_runner(uuid, |runner| runner.labels.clone())
    }

    /// The version that a runner declared.
    #[must_use]
    pub fn version(&self, uuid: &str) -> Option<String> {
        self.of_runner(uuid, |runner| runner.version.clone())
    }

    /// When a runner called last, and when it reported last.
    #[must_use]
    pub fn seen(&self, uuid: &str) -> Option<(Option<SystemTime>, Option<SystemTime>)> {
        self.of_runner(uuid, |runner| (runner.last_online, runner.last_active))
    }

    fn of_runner<T>(&self, uuid: &str, pick: impl FnOnce(&super::state::Runner) -> T) -> Option<T> {
        self.shared.lock().runners.values().find(|runner| runner.uuid == uuid).map(pick)
    }

    /// Sets a secret of a repository (`owner/name`) or of an owner.
    pub fn set_secret(&self, place: &str, name: &str, value: &str) {
        self.set(place, |settings| settings.secrets.insert(name.to_uppercase(), value.to_owned()));
    }

    /// Sets a variable of a repository, of an owner, or, for `""`, of the instance.
    pub fn set_var(&self, place: &str, name: &str, value: &str) {
        self.set(place, |settings| {
            settings.variables.insert(name.to_uppercase(), value.to_owned())
        });
    }

    fn set<T>(&self, place: &str, change: impl FnOnce(&mut Settings) -> T) {
        self.shared.change(|state| {
            change(state.settings.entry(place.to_owned()).or_default());
        });
    }

    /// Pushes a workflow file and starts it by that.
    ///
    /// # Panics
    /// As [`Trigger::push`].
    pub fn push_workflow(&self, repository: &str, file: &str, yaml: &str) -> RunId {
        self.trigger(repository, file, yaml).push()
    }

    /// Its repositories, as git sees them. Each is its jobs' alone unless it is
    /// [public](Self::make_public).
    #[must_use]
    pub fn git(&self) -> &Repositories {
        &self.shared.git
    }

    /// Lets everybody read a repository.
    pub fn make_public(&self, repository: &str) {
        self.shared.change(|state| state.public.insert(repository.to_owned()));
    }

    /// Lets a repository be its jobs' alone again.
    pub fn make_private(&self, repository: &str) {
        self.shared.change(|state| state.public.remove(repository));
    }

    /// Starts a workflow file by an event.
    pub fn trigger(&self, repository: &str, file: &str, yaml: &str) -> Trigger<'_> {
        Trigger::new(&self.shared, repository, file, yaml)
    }

    /// Cancels a run, as a user does.
    pub fn cancel(&self, run: RunId) {
        self.shared.change(|state| state.cancel(run.0));
    }

    /// Runs all jobs of an ended run again.
    ///
    /// # Panics
    /// It has not ended.
    pub fn rerun(&self, run: RunId) {
        self.shared.change(|state| {
            assert!(state.status_of(run.0).is_done(), "run {run} has not ended");
            state.rerun(run.0);
        });
    }

    /// All runs, the oldest first.
    #[must_use]
    pub fn runs(&self) -> Vec<RunId> {
        self.shared.lock().runs.keys().copied().map(RunId).collect()
    }

    /// What a user sees of a run.
    ///
    /// # Panics
    /// There is no such run.
    #[must_use]
    pub fn view(&self, run: RunId) -> RunView {
        self.shared.lock().view(run, None).unwrap_or_else(|| panic!("there is no run {run}"))
    }

    /// What a user sees of an older attempt of a run.
    ///
    /// # Panics
    /// There is no such run.
    #[must_use]
    pub fn view_of_attempt(&self, run: RunId, attempt: i64) -> RunView {
        let view = self.shared.lock().view(run, Some(attempt));
        view.unwrap_or_else(|| panic!("there is no run {run}"))
    }

    /// Waits until a run has ended.
    ///
    /// # Panics
    /// It has not within the time; everything that the server knows is in the message.
    pub async fn wait_for_run(&self, run: RunId, within: Duration) -> RunView {
        self.wait_for_view(run, within, |view| view.status.is_done()).await
    }

    /// Waits until a run looks like this.
    ///
    /// # Panics
    /// As [`Forge::wait_for_run`].
    pub async fn wait_for_view(
        &self,
        run: RunId,
        within: Duration,
        mut is: impl FnMut(&RunView) -> bool,
    ) -> RunView {
        self.wait_for(within, || Some(self.view(run)).filter(|view| is(view))).await
    }

    /// Waits until a job looks like this.
    ///
    /// # Panics
    /// As [`Forge::wait_for_run`].
    pub async fn wait_for_job(
        &self,
        run: RunId,
        name: &str,
        within: Duration,
        mut is: impl FnMut(&JobView) -> bool,
    ) -> JobView {
        let find = || self.view(run).find(name).cloned();
        self.wait_for(within, || find().filter(|job| is(job))).await
    }

    /// Waits until something of the server is so.
    ///
    /// # Panics
    /// As [`Forge::wait_for_run`].
    pub async fn wait_until(&self, within: Duration, mut is: impl FnMut(&Self) -> bool) {
        self.wait_for(within, || is(self).then_some(())).await;
    }

    /// Waits until there are this many answered calls of a kind, and gives all of that kind.
    ///
    /// # Panics
    /// As [`Forge::wait_for_run`].
    pub async fn wait_for_calls(&self, rpc: Rpc, count: usize, within: Duration) -> Vec<Call> {
        let answered = || {
            let calls = self.calls_of(rpc);
            (calls.iter().filter(|call| call.delivered).count() >= count).then_some(calls)
        };
        self.wait_for(within, answered).await
    }

    /// Looks after every change until there is something.
    async fn wait_for<T>(&self, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
        let mut changes = self.shared.changes();
        let found = tokio::time::timeout(within, async {
            loop {
                // Before the look: what changes while it looks is looked at again.
                changes.mark_unchanged();
                if let Some(found) = look() {
                    return found;
                }
                changes.changed().await.expect("the state is here");
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("nothing within {within:?}\n{}", self.dump()),
        }
    }

    /// Every call so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }

    /// Every call of a kind so far.
    #[must_use]
    pub fn calls_of(&self, rpc: Rpc) -> Vec<Call> {
        self.shared.lock().calls.iter().filter(|call| call.rpc == rpc).cloned().collect()
    }

    /// What clients did that they must not.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }

    /// Panics if a client did what it must not.
    ///
    /// # Panics
    /// With everything that the server knows.
    #[track_caller]
    pub fn assert_no_violations(&self) {
        assert!(self.violations().is_empty(), "{}", self.dump());
    }

    /// [`Forge::assert_no_violations`] for a client that was killed: it may have been between an answer
    /// and its disk, and then it asks with the same key once more (forgejo-runner-protocol 4.4).
    ///
    /// # Panics
    /// Something else broke a rule.
    pub fn assert_no_violations_but_of_crashes(&self) {
        let mut violations = self.violations();
        violations.retain(|violation| !violation.contains("a request key is used after"));
        assert!(violations.is_empty(), "{violations:#?}\n{}", self.dump());
    }

    /// What goes wrong with which calls.
    #[must_use]
    pub fn faults(&self) -> FaultSwitch<'_> {
        FaultSwitch::new(&self.shared)
    }

    /// Every task carries these bytes from now on, whatever its workflow says.
    pub fn replace_payload(&self, payload: Vec<u8>) {
        self.shared.change(|state| state.payload = Some(payload));
    }

    /// Bodies of more bytes get 413, as from a proxy.
    pub fn set_body_limit(&self, limit: Option<usize>) {
        self.shared.change(|state| state.body_limit = limit);
    }

    /// Starts the server again: its state stays, all connections are cut.
    pub async fn restart(&self) {
        self.shared.cut().await;
    }

    /// Starts the server again, without the rows of logs that are not closed.
    pub async fn restart_without_logs(&self) {
        self.shared.cut().await;
        self.shared.change(|state| state.tasks.values_mut().for_each(super::state::Task::lose_log));
    }

    /// Cuts all connections and gives no new one an answer, until [`Forge::come_back`]. The port stays
    /// its own.
    pub async fn go_down(&self) {
        self.shared.change(|state| state.down = true);
        self.shared.cut().await;
    }

    /// Answers again.
    pub fn come_back(&self) {
        self.shared.change(|state| state.down = false);
    }

    /// Whether a job token (or runtime token) lets somebody in now: only while its task runs.
    #[must_use]
    pub fn token_is_valid(&self, token: &str) -> bool {
        self.shared.lock().task_of_token(token).is_some()
    }

    /// The job token that a task has now.
    #[must_use]
    pub fn token_of(&self, task: i64) -> Option<String> {
        self.shared.lock().tasks.get(&task).map(|task| task.token.clone())
    }

    /// The payload of a job, as a task of it has it.
    #[must_use]
    pub fn payload(&self, run: RunId, job: &str) -> Option<String> {
        let state = self.shared.lock();
        let payload = state.jobs_of(run.0).find(|other| other.name == job || other.key == job);
        payload.map(|job| job.payload.clone())
    }

    /// Everything that the server knows, for people.
    #[must_use]
    pub fn dump(&self) -> String {
        let state = self.shared.lock();
        let mut text = format!("{:?} at {}\n", state.profile, state.url);
        for run in state.runs.keys() {
            if let Some(view) = state.view(RunId(*run), None) {
                write!(text, "{view}").expect("a String takes it");
            }
        }
        for runner in state.runners.values() {
            writeln!(text, "runner {:?} {:?} {:?}", runner.name, runner.scope, runner.labels)
                .expect("a String takes it");
        }
        let hidden = state.calls.len().saturating_sub(DUMPED);
        if hidden > 0 {
            writeln!(text, "{hidden} older calls").expect("a String takes it");
        }
        for (index, call) in state.calls.iter().enumerate().skip(hidden) {
            writeln!(text, "call {index}: {call}").expect("a String takes it");
        }
        for violation in &state.violations {
            writeln!(text, "violation: {violation}").expect("a String takes it");
        }
        text
    }
}
