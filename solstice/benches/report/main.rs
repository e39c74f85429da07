//! `make bench`: measures Solstice as a user runs it, and writes `target/bench/report.json`.
//!
//! ```text
//! cargo bench -p solstice --bench report -- [NAME]
//! ```
//!
//! Every figure is taken from outside the program: when a line came out of its standard output, when
//! something appeared on the serial console of the guest (an emulated port that reaches the host's
//! file without any part of ours), and what the kernel says about the process.

mod forgejo;
mod language;
mod service;
mod services;
mod templates;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use common::size::ByteSize;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How often a start is measured.
const STARTS: usize = 3;
/// What the templates of the measurements may have of the disk.
const TEMPLATE_QUOTA: &str = "20G";
/// How often a line's way is measured.
const LINES: usize = 60;
/// How often a cancel is measured.
const CANCELS: usize = 8;
/// Lines of the load.
const LOAD_LINES: usize = 200_000;
/// How often files and processes are looked at, which bounds the error of a latency.
const LOOK: Duration = Duration::from_millis(1);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The most that a figure may be, or the least where more is better. They hold for a host with two
/// cores and without KVM.
const LIMITS: &[(&str, Limit)] = &[
    ("cold_start_tiny_ms", Limit::AtMost(12_000.0)),
    ("cold_start_debian12_ms", Limit::AtMost(75_000.0)),
    ("warm_start_tiny_ms", Limit::AtMost(1_500.0)),
    ("warm_start_tiny_worst_ms", Limit::AtMost(1_500.0)),
    ("warm_start_debian12_ms", Limit::AtMost(4_000.0)),
    ("warm_start_debian12_worst_ms", Limit::AtMost(4_000.0)),
    ("warm_start_debian12_times_faster", Limit::AtLeast(12.0)),
    ("clone_restore_ms", Limit::AtMost(60.0)),
    ("clone_restore_spread", Limit::AtMost(1.2)),
    ("ten_clones_pss_bytes", Limit::AtMost(1.2e9)),
    ("ten_clones_share_of_cold", Limit::AtMost(0.5)),
    ("log_lines_per_second", Limit::AtLeast(10_000.0)),
    ("run_peak_rss_bytes", Limit::AtMost(64.0 * 1024.0 * 1024.0)),
    ("line_latency_p95_ms", Limit::AtMost(100.0)),
    ("cancel_p95_ms", Limit::AtMost(2_000.0)),
    ("queue_jobs_per_second_embedded", Limit::AtLeast(500.0)),
    ("queue_jobs_per_second_rabbitmq", Limit::AtLeast(300.0)),
    ("event_lines_per_second_embedded", Limit::AtLeast(50_000.0)),
    ("event_lines_per_second_rabbitmq", Limit::AtLeast(20_000.0)),
    ("schedule_p95_ms", Limit::AtMost(50.0)),
    ("orchestrator_rss_1000_jobs_bytes", Limit::AtMost(400e6)),
    ("orchestrator_cpu_1000_jobs", Limit::AtMost(0.5)),
    ("cost_growth_10_to_1000", Limit::AtMost(1.2)),
    ("expression_ns", Limit::AtMost(20_000.0)),
    ("workflow_parse_ms", Limit::AtMost(200.0)),
    ("guest_program_bytes", Limit::AtMost(4.0 * 1024.0 * 1024.0)),
    ("guest_peak_rss_bytes", Limit::AtMost(16.0 * 1024.0 * 1024.0)),
    ("forgejo_pickup_ms", Limit::AtMost(2_200.0)),
    ("forgejo_line_latency_p95_ms", Limit::AtMost(1_500.0)),
    ("forgejo_rows_per_second", Limit::AtLeast(20_000.0)),
    ("forgejo_cancel_p95_ms", Limit::AtMost(3_000.0)),
    ("checkout_5000_files_warm_ms", Limit::AtMost(3_000.0)),
    ("cache_put_mb_per_second", Limit::AtLeast(200.0)),
    ("cache_get_mb_per_second", Limit::AtLeast(200.0)),
    ("action_fetch_warm_ms", Limit::AtMost(50.0)),
    ("action_fetch_warm_tag_ms", Limit::AtMost(50.0)),
];

/// Without the digits that say nothing: one behind the point, or three that count.
fn rounded(value: f64) -> f64 {
    let places = if value.abs() < 10.0 { 1000.0 } else { 10.0 };
    (value * places).round() / places
}

