//! What happened beside what was expected.

use std::fmt::Write;

use common::event::{Annotation, EventBody, JobEvent, StepFinished, Stream};
use common::plan::Dialect;
use serde_json::{Map, Value as Json, json};

use super::case::{Case, of};
use super::here::Played;

/// Everything in which a job differs from what is expected.
pub(super) fn compare(case: &Case, dialect: Dialect, played: &Played) -> Vec<String> {
    let mut found = Vec::new();
    let mut same = |what: String, expected: &Json, actual: &Json| {
        if expected != actual {
            found.push(format!("  {what}\n    expected {expected}\n    actual   {actual}"));
        }
    };
    if let Some(job) = case.expected("job", dialect) {
        same("job".to_owned(), job, &json!(played.result.name()));
    }
    for (index, step) in case.steps().iter().enumerate() {
        let place = |what: &str| format!("{what} of step {index}");
        let number = u32::try_from(index).unwrap();
        let Some(end) = finished(&played.events, number) else {
            same(place("end"), &json!("one"), &json!("none"));
            continue;
        };
        for (what, actual) in [
            ("conclusion", json!(end.conclusion.name())),
            ("outcome", json!(end.outcome.name())),
            ("name", json!(end.name)),
        ] {
            if let Some(expected) = step.get(what).and_then(|value| of(value, dialect)) {
                same(place(what), expected, &actual);
            }
        }
        if let Some(expected) = step.get("lines").and_then(|value| of(value, dialect)) {
            let lines = lines(&played.events, |step| step == Some(number), is_process);
            if !are_lines(expected, &lines) {
                same(place("lines"), expected, &json!(lines));
            }
        }
        if let Some(expected) = step.get("warnings").and_then(|value| of(value, dialect)) {
            let warnings = lines(&played.events, |step| step == Some(number), is_warning);
            let parts = expected.as_array().unwrap();
            let is_part =
                |(part, warning): (&Json, &String)| warning.contains(part.as_str().unwrap());
            if parts.len() != warnings.len() || !parts.iter().zip(&warnings).all(is_part) {
                same(place("warnings"), expected, &json!(warnings));
            }
        }
    }
    if let Some(expected) = case.expected("output", dialect) {
        let lines = lines(&played.events, |_| true, is_process);
        if !are_lines(expected, &lines) {
            same("output".to_owned(), expected, &json!(lines));
        }
    }
    let extra = finished(&played.events, u32::try_from(case.steps().len()).unwrap());
    same("steps beyond the last".to_owned(), &json!(false), &json!(extra.is_some()));
    if let Some(expected) = case.expected("annotations", dialect) {
        let annotations = annotations(&played.events, expected.as_array().unwrap());
        same("annotations".to_owned(), expected, &annotations);
    }
    if let Some(expected) = case.expected("summary", dialect) {
        same("summary".to_owned(), expected, &json!(summary(&played.events)));
    }
    if let Some(expected) = case.expected("outputs", dialect) {
        same("outputs".to_owned(), expected, &outputs(&played.events));
    }
    if !found.is_empty() {
        found.push(format!("  log\n{}", log(&played.events)));
    }
    found
}

fn finished(events: &[JobEvent], step: u32) -> Option<&StepFinished> {
    events.iter().find_map(|event| match &event.event {
        EventBody::StepFinished(end) if end.step == step => Some(end),
        _ => None,
    })
}

/// The lines of these steps, of this kind; what belongs to no step has none.
fn lines(
    events: &[JobEvent],
    of: impl Fn(Option<u32>) -> bool,
    is_wanted: impl Fn(Stream, &str) -> bool,
) -> Vec<String> {
    let mut lines = Vec::new();
    for event in events {
        let EventBody::Log(batch) = &event.event else { continue };
        if of(batch.step) {
            let batch = batch.lines.iter().map(|line| (line.stream, line.text.to_text()));
            let wanted = batch.filter(|(stream, text)| is_wanted(*stream, text));
            lines.extend(wanted.map(|(_, text)| text.into_owned()));
        }
    }
    lines
}

/// What processes printed.
fn is_process(stream: Stream, _text: &str) -> bool {
    stream != Stream::Runner
}

/// A warning of the runner itself.
fn is_warning(stream: Stream, text: &str) -> bool {
    stream == Stream::Runner && text.starts_with("##[warning]")
}

fn are_lines(expected: &Json, actual: &[String]) -> bool {
    let expected = expected.as_array().unwrap();
    expected.len() == actual.len()
        && expected.iter().zip(actual).all(|(line, actual)| is_line(line, actual))
}

/// Whether a line is as expected: a text, or its begin with its length or the most of it.
fn is_line(expected: &Json, actual: &str) -> bool {
    if let Some(text) = expected.as_str() {
        return text == actual;
    }
    let size = |name: &str| expected.get(name).map(|bytes| bytes.as_u64().unwrap());
    let length = actual.len() as u64;
    actual.starts_with(expected["starts"].as_str().unwrap())
        && size("bytes").is_none_or(|bytes| bytes == length)
        && size("at_most").is_none_or(|bytes| length <= bytes)
}

/// The annotations, each with the members that its expectation has.
fn annotations(events: &[JobEvent], expected: &[Json]) -> Json {
    let mut place = 0;
    let mut found = Vec::new();
    for event in events {
        let EventBody::Annotation(annotation) = &event.event else { continue };
        let all = members(annotation);
        found.push(match expected.get(place).and_then(Json::as_object) {
            Some(wanted) => wanted
                .keys()
                .map(|name| (name.clone(), all.get(name).cloned().unwrap_or_default()))
                .collect::<Map<_, _>>()
                .into(),
            None => Json::Object(all),
        });
        place += 1;
    }
    Json::Array(found)
}

fn members(annotation: &Annotation) -> Map<String, Json> {
    match serde_json::to_value(annotation).unwrap() {
        Json::Object(members) => members,
        other => panic!("an annotation is an object, not {other}"),
    }
}

fn summary(events: &[JobEvent]) -> String {
    let summaries = events.iter().filter_map(|event| match &event.event {
        EventBody::Summary(summary) => Some(summary.markdown.as_str()),
        _ => None,
    });
    summaries.collect()
}

fn outputs(events: &[JobEvent]) -> Json {
    let outputs = events.iter().find_map(|event| match &event.event {
        EventBody::Outputs(outputs) => Some(json!(outputs)),
        _ => None,
    });
    outputs.unwrap_or_else(|| json!({}))
}

/// The whole log, for a person.
fn log(events: &[JobEvent]) -> String {
    let mut log = String::new();
    for event in events {
        let EventBody::Log(batch) = &event.event else { continue };
        let step = batch.step.map_or("-".to_owned(), |step| step.to_string());
        for line in &batch.lines {
            writeln!(log, "    {step} {:?}: {}", line.stream, line.text.to_text()).unwrap();
        }
    }
    log
}
