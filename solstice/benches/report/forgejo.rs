//! Jobs of a Forgejo instance: how soon they start, how soon a line is on the page, how fast rows go
//! there, and how soon a cancel on the page ends a process in the guest. The instance is simulated,
//! and what it is asked for and given are calls over the loopback.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rand::Rng;
use simulators::ScriptedHost;
use simulators::forgejo::{Forge, Profile, Rpc, RunId, Scope};
use tokio::runtime::Runtime;

use super::{CANCELS, Console, Figures, LINES, PATIENCE, kill_processes_of, millis, percentile};

pub(super) const REPOSITORY: &str = "team/project";
/// Jobs whose start is measured.
const STARTS: usize = 30;
/// Rows of the load.
const ROWS: usize = 300_000;

/// An instance, and a service that works for it.
pub(super) struct Instance {
    runtime: Runtime,
    pub(super) forge: Forge,
    service: Child,
    /// Where its machines are.
    directory: PathBuf,
}

impl Drop for Instance {
    fn drop(&mut self) {
        drop(self.service.kill());
        drop(self.service.wait());
        // Machines outlive a service; nothing of them is needed.
        kill_processes_of(&self.directory);
    }
}

impl Instance {
    /// `environment` says which machines the service has, and `label` which image they get.
    fn start(
        (directory, sockets): (&Path, &Path),
        label: &str,
        environment: Vec<(&'static str, OsString)>,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let forge = runtime.block_on(Forge::start(Profile::V15));
        let identity = forge.create_runner("bench", Scope::Global);
        let token = directory.join("token");
        fs::write(&token, &identity.token).expect("a file");
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("a mode");
        let service = Command::new(env!("CARGO_BIN_EXE_solstice"))
            .arg("serve")
            .current_dir(directory)
            .envs(environment)
            .env("SOLSTICE_STATE_DIR", directory.join("state"))
            .env("SOLSTICE_RUNTIME_DIR", sockets)
            .env("SOLSTICE_METRICS_LISTEN", "off")
            // A console is watched, and that of a machine that becomes a template comes first.
            .env("SOLSTICE_TEMPLATE_QUOTA", "0")
            .env("SOLSTICE_LOG", "error")
            .env("SOLSTICE_FORGEJO_MAIN_URL", forge.url())
            .env("SOLSTICE_FORGEJO_MAIN_UUID", &identity.uuid)
            .env("SOLSTICE_FORGEJO_MAIN_TOKEN_FILE", &token)
            .env("SOLSTICE_FORGEJO_MAIN_LABELS", format!("vm:vm://{label}"))
            .env("SOLSTICE_FORGEJO_MAIN_FETCH_INTERVAL", "2s")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("solstice starts");
        runtime.block_on(forge.wait_for_calls(Rpc::FetchTask, 1, PATIENCE));
        Self { runtime, forge, service, directory: directory.to_owned() }
    }

    /// With scripted guests.
    fn scripted(directory: &Path, sockets: &Path) -> Self {
        let scripted = directory.join("scripted");
        fs::create_dir(&scripted).expect("a directory");
        let host = ScriptedHost::new(&scripted).expect("a host");
        Self::start((directory, sockets), ScriptedHost::LABEL, host.environment())
    }

    /// With the tiny guest.
    pub(super) fn tiny(directory: &Path, sockets: &Path, images: &Path) -> Self {
        let environment = vec![("SOLSTICE_IMAGE_DIR", images.as_os_str().to_owned())];
        Self::start((directory, sockets), "tiny", environment)
    }

    fn push(&self, script: &str) -> RunId {
        let script: String = script.lines().map(|line| format!("          {line}\n")).collect();
        let text = format!(
            "on: push\njobs:\n  job:\n    runs-on: vm\n    steps:\n      - name: Step\n        run: |\n{script}"
        );
        self.forge.push_workflow(REPOSITORY, "bench.yml", &text)
    }

    /// Waits until the page shows a line, and gives when that was.
    fn wait_for_line(&self, run: RunId, line: &str) -> Instant {
        let has_line = |forge: &Forge| forge.view(run).job("job").log().contains(&line);
        self.runtime.block_on(self.forge.wait_until(PATIENCE, has_line));
        Instant::now()
    }

    pub(super) fn wait_for_end(&self, run: RunId) {
        self.runtime.block_on(self.forge.wait_for_run(run, PATIENCE));
    }
}

/// From the moment in which a job waits to the start of its machine.
pub(super) fn pickup(directory: &Path, sockets: &Path) -> Figures {
    let instance = Instance::scripted(directory, sockets);
    let mut times: Vec<f64> = (0..STARTS)
        .map(|_| {
            // Anywhere between two questions.
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..2_000)));
            let pushed = SystemTime::now();
            let run = instance.push("echo done");
            instance.wait_for_end(run);
            let view = instance.forge.view(run);
            let rows = &view.job("job").rows;
            let boot = rows.iter().find(|row| row.text.starts_with("boot ...")).expect("it booted");
            millis(boot.time.duration_since(pushed).unwrap_or_default())
        })
        .collect();
    Figures::from([("forgejo_pickup_ms", percentile(&mut times, 95))])
}