/// What a figure must keep to.
#[derive(Clone, Copy)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    fn of(name: &str) -> Option<Self> {
        LIMITS.iter().find(|(known, _)| *known == name).map(|(_, limit)| *limit)
    }

    fn is_kept(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::AtLeast(least) => write!(f, ">= {least}"),
        }
    }
}

type Figures = BTreeMap<&'static str, f64>;

/// The names of figures, and what measures them together.
type Group = (&'static [&'static str], fn(&Bench) -> Figures);

fn main() -> ExitCode {
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let bench = Bench::new();
    let groups: &[Group] = &[
        (
            &[
                "cold_start_tiny_ms",
                "warm_start_tiny_ms",
                "warm_start_tiny_worst_ms",
                "warm_start_tiny_times_faster",
                "template_make_tiny_ms",
            ],
            |bench| templates::starts(bench, &templates::TINY),
        ),
        (
            &[
                "cold_start_debian12_ms",
                "warm_start_debian12_ms",
                "warm_start_debian12_worst_ms",
                "warm_start_debian12_times_faster",
                "template_make_ms",
            ],
            |bench| templates::starts(bench, &templates::DEBIAN),
        ),
        (
            &[
                "clone_files_ms",
                "clone_qemu_ms",
                "clone_restore_debian12_ms",
                "clone_personal_ms",
                "clone_login_ms",
                "clone_command_ms",
            ],
            templates::phases,
        ),
        (
            &[
                "clone_restore_256_mib_ms",
                "clone_restore_ms",
                "clone_restore_4_gib_ms",
                "clone_restore_spread",
            ],
            templates::restore,
        ),
        (
            &["ten_clones_pss_bytes", "ten_cold_pss_bytes", "ten_clones_share_of_cold"],
            templates::memory,
        ),
        (&["log_lines_per_second", "run_peak_rss_bytes", "guest_peak_rss_bytes"], Bench::load),
        (&["line_latency_p50_ms", "line_latency_p95_ms"], Bench::latency),
        (&["cancel_p95_ms"], Bench::cancel),
        (&["vm_overhead_rss_bytes"], Bench::overhead),
        (&["queue_jobs_per_second_embedded"], |bench| service::queue_embedded(&bench.fresh())),
        (&["queue_jobs_per_second_rabbitmq"], |bench| service::queue_rabbitmq(&bench.fresh())),
        (&["event_lines_per_second_embedded"], |bench| service::events_embedded(&bench.fresh())),
        (&["event_lines_per_second_rabbitmq"], |bench| service::events_rabbitmq(&bench.fresh())),
        (&["schedule_p95_ms"], |bench| service::schedule(&bench.fresh(), &bench.runtime())),
        (
            &[
                "orchestrator_rss_1000_jobs_bytes",
                "orchestrator_cpu_1000_jobs",
                "cost_growth_10_to_1000",
            ],
            |bench| service::many_jobs(&bench.fresh(), &bench.runtime()),
        ),
        (&["expression_ns"], |_| language::expression()),
        (&["workflow_parse_ms"], |_| language::parse()),
        (&["guest_program_bytes"], |bench| language::guest_program(&bench.target)),
        (&["forgejo_pickup_ms"], |bench| forgejo::pickup(&bench.fresh(), &bench.sockets())),
        (&["forgejo_line_latency_p95_ms"], |bench| {
            forgejo::latency(&bench.fresh(), &bench.sockets(), &bench.images())
        }),
        (&["forgejo_rows_per_second"], |bench| forgejo::rows(&bench.fresh(), &bench.sockets())),
        (&["forgejo_cancel_p95_ms"], |bench| {
            forgejo::cancel(&bench.fresh(), &bench.sockets(), &bench.images())
        }),
        (&["checkout_5000_files_cold_ms", "checkout_5000_files_warm_ms"], |bench| {
            services::checkout(&bench.fresh(), &bench.sockets(), &bench.images())
        }),
        (&["cache_put_mb_per_second_tcg", "cache_get_mb_per_second_tcg"], |bench| {
            services::caches_of_tiny(&bench.fresh(), &bench.sockets(), &bench.images())
        }),
        (&["cache_put_mb_per_second", "cache_get_mb_per_second"], |bench| {
            services::caches(&bench.fresh(), &bench.sockets())
        }),
        (&["action_fetch_warm_ms", "action_fetch_warm_tag_ms"], |bench| {
            services::actions(&bench.fresh(), &bench.sockets())
        }),
    ];
    let mut figures = Figures::new();
    for (names, measure) in groups {
        if only.as_ref().is_none_or(|only| names.contains(&only.as_str())) {
            eprintln!("measuring {}", names.join(", "));
            figures.extend(measure(&bench));
        }
    }
    assert!(!figures.is_empty(), "no figure is called {}", only.unwrap_or_default());
    bench.write_report(&figures);
    print_table(&figures)
}

