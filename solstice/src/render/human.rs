//! Text for people: each step as a group with its name, its time and its conclusion.
//!
//! ```text
//! ▶ Say hello
//!   hello
//! ✓ Say hello: success in 0.1s
//! ```
//!
//! With several jobs each line begins with the name of its job.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use common::event::{
    Annotation, Conclusion, EventBody, Finished, JobEvent, JobResult, LogBatch, LogLine, Phase,
    PhaseEvent, StepFinished, StepStarted, Stream, Summary,
};
use common::ids::JobId;

use super::clean::{clean, clean_name, parts};
use super::report::{JobReport, Report, human_duration};
use super::{Item, Output, Render, StartedJob};
use crate::message::{DIM, ERROR, HINT, WARNING};

const STRONG: Style = Style::new().bold();
const PASSED: Style = AnsiColor::Green.on_default();
const FAILED: Style = AnsiColor::Red.on_default().bold();
const COMMAND: Style = AnsiColor::Cyan.on_default();

/// The longest name of a job or step that is shown, in characters.
const NAME_CHARACTERS: usize = 200;

/// The longest name of a result, for the table.
const RESULT_CHARACTERS: usize = "cancelled".len();

/// Renders for people.
pub(crate) struct Human {
    output: Output,
    /// Whether lines begin with the name of their job.
    several: bool,
    verbose: bool,
    jobs: HashMap<JobId, Job>,
}

/// What is known of a job while its events come.
struct Job {
    name: String,
    try_number: u32,
    /// The name of the running step.
    step: Option<String>,
    phases: Vec<(Phase, Duration)>,
}

impl Human {
    /// `several`: more than one job may run, so lines need the name of theirs.
    pub(crate) fn new(output: Output, several: bool, verbose: bool) -> Self {
        Self { output, several, verbose, jobs: HashMap::new() }
    }

    fn event(&mut self, event: &JobEvent) -> io::Result<()> {
        // The host gives events only for jobs that were handed to it.
        let Some(mut job) = self.jobs.remove(&event.job) else { return Ok(()) };
        let result = self.job_event(&mut job, event);
        if matches!(event.event, EventBody::Finished(_)) {
            self.output.progress.set(|status| status.remove(&job.name));
        } else {
            self.jobs.insert(event.job, job);
        }
        result
    }

    fn job_event(&mut self, job: &mut Job, event: &JobEvent) -> io::Result<()> {
        if event.try_number != job.try_number {
            job.try_number = event.try_number;
            job.phases.clear();
            let text = format!("try {} on a fresh machine", event.try_number);
            self.line(job, WARNING, &text)?;
        }
        match &event.event {
            EventBody::Phase(phase) => self.phase(job, phase),
            EventBody::StepStarted(step) => self.step_started(job, step),
            EventBody::StepFinished(step) => self.step_finished(job, step),
            EventBody::Log(batch) => self.log(job, batch),
            EventBody::Outputs(outputs) if self.verbose => {
                for (name, value) in outputs {
                    let text = format!("output {} = {}", clean_name(name), clean_name(value));
                    self.line(job, DIM, &text)?;
                }
                Ok(())
            }
            EventBody::Outputs(_) => Ok(()),
            EventBody::Summary(summary) => self.summary(job, summary),
            EventBody::Annotation(annotation) => self.annotation(job, annotation),
            // The report at the end says it, where nobody has to search for it.
            // The log has a line about it.
            EventBody::Kept(_) | EventBody::Debug(_) => Ok(()),
            EventBody::Finished(finished) => self.finished(job, finished),
        }
    }

    fn phase(&mut self, job: &mut Job, event: &PhaseEvent) -> io::Result<()> {
        let name = event.phase.name();
        let detail = event.detail.as_deref().map(|d| format!(" ({})", clean_name(d)));
        let detail = detail.unwrap_or_default();
        let times: Vec<String> = job.phases.iter().map(phase_time).collect();
        let times = times.join(", ");
        match event.took {
            None if event.phase == Phase::Steps && !self.output.progress.is_plain() => {
                self.activity(job, name.to_owned());
                return self.line(job, DIM, &format!("machine ready: {times}"));
            }
            None if times.is_empty() => self.activity(job, name.to_owned()),
            None => self.activity(job, format!("{times}, {name}")),
            Some(took) => job.phases.push((event.phase, took)),
        }
        if self.output.progress.is_plain() {
            // Both streams may be the same pipe: keep the order.
            self.output.flush()?;
            let prefix = if self.several { format!("{} | ", job.name) } else { String::new() };
            let text = match event.took {
                None => format!("{prefix}{name} ...{detail}"),
                Some(took) => format!("{prefix}{name} {}{detail}", human_duration(took)),
            };
            self.output.progress.say(&text);
        }
        Ok(())
    }

    fn step_started(&mut self, job: &mut Job, step: &StepStarted) -> io::Result<()> {
        let name = short_name(&step.name);
        self.prefix(job);
        self.output.styled(STRONG, &format!("▶ {name}"));
        self.output.end_line()?;
        self.activity(job, name.clone());
        job.step = Some(name);
        Ok(())
    }