/// From a write in the guest to the row that the instance has.
pub(super) fn latency(directory: &Path, sockets: &Path, images: &Path) -> Figures {
    let instance = Instance::tiny(directory, sockets, images);
    let run = instance.push(&format!(
        "i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); usleep 370000\n\
         echo \"mark $i.\" > /dev/ttyS0; echo \"mark $i.\"; done"
    ));
    let console = Console::watch(sockets);
    let shown: Vec<Instant> =
        (1..=LINES).map(|number| instance.wait_for_line(run, &format!("mark {number}."))).collect();
    let written = console.times(LINES, |number| format!("mark {}.", number + 1));
    instance.wait_for_end(run);
    let pairs = written.iter().zip(&shown);
    let mut times: Vec<f64> = pairs.map(|(w, s)| millis(s.saturating_duration_since(*w))).collect();
    Figures::from([("forgejo_line_latency_p95_ms", percentile(&mut times, 95))])
}

/// Rows of a job that prints without pause, as the instance gets them.
pub(super) fn rows(directory: &Path, sockets: &Path) -> Figures {
    let instance = Instance::scripted(directory, sockets);
    let run = instance.push(&format!("flood {ROWS}"));
    let forge = &instance.forge;
    instance.runtime.block_on(forge.wait_until(PATIENCE, |forge| {
        forge.calls_of(Rpc::FetchTask).iter().any(|call| !call.given.is_empty())
    }));
    let task = forge.view(run).job("job").task_id.expect("it was taken");
    let token = forge.token_of(task).expect("it has a token");
    // Its token is of use until the task has ended; a look at the rows would cost what they cost.
    let is_over = |forge: &Forge| !forge.token_is_valid(&token);
    instance.runtime.block_on(forge.wait_until(PATIENCE, is_over));
    let calls = forge.calls_of(Rpc::UpdateLog);
    let full: Vec<_> = calls.iter().filter(|call| call.rows >= 500).collect();
    let (first, last) = (full.first().expect("a call"), full.last().expect("a call"));
    let rows: usize = full.iter().map(|call| call.rows).sum();
    let took = last.at.duration_since(first.at).unwrap_or_default();
    Figures::from([("forgejo_rows_per_second", (rows - first.rows) as f64 / took.as_secs_f64())])
}

/// From a cancel on the page to the end of the process in the guest.
pub(super) fn cancel(directory: &Path, sockets: &Path, images: &Path) -> Figures {
    let instance = Instance::tiny(directory, sockets, images);
    let mut times: Vec<f64> = (0..CANCELS)
        .map(|_| {
            let run = instance.push(
                "setsid sh -c \"while kill -0 $$ 2>/dev/null; do usleep 5000; done; \
                 echo gone. > /dev/ttyS0\" >/dev/null 2>&1 </dev/null &\n\
                 echo sleeping\nexec sleep 1000",
            );
            instance.wait_for_line(run, "sleeping");
            let console = Console::watch(sockets);
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..1_000)));
            let sent = Instant::now();
            instance.forge.cancel(run);
            let gone = console.times(1, |_| "gone.".to_owned())[0];
            let is_closed = |forge: &Forge| forge.view(run).job("job").log_closed;
            instance.runtime.block_on(instance.forge.wait_until(PATIENCE, is_closed));
            millis(gone.saturating_duration_since(sent))
        })
        .collect();
    Figures::from([("forgejo_cancel_p95_ms", percentile(&mut times, 95))])
}