/// Prints the figures beside their limits; the end is a failure if one is not kept.
fn print_table(figures: &Figures) -> ExitCode {
    let mut end = ExitCode::SUCCESS;
    println!("{:<28} {:>14} {:>14}", "figure", "value", "limit");
    for (name, value) in figures {
        let limit = Limit::of(name);
        let mark = match limit {
            Some(limit) if !limit.is_kept(*value) => {
                end = ExitCode::FAILURE;
                "  OVER THE LIMIT"
            }
            _ => "",
        };
        let limit = limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        println!("{name:<28} {:>14} {limit:>14}{mark}", rounded(*value));
    }
    end
}

struct Bench {
    directory: tempfile::TempDir,
    /// On tmpfs, and short: the path of a unix socket has 107 bytes.
    runtime: tempfile::TempDir,
    target: PathBuf,
}

/// A run of the program whose lines are read as they come.
struct Run {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    started: Instant,
}

impl Bench {
    fn new() -> Self {
        let target = PathBuf::from(env!("CARGO_BIN_EXE_solstice"));
        let target = target.parent().and_then(Path::parent).expect("target/release").to_owned();
        let base = target.join("bench");
        fs::create_dir_all(&base).expect("target/bench can be made");
        let directory =
            tempfile::Builder::new().prefix("b").tempdir_in(&base).expect("a directory");
        let runtime = tempfile::Builder::new().prefix("solstice-bench-").tempdir_in("/dev/shm");
        Self { directory, runtime: runtime.expect("a directory on tmpfs"), target }
    }

    /// Runs a job on a machine that boots.
    fn start(&self, image: &str, steps: &str) -> Run {
        self.start_with(image, steps, &[], "0")
    }

    /// Runs a job on a machine that starts from a template, once there is one.
    fn start_warm(&self, image: &str, steps: &str) -> Run {
        self.start_with(image, steps, &[], TEMPLATE_QUOTA)
    }

    /// The same, on a machine of another size.
    fn start_sized(&self, image: &str, steps: &str, memory: ByteSize) -> Run {
        self.start_with(image, steps, &["--memory", &memory.0.to_string()], TEMPLATE_QUOTA)
    }

    fn start_with(
        &self,
        image: &str,
        steps: &str,
        arguments: &[&str],
        template_quota: &str,
    ) -> Run {
        let workflow = self.directory.path().join("bench.yml");
        let steps: String = steps.lines().map(|line| format!("      {line}\n")).collect();
        let text = format!("on: push\njobs:\n  job:\n    runs-on: {image}\n    steps:\n{steps}");
        fs::write(&workflow, text).expect("the workflow can be written");
        let started = Instant::now();
        let mut child = self
            .solstice()
            .arg("run")
            .arg(&workflow)
            .args(arguments)
            .env("SOLSTICE_TEMPLATE_QUOTA", template_quota)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("solstice starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Run { child, lines, started }
    }

    /// Makes the template of an image, if it is not there.
    fn warm(&self, image: &str) {
        let done = self.solstice().args(["image", "warm", image]).output().expect("it starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn solstice(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_solstice"));
        command
            .current_dir(self.directory.path())
            .env("SOLSTICE_STATE_DIR", self.directory.path().join("state"))
            .env("SOLSTICE_RUNTIME_DIR", self.runtime())
            .env("SOLSTICE_IMAGE_DIR", self.images())
            .env("SOLSTICE_TEMPLATE_DIR", self.templates())
            .env("SOLSTICE_TEMPLATE_QUOTA", TEMPLATE_QUOTA);
        command
    }

    /// A directory that nothing was in before.
    fn fresh(&self) -> PathBuf {
        let directory = tempfile::Builder::new().prefix("s").tempdir_in(self.directory.path());
        directory.expect("a directory").keep()
    }

    /// A runtime directory that nothing was in before.
    fn sockets(&self) -> PathBuf {
        let directory = tempfile::Builder::new().prefix("r").tempdir_in(self.runtime.path());
        directory.expect("a directory").keep()
    }

    fn images(&self) -> PathBuf {
        self.target.join("test/images")
    }

    fn templates(&self) -> PathBuf {
        self.directory.path().join("templates")
    }

    fn runtime(&self) -> PathBuf {
        self.runtime.path().to_owned()
    }

