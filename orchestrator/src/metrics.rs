//! What is counted and measured, for Prometheus.
//!
//! [`METRICS`] is the one table of names and help texts; docs/operations.md lists it, and a test
//! compares the two. The functions below are the only way in, so that every label value comes from a
//! bounded set. Before [`install`] they do nothing.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use common::event::{Finished, Phase};
use common::infrastructure::Cause;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use crate::store::{JobState, Size};

/// How often samples that wait are put into their buckets. Without it they would wait, and use
/// memory, until somebody asks for `/metrics`.
const UPKEEP: Duration = Duration::from_secs(5);

/// Images that get a label of their own; further ones are counted together as `other`.
const IMAGES: usize = 200;

/// The bounds of every histogram in seconds: from a restored template to the longest job.
const BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    1800.0, 3600.0, 7200.0, 21600.0, 86400.0,
];

const JOBS: &str = "solstice_jobs";
const FINISHED: &str = "solstice_jobs_finished_total";
const QUEUE_WAIT: &str = "solstice_queue_wait_seconds";
const PHASE: &str = "solstice_phase_seconds";
const MACHINES: &str = "solstice_machines";
const SLOT_CPUS: &str = "solstice_slots_cpus";
const SLOT_MEMORY: &str = "solstice_slots_memory_bytes";
const RETRIES: &str = "solstice_retries_total";
const LOG_LINES: &str = "solstice_log_lines_total";
const ERRORS: &str = "solstice_errors_total";
const INFO: &str = "solstice_info";

/// What kind of series a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// The value of now.
    Gauge,
    /// Counts of values by size.
    Histogram,
}

impl Kind {
    /// The name as Prometheus and the document have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What kind of series it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, one sentence.
    pub help: &'static str,
}

/// Every metric.
pub const METRICS: &[Metric] = &[
    Metric {
        name: JOBS,
        kind: Kind::Gauge,
        labels: &["state"],
        help: "Jobs of the installation in each state.",
    },
    Metric {
        name: FINISHED,
        kind: Kind::Counter,
        labels: &["result"],
        help: "Jobs that this host ended, by result; infrastructure is a result of its own.",
    },
    Metric {
        name: QUEUE_WAIT,
        kind: Kind::Histogram,
        labels: &[],
        help: "Seconds from the arrival of a job to the moment at which this host took it.",
    },
    Metric {
        name: PHASE,
        kind: Kind::Histogram,
        labels: &["image", "phase"],
        help: "Seconds that each phase of a job took, by image.",
    },
    Metric {
        name: MACHINES,
        kind: Kind::Gauge,
        labels: &[],
        help: "Virtual machines that run on this host, also those of other commands of Solstice.",
    },
    Metric {
        name: SLOT_CPUS,
        kind: Kind::Gauge,
        labels: &["use"],
        help: "Virtual processors of this host that jobs have (used) and that are left (free).",
    },
    Metric {
        name: SLOT_MEMORY,
        kind: Kind::Gauge,
        labels: &["use"],
        help: "Memory of this host that machines of jobs have (used) and that is left (free).",
    },
    Metric {
        name: RETRIES,
        kind: Kind::Counter,
        labels: &["cause"],
        help: "Tries that ended by the infrastructure and were followed by another, by cause.",
    },
    Metric {
        name: LOG_LINES,
        kind: Kind::Counter,
        labels: &[],
        help: "Lines of jobs' logs that were recorded.",
    },
    Metric {
        name: ERRORS,
        kind: Kind::Counter,
        labels: &["what"],
        help: "Errors that the service went on after, by what failed; its log has the details.",
    },
    Metric {
        name: INFO,
        kind: Kind::Gauge,
        labels: &["version"],
        help: "Always 1; the label is the version of the program.",
    },
];

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
static SEEN_IMAGES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Begins to count, for the whole process. A second call does nothing.
///
/// Returns whether this module is what counts: another recorder may have been installed before.
pub fn install() -> bool {
    RECORDER.get_or_init(try_install).is_some()
}