    fn step_finished(&mut self, job: &mut Job, step: &StepFinished) -> io::Result<()> {
        let name = short_name(&step.name);
        let (sign, style) = match step.conclusion {
            Conclusion::Success => ("✓", PASSED),
            Conclusion::Failure => ("✗", FAILED),
            Conclusion::Cancelled => ("■", WARNING),
            Conclusion::Skipped => ("○", DIM),
        };
        let took = match step.conclusion {
            Conclusion::Skipped => String::new(),
            _ => format!(" in {}", human_duration(step.took)),
        };
        let forgiven = match step.outcome {
            outcome if outcome == step.conclusion => String::new(),
            outcome => format!(" ({} forgiven by continue-on-error)", outcome.name()),
        };
        let text = format!("{sign} {name}: {}{took}{forgiven}", step.conclusion.name());
        job.step = None;
        self.activity(job, "steps".to_owned());
        self.line(job, style, &text)
    }

    fn log(&mut self, job: &Job, batch: &LogBatch) -> io::Result<()> {
        for line in &batch.lines {
            // What matters of a console stands in the message of a failure as well.
            if line.stream == Stream::Console && !self.verbose {
                continue;
            }
            for part in parts(line.text.as_bytes()) {
                self.log_line(job, line, part)?;
            }
        }
        Ok(())
    }

    fn log_line(&mut self, job: &Job, line: &LogLine, text: &[u8]) -> io::Result<()> {
        let marker = if line.stream == Stream::Console { None } else { marker(text) };
        match marker {
            Some((Marker::GroupEnd, _)) => return Ok(()),
            // A step without a name of its own is called like the group that shows its script.
            Some((Marker::Group, title)) if job.step.as_deref() == str::from_utf8(title).ok() => {
                return Ok(());
            }
            _ => {}
        }
        self.prefix(job);
        let output = &mut self.output;
        if !text.is_empty() {
            output.buffer().extend_from_slice(b"  ");
        }
        if line.stream == Stream::Console {
            output.styled(DIM, "console: ");
        }
        let text = match marker {
            Some((Marker::Labelled(style, label), rest)) => {
                output.styled(style, label);
                output.buffer().extend_from_slice(b": ");
                rest
            }
            Some((Marker::Group, rest)) => {
                output.styled(STRONG, &format!("▸ {}", clean_name(&String::from_utf8_lossy(rest))));
                b""
            }
            Some((Marker::Styled(style, sign), rest)) => {
                output.styled(
                    style,
                    &format!("{sign}{}", clean_name(&String::from_utf8_lossy(rest))),
                );
                b""
            }
            _ => text,
        };
        let colours = output.colours();
        clean(text, colours, output.buffer());
        output.end_line()
    }

    fn summary(&mut self, job: &Job, summary: &Summary) -> io::Result<()> {
        self.line(job, STRONG, "▶ Summary")?;
        for line in summary.markdown.lines() {
            self.prefix(job);
            self.output.buffer().extend_from_slice("  │ ".as_bytes());
            clean(line.as_bytes(), false, self.output.buffer());
            self.output.end_line()?;
        }
        Ok(())
    }

    /// The message stands in the log already; here is its place.
    fn annotation(&mut self, job: &Job, annotation: &Annotation) -> io::Result<()> {
        let Some(file) = &annotation.file else { return Ok(()) };
        let place = [annotation.line, annotation.column]
            .into_iter()
            .map_while(|number| number.map(|number| format!(":{number}")));
        let place: String = place.collect();
        self.line(job, DIM, &format!("  --> {}{place}", clean_name(file)))
    }

    /// The log has the message and the cure already; here is the cause that scripts look for.
    fn finished(&mut self, job: &Job, finished: &Finished) -> io::Result<()> {
        let Some(infrastructure) = &finished.infrastructure else { return Ok(()) };
        let text = format!("✗ infrastructure failure: {}", infrastructure.cause.code());
        self.line(job, FAILED, &text)
    }

    fn report(&mut self, report: &Report) -> io::Result<()> {
        self.output.progress.clear();
        if report.jobs.len() > 1 {
            self.output.end_line()?;
            let width = report.jobs.iter().map(|job| job.name.chars().count()).max().unwrap_or(0);
            let width = width.min(NAME_CHARACTERS);
            for job in &report.jobs {
                self.output.styled(result_style(job.result), &table_cells(job, width));
                self.output.styled(Style::new(), table_rest(job).trim_end());
                self.output.end_line()?;
            }
        }
        self.output.end_line()?;
        let style = result_style(report.result);
        self.output.styled(style, verdict(report));
        let took = human_duration(Duration::from_millis(report.took_ms));
        let mut text = format!(" in {took}");
        if let [job] = report.jobs.as_slice() {
            text.push_str(&phases(job));
        }
        self.output.styled(Style::new(), &text);
        self.output.end_line()?;
        for kept in report.jobs.iter().filter_map(|job| job.kept.as_ref()) {
            let (how, command) = if kept.frozen { ("frozen", "thaw") } else { ("kept", "shell") };
            let text = format!(
                "the failed machine is {how} until {}: solstice {command} {}",
                humantime::format_rfc3339_seconds(kept.until.into()),
                clean_name(&kept.machine)
            );
            self.output.styled(Style::new(), &text);
            self.output.end_line()?;
        }
        self.output.flush()
    }