    fn load(&self) -> Figures {
        // The parent of a step's shell is the guest program.
        let steps = format!(
            "- run: |\n    echo begin-load\n    seq 1 {LOAD_LINES}\n\
             - run: sed -n 's/^VmHWM:/peak/p' /proc/$PPID/status"
        );
        let mut run = self.start("tiny", &steps);
        let pid = run.child.id();
        let begin = run.wait_for_line("begin-load");
        let mut expected = 1;
        let mut end = begin;
        while let Some(Ok(line)) = run.lines.next() {
            if line.trim().parse() == Ok(expected) {
                expected += 1;
                if expected > LOAD_LINES {
                    end = run.started.elapsed();
                    break;
                }
            }
        }
        assert!(expected > LOAD_LINES, "only {} of the lines came", expected - 1);
        let peak = status_bytes(pid, "VmHWM:");
        let in_guest = run.lines.by_ref().map_while(Result::ok).find_map(|line| {
            let kib = line.trim().strip_prefix("peak")?.trim().strip_suffix(" kB")?.to_owned();
            kib.parse::<f64>().ok()
        });
        run.end();
        Figures::from([
            ("log_lines_per_second", LOAD_LINES as f64 / (end - begin).as_secs_f64()),
            ("run_peak_rss_bytes", peak),
            ("guest_peak_rss_bytes", in_guest.expect("the guest told it") * 1024.0),
        ])
    }

    fn latency(&self) -> Figures {
        // The console gets the mark first: what is measured is at least the true latency.
        let steps = format!(
            "- run: |\n    i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); sleep 0.2\n    \
             echo \"mark $i.\" > /dev/ttyS0; echo \"mark $i.\"; done"
        );
        let mut run = self.start("tiny", &steps);
        let console = Console::watch(&self.runtime());
        let mut shown = Vec::new();
        while shown.len() < LINES {
            let line = run.lines.next().expect("the run goes on").expect("text");
            if line.contains(&format!("mark {}.", shown.len() + 1)) && !line.contains("echo") {
                shown.push(Instant::now());
            }
        }
        run.end();
        let written = console.times(LINES, |number| format!("mark {}.", number + 1));
        let pairs = written.iter().zip(&shown);
        let mut times: Vec<f64> =
            pairs.map(|(w, s)| millis(s.saturating_duration_since(*w))).collect();
        Figures::from([
            ("line_latency_p50_ms", percentile(&mut times, 50)),
            ("line_latency_p95_ms", percentile(&mut times, 95)),
        ])
    }

    fn cancel(&self) -> Figures {
        // A watcher outside of the step's process group tells the console when the process is gone.
        let steps = "- run: |\n    \
             setsid sh -c \"while kill -0 $$ 2>/dev/null; do usleep 5000; done; \
             echo gone. > /dev/ttyS0\" >/dev/null 2>&1 </dev/null &\n    \
             echo sleeping\n    exec sleep 1000";
        let mut times: Vec<f64> = (0..CANCELS)
            .map(|_| {
                let mut run = self.start("tiny", steps);
                let console = Console::watch(&self.runtime());
                run.wait_for_line("sleeping");
                let sent = Instant::now();
                kill(Pid::from_raw(run.child.id().cast_signed()), Signal::SIGINT).expect("it runs");
                let gone = console.times(1, |_| "gone.".to_owned())[0];
                run.end();
                millis(gone.saturating_duration_since(sent))
            })
            .collect();
        Figures::from([("cancel_p95_ms", percentile(&mut times, 95))])
    }

    /// What a machine that idles takes of the host's memory: all of QEMU's resident set, with what
    /// the guest has touched of its own memory in it.
    fn overhead(&self) -> Figures {
        let mut run = self.start("tiny", "- run: |\n    echo up\n    sleep 5\n    echo idle");
        run.wait_for_line("idle");
        let name = self.directory.path().to_string_lossy().into_owned();
        let qemu = processes()
            .find(|pid| {
                let text = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                text("comm").starts_with(b"qemu")
                    && String::from_utf8_lossy(&text("cmdline")).contains(&name)
            })
            .expect("QEMU runs");
        let rss = status_bytes(qemu, "VmRSS:");
        run.end();
        Figures::from([("vm_overhead_rss_bytes", rss)])
    }