fn try_install() -> Option<PrometheusHandle> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Histogram) {
        // Without bounds the exporter would make summaries, which cannot be added up over hosts.
        builder = builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), BUCKETS)
            .expect("the bounds are not empty");
    }
    let handle = match builder.install_recorder() {
        Ok(handle) => handle,
        Err(error) => {
            tracing::warn!(%error, "cannot count: another recorder is installed");
            return None;
        }
    };
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Histogram => describe_histogram!(metric.name, metric.help),
        }
    }
    gauge!(INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // A counter that is absent until its first event hides that event from every rate.
    counter!(LOG_LINES).absolute(0);
    for what in TROUBLES {
        counter!(ERRORS, "what" => *what).absolute(0);
    }
    for result in RESULTS {
        counter!(FINISHED, "result" => *result).absolute(0);
    }
    Some(handle)
}

/// Everything that was counted, as Prometheus reads it. Empty before [`install`].
#[must_use]
pub fn render() -> String {
    RECORDER.get().and_then(Option::as_ref).map_or_else(String::new, PrometheusHandle::render)
}

/// Puts waiting samples into their buckets until it is stopped. One of these runs in each process.
pub async fn upkeep(stop: CancellationToken) {
    let Some(handle) = RECORDER.get().and_then(Option::as_ref) else { return };
    let mut turn = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            _ = turn.tick() => handle.run_upkeep(),
            () = stop.cancelled() => return,
        }
    }
}

/// How many jobs of the installation are in each state, as the store counts them.
pub fn jobs(counts: &[(JobState, String, u64)]) {
    for state in JobState::ALL {
        let of_state = counts.iter().filter(|(counted, ..)| *counted == state);
        let count: u64 = of_state.map(|(.., count)| count).sum();
        gauge!(JOBS, "state" => state.name()).set(count as f64);
    }
}

/// A job ended on this host.
pub fn finished(finished: &Finished) {
    let result = match &finished.infrastructure {
        Some(_) => INFRASTRUCTURE,
        None => finished.result.name(),
    };
    counter!(FINISHED, "result" => result).increment(1);
}

/// The result of a job that the infrastructure ended: never the same as a failed one.
const INFRASTRUCTURE: &str = "infrastructure";

/// The values of the label `result`.
const RESULTS: &[&str] = &["success", "failure", "cancelled", "skipped", INFRASTRUCTURE];

/// This host took a job that had waited for so long.
pub fn queue_wait(took: Duration) {
    histogram!(QUEUE_WAIT).record(took);
}

/// A phase of a job ended; `image` is the label of its image.
pub fn phase(image: &str, phase: Phase, took: Duration) {
    let image = bounded(image).to_owned();
    histogram!(PHASE, "image" => image, "phase" => phase.name()).record(took);
}

/// How many machines run on this host.
pub fn machines(running: usize) {
    gauge!(MACHINES).set(running as f64);
}

/// What the jobs of this host use of what it has for them.
pub fn slots(used: Size, usable: Size) {
    gauge!(SLOT_CPUS, "use" => "used").set(f64::from(used.cpus));
    gauge!(SLOT_CPUS, "use" => "free").set(f64::from(usable.cpus.saturating_sub(used.cpus)));
    let free = usable.memory.0.saturating_sub(used.memory.0);
    gauge!(SLOT_MEMORY, "use" => "used").set(used.memory.0 as f64);
    gauge!(SLOT_MEMORY, "use" => "free").set(free as f64);
}

/// A try ended by this cause, and another one follows.
pub fn retried(cause: Cause) {
    counter!(RETRIES, "cause" => cause.code()).increment(1);
}

/// Lines of logs were recorded.
pub fn log_lines(count: u64) {
    counter!(LOG_LINES).increment(count);
}

/// What can fail while the service goes on: the values of the label `what`. docs/operations.md lists
/// them, and a test compares the two.
pub const TROUBLES: &[&str] = &[
    "message",
    "repeated message",
    "recorded job",
    "store",
    "queue",
    "publish",
    "journal",
    "deadline",
    "host",
    "host id",
    "operators' API",
    "template",
];

/// Something failed, and the service went on. `what` is one of [`TROUBLES`].
pub fn error(what: &'static str) {
    debug_assert!(TROUBLES.contains(&what), "{what} is not in the list");
    counter!(ERRORS, "what" => what).increment(1);
}

/// The label of an image, or `other` when there have been too many already: a request names its
/// label itself.
fn bounded(image: &str) -> &str {
    let mut seen = SEEN_IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.contains(image) {
        image
    } else if seen.len() < IMAGES {
        seen.insert(image.to_owned());
        image
    } else {
        "other"
    }
}

#[cfg(test)]
mod tests;
