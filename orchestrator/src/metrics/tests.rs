use common::event::JobResult;
use common::infrastructure::Infrastructure;
use common::size::ByteSize;

use super::*;

/// The value of a series in the text that Prometheus reads.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

// One test: the recorder belongs to the process, and others would count beside this one.
#[test]
fn everything_is_counted_under_the_name_of_the_table() {
    assert!(install() && install(), "a second call is harmless");
    assert_eq!(value(&render(), "solstice_jobs_finished_total{result=\"cancelled\"}"), 0.0);
    jobs(&[
        (JobState::Queued, "tiny".to_owned(), 2),
        (JobState::Queued, "debian-12".to_owned(), 3),
        (JobState::Running, "tiny".to_owned(), 1),
    ]);
    let failed = Finished { result: JobResult::Failure, infrastructure: None };
    let lost = Infrastructure::new(Cause::SshLost, "gone");
    finished(&failed);
    finished(&Finished { infrastructure: Some(lost), ..failed });
    queue_wait(Duration::from_millis(30));
    phase("tiny", Phase::Boot, Duration::from_secs(48));
    let size = |cpus, memory| Size { cpus, memory: ByteSize(memory) };
    machines(2);
    slots(size(3, 3000), size(8, 10_000));
    retried(Cause::BootTimeout);
    log_lines(1000);
    error("message");
    let text = render();
    for (series, expected) in [
        ("solstice_jobs{state=\"queued\"}", 5.0),
        ("solstice_jobs{state=\"running\"}", 1.0),
        ("solstice_jobs{state=\"booting\"}", 0.0),
        ("solstice_jobs_finished_total{result=\"failure\"}", 1.0),
        ("solstice_jobs_finished_total{result=\"infrastructure\"}", 1.0),
        ("solstice_queue_wait_seconds_bucket{le=\"0.025\"}", 0.0),
        ("solstice_queue_wait_seconds_bucket{le=\"0.05\"}", 1.0),
        ("solstice_phase_seconds_sum{image=\"tiny\",phase=\"boot\"}", 48.0),
        ("solstice_phase_seconds_bucket{image=\"tiny\",phase=\"boot\",le=\"+Inf\"}", 1.0),
        ("solstice_machines", 2.0),
        ("solstice_slots_cpus{use=\"free\"}", 5.0),
        ("solstice_slots_cpus{use=\"used\"}", 3.0),
        ("solstice_slots_memory_bytes{use=\"free\"}", 7000.0),
        ("solstice_retries_total{cause=\"SOL-BOOT-TIMEOUT\"}", 1.0),
        ("solstice_errors_total{what=\"message\"}", 1.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    // Jobs of other tests of this process have lines too.
    assert!(value(&text, "solstice_log_lines_total") >= 1000.0);
    for metric in METRICS {
        let kind = format!("# TYPE {} {}\n", metric.name, metric.kind.name());
        assert!(text.contains(&kind), "{kind} in\n{text}");
        assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{text}");
    }
    // The state goes back to nothing when no job has it any more.
    jobs(&[]);
    assert_eq!(value(&render(), "solstice_jobs{state=\"queued\"}"), 0.0);
    // Labels that requests made up do not fill the memory.
    for number in 0..2 * IMAGES {
        phase(&format!("made-up-{number}"), Phase::Queue, Duration::ZERO);
    }
    let text = render();
    let images: BTreeSet<_> = text.lines().filter_map(|l| l.split("image=\"").nth(1)).collect();
    let images: BTreeSet<_> = images.iter().filter_map(|l| l.split('"').next()).collect();
    assert_eq!(images.len(), IMAGES + 1);
    assert!(images.contains("other") && images.contains("tiny"));
}

#[test]
fn the_page_for_operators_lists_every_metric() {
    let page = include_str!("../../../docs/operations.md");
    // Those of the runners are theirs.
    let is_ours =
        |line: &&str| line.starts_with("| `solstice_") && !line.starts_with("| `solstice_forgejo_");
    let rows: Vec<&str> = page.lines().filter(is_ours).collect();
    let expected: Vec<String> = METRICS.iter().map(row).collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_page_for_operators_lists_every_trouble() {
    let page = include_str!("../../../docs/operations.md");
    let table = page.split("| `what` |").nth(1).unwrap().split("\n\n").next().unwrap();
    let rows: Vec<_> = table.lines().filter_map(|line| line.strip_prefix("| `")).collect();
    let listed: Vec<_> = rows.iter().filter_map(|line| line.split('`').next()).collect();
    assert_eq!(listed, TROUBLES);
}

/// The line of the page's table.
fn row(metric: &Metric) -> String {
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let labels = labels.join(", ");
    format!("| `{}` | {} | {labels} | {} |", metric.name, metric.kind.name(), metric.help)
}