    fn write_report(&self, figures: &Figures) {
        let path = self.target.join("bench/report.json");
        let commit = commit();
        // One figure alone does not throw away the others of the same state of the tree.
        let old = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut report = match old {
            Some(Value::Object(report)) if report.get("commit") == Some(&json!(commit)) => report,
            _ => serde_json::Map::new(),
        };
        for (name, value) in figures {
            report.insert((*name).to_owned(), json!(rounded(*value)));
        }
        report.insert("commit".to_owned(), json!(commit));
        let qemu = output("qemu-system-x86_64", &["--version"]);
        report.insert("qemu".to_owned(), json!(qemu.lines().next().unwrap_or_default()));
        report.insert("acceleration".to_owned(), json!(self.acceleration()));
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        report.insert("cores".to_owned(), json!(cores));
        let text = serde_json::to_string_pretty(&report).expect("a report is JSON");
        fs::write(&path, text + "\n").expect("the report can be written");
        println!("written to {}", path.display());
    }

    fn acceleration(&self) -> String {
        let done = Command::new(env!("CARGO_BIN_EXE_solstice"))
            .args(["doctor", "--json"])
            .env("SOLSTICE_STATE_DIR", self.directory.path().join("state"))
            .env("SOLSTICE_RUNTIME_DIR", self.runtime())
            .output();
        let text = done.map(|done| String::from_utf8_lossy(&done.stdout).into_owned());
        if text.unwrap_or_default().to_lowercase().contains("tcg") { "tcg" } else { "kvm" }
            .to_owned()
    }
}

impl Run {
    /// When the line came that is this text and nothing else.
    fn wait_for_line(&mut self, text: &str) -> Duration {
        while let Some(Ok(line)) = self.lines.next() {
            if line.trim() == text {
                return self.started.elapsed();
            }
            assert!(self.started.elapsed() < PATIENCE, "no {text:?} in {PATIENCE:?}");
        }
        panic!("the run ended without {text:?}");
    }

    fn end(mut self) {
        for line in self.lines {
            drop(line);
        }
        self.child.wait().expect("a child can be waited for");
    }
}

/// Watches the file that the guest's serial port writes to.
struct Console {
    seen: std::sync::mpsc::Receiver<(Instant, String)>,
}

impl Console {
    fn watch(runtime: &Path) -> Self {
        let (sender, seen) = std::sync::mpsc::channel();
        let runtime = runtime.to_owned();
        std::thread::spawn(move || {
            let since = Instant::now();
            let Some(mut file) = (loop {
                match find_console(&runtime) {
                    Some(file) => break Some(file),
                    None if since.elapsed() > PATIENCE => break None,
                    None => std::thread::sleep(LOOK),
                }
            }) else {
                return;
            };
            let mut bytes = Vec::new();
            while since.elapsed() < PATIENCE {
                bytes.clear();
                match file.read_to_end(&mut bytes) {
                    Ok(0) | Err(_) => std::thread::sleep(LOOK),
                    Ok(_) => {
                        let text = String::from_utf8_lossy(&bytes).into_owned();
                        if sender.send((Instant::now(), text)).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Self { seen }
    }

    /// When each of these texts was seen, in order.
    fn times(&self, count: usize, text: impl Fn(usize) -> String) -> Vec<Instant> {
        let mut waiting = String::new();
        let mut times = Vec::new();
        while times.len() < count {
            let (at, more) = self.seen.recv_timeout(PATIENCE).expect("the console goes on");
            waiting.push_str(&more);
            while times.len() < count {
                let wanted = text(times.len());
                let Some(position) = waiting.find(&wanted) else { break };
                waiting.drain(..position + wanted.len());
                times.push(at);
            }
        }
        times
    }
}

/// The newest console file below a runtime directory.
fn find_console(directory: &Path) -> Option<fs::File> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.file_name().is_some_and(|name| name == "console.log") {
                found.push(path);
            }
        }
    }
    found
        .into_iter()
        .max_by_key(|p| p.metadata().and_then(|m| m.modified()).ok())
        .and_then(|p| fs::File::open(p).ok())
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
}

/// Ends every process that names this directory in its command line.
fn kill_processes_of(directory: &Path) {
    let name = directory.to_string_lossy().into_owned();
    for pid in processes() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&name) {
            // It may have ended meanwhile.
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap_or_default();
        }
    }
}

/// A line of `/proc/PID/status` that is in kB, in bytes.
fn status_bytes(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) * 1024.0
}

/// The commit that was measured, with a mark if the tree has changes that are not in it.
fn commit() -> String {
    let mut commit = output("git", &["rev-parse", "HEAD"]);
    if !output("git", &["status", "--porcelain"]).is_empty() {
        commit.push_str("-dirty");
    }
    commit
}

fn output(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output();
    done.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned()).unwrap_or_default()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The value below which `percent` of the values lie, by the nearest rank.
fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent).div_ceil(100).max(1) - 1]
}
