//! What is counted for Prometheus, on the page of metrics of the process that has the runners.
//! docs/operations.md lists it, and a test compares the two.

use common::event::Conclusion;
use metrics::{counter, describe_counter};

const TAKEN: &str = "solstice_forgejo_tasks_taken_total";
const REPORTED: &str = "solstice_forgejo_tasks_total";
const ROWS: &str = "solstice_forgejo_rows_total";
const FAILED_CALLS: &str = "solstice_forgejo_failed_calls_total";

/// The result of a task that no server wanted any more.
const GIVEN_UP: &str = "given up";

/// A counter: its name, its labels and what it counts.
type Counter = (&'static str, &'static [&'static str], &'static str);

/// Every counter.
const METRICS: &[Counter] = &[
    (TAKEN, &[], "Tasks that instances handed out to this process."),
    (
        REPORTED,
        &["result"],
        "Tasks whose end an instance has, or does not want any more, by result.",
    ),
    (ROWS, &[], "Rows of logs that instances have."),
    (FAILED_CALLS, &[], "Calls about tasks that brought no answer or an error."),
];

/// Tells the recorder of this process what each counter is.
pub(crate) fn describe() {
    for (name, _, help) in METRICS {
        describe_counter!(*name, *help);
    }
}

/// A task was taken.
pub(crate) fn taken() {
    counter!(TAKEN).increment(1);
}

/// A task is over; without a result it was given up.
pub(crate) fn over(result: Option<Conclusion>) {
    let result = result.map_or(GIVEN_UP, Conclusion::name);
    counter!(REPORTED, "result" => result).increment(1);
}

/// Rows are on a server.
pub(crate) fn rows(count: u64) {
    counter!(ROWS).increment(count);
}

/// A call failed.
pub(crate) fn failed_call() {
    counter!(FAILED_CALLS).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_for_operators_lists_every_counter() {
        let page = include_str!("../../docs/operations.md");
        let rows = page.lines().filter(|line| line.starts_with("| `solstice_forgejo_"));
        let expected: Vec<String> = METRICS
            .iter()
            .map(|(name, labels, help)| {
                let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
                format!("| `{name}` | counter | {} | {help} |", labels.join(", "))
            })
            .collect();
        assert_eq!(rows.collect::<Vec<_>>(), expected);
    }
}