    /// A line of ours about a job.
    fn line(&mut self, job: &Job, style: Style, text: &str) -> io::Result<()> {
        self.prefix(job);
        self.output.styled(style, text);
        self.output.end_line()
    }

    fn prefix(&mut self, job: &Job) {
        if self.several {
            self.output.styled(DIM, &job.name);
            self.output.buffer().extend_from_slice(" | ".as_bytes());
        }
    }

    fn activity(&mut self, job: &Job, activity: String) {
        self.output.progress.set(|status| status.activity(&job.name, activity, Instant::now()));
    }
}

impl Render for Human {
    fn item(&mut self, item: Item) -> io::Result<()> {
        match item {
            Item::Started(StartedJob { id, name }) => {
                let name = short_name(&name);
                let job = Job { name, try_number: 1, step: None, phases: Vec::new() };
                self.activity(&job, "start".to_owned());
                self.jobs.insert(id, job);
                Ok(())
            }
            Item::Event(event) => self.event(&event),
            Item::Notice(text) => {
                self.output.flush()?;
                self.output.progress.suspended(|| crate::message::notice(&text));
                Ok(())
            }
            Item::Report(report) => self.report(&report),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// What a line of the log means beyond its text (github-runner-protocol 6.6).
#[derive(Clone, Copy)]
enum Marker {
    /// The line is shown in a style, behind a sign.
    Styled(Style, &'static str),
    /// The line is shown behind a word.
    Labelled(Style, &'static str),
    /// The line is the title of a group.
    Group,
    /// The line is not shown.
    GroupEnd,
}

/// The marker at the start of a line, and the rest.
fn marker(line: &[u8]) -> Option<(Marker, &[u8])> {
    const MARKERS: &[(&str, Marker)] = &[
        ("##[group]", Marker::Group),
        ("##[endgroup]", Marker::GroupEnd),
        ("##[section]", Marker::Styled(STRONG, "")),
        ("##[command]", Marker::Styled(COMMAND, "$ ")),
        ("##[error]", Marker::Labelled(ERROR, "error")),
        ("##[warning]", Marker::Labelled(WARNING, "warning")),
        ("##[notice]", Marker::Labelled(HINT, "notice")),
        ("##[debug]", Marker::Labelled(DIM, "debug")),
    ];
    if !line.starts_with(b"##[") {
        return None;
    }
    MARKERS.iter().find_map(|(text, marker)| {
        let rest = line.strip_prefix(text.as_bytes())?;
        Some((*marker, rest))
    })
}

fn short_name(name: &str) -> String {
    let name = clean_name(name.lines().next().unwrap_or_default());
    if name.chars().count() <= NAME_CHARACTERS {
        return name;
    }
    let cut: String = name.chars().take(NAME_CHARACTERS - 1).collect();
    format!("{cut}…")
}

fn result_style(result: JobResult) -> Style {
    match result {
        JobResult::Success => PASSED,
        JobResult::Failure => FAILED,
        JobResult::Cancelled => WARNING,
        JobResult::Skipped => DIM,
    }
}

/// The name and the result of a job, aligned with those of the others.
fn table_cells(job: &JobReport, width: usize) -> String {
    format!("{:width$}  {}", short_name(&job.name), job.result.name())
}

/// What follows them: the time, and why a failure is none of the job or does not count.
fn table_rest(job: &JobReport) -> String {
    let gap = " ".repeat(RESULT_CHARACTERS.saturating_sub(job.result.name().len()));
    let took = match job.id {
        Some(_) => human_duration(Duration::from_millis(job.took_ms)),
        None => String::new(),
    };
    let remark = match &job.infrastructure {
        Some(infrastructure) => infrastructure.cause.code(),
        None if job.result == JobResult::Failure && !job.failure_counts => {
            "forgiven by continue-on-error"
        }
        None => "",
    };
    format!("{gap}  {took}  {remark}")
}

fn verdict(report: &Report) -> &'static str {
    if report.jobs.iter().any(|job| job.infrastructure.is_some()) {
        return "infrastructure failure";
    }
    match report.result {
        JobResult::Success => "passed",
        JobResult::Failure => "failed",
        JobResult::Cancelled => "cancelled",
        JobResult::Skipped => "skipped",
    }
}

fn phases(job: &JobReport) -> String {
    let times: Vec<String> = job
        .phases_ms
        .iter()
        .map(|(phase, took)| phase_time(&(*phase, Duration::from_millis(*took))))
        .collect();
    if times.is_empty() { String::new() } else { format!(" ({})", times.join(", ")) }
}

fn phase_time((phase, took): &(Phase, Duration)) -> String {
    format!("{} {}", phase.name(), human_duration(*took))
}
