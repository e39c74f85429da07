//! `solstice show`: everything that the service knows about a job.

use std::time::Duration;

use anstyle::Style;
use common::event::Phase;
use common::time::Timestamp;
use orchestrator::store::{Job, JobDetail, JobState, TryRow};

use crate::cli::JobArgs;
use crate::client::Client;
use crate::exit::{CommandError, Exit};
use crate::jobs::{HostNames, age, find, state};
use crate::message::visible;
use crate::render::human_duration;
use crate::settings::Settings;
use crate::table;

/// The width of the names in front of the values.
const NAMES: usize = 12;

/// `solstice show`.
///
/// # Errors
/// The job is not known, or the service cannot be used.
pub(crate) async fn show(settings: &Settings, arguments: JobArgs) -> Result<Exit, CommandError> {
    let client = Client::open(&settings.socket_path())?;
    let job = find(&client, &arguments.job).await?;
    let detail = client.job(job).await?;
    if arguments.json {
        return table::print_json(&detail);
    }
    let names = HostNames::of(&client.hosts().await?);
    table::print_text(&text(&detail, &names, Timestamp::now()))
}

fn text(detail: &JobDetail, names: &HostNames, now: Timestamp) -> String {
    let job = &detail.job;
    let mut page = Page::default();
    page.line("job", &job.id.to_string());
    let (state, style) = state(job);
    page.styled("state", &format!("{state}{}", standing(job, now)), style);
    if let Some(cause) = job.finished.as_ref().and_then(|done| done.infrastructure.as_ref()) {
        page.line("cause", &cause.message);
        page.line("what to do", &format!("{}.", cause.cause.cure()));
    }
    let forge = format!("{:?}", job.forge).to_lowercase();
    page.line("repository", &format!("{} ({forge})", job.repository));
    page.line("label", &job.label);
    if let Some(size) = job.size {
        page.line("machine", &format!("{} CPU, {}", size.cpus, size.memory));
    }
    if job.priority != 0 {
        page.line("priority", &job.priority.to_string());
    }
    let when = |time: Timestamp| {
        let text = humantime::format_rfc3339_seconds(time.into());
        format!("{text} ({} ago)", age(now.since(time)))
    };
    page.line("arrived", &when(job.created));
    if let Some(claimed) = job.claimed {
        page.line("waited", &human_duration(claimed.since(job.created)));
    }
    if let Some(ended) = job.ended {
        page.line("ended", &when(ended));
    }
    for one in &detail.tries {
        page.line(&format!("try {}", one.number), &try_line(one, names, job, now));
        let phases: Vec<String> = one.phases.iter().map(phase).collect();
        if !phases.is_empty() {
            page.line("", &phases.join(", "));
        }
    }
    page.0.concat()
}

/// What stands behind the word for a job's state.
fn standing(job: &Job, now: Timestamp) -> String {
    if job.state == JobState::Done {
        return String::new();
    }
    let deadline = match job.deadline.map(|deadline| deadline.since(now)) {
        None => String::new(),
        Some(Duration::ZERO) => ", past its deadline".to_owned(),
        Some(left) => format!(", at most {} more", age(left)),
    };
    let cancel = if job.cancel_requested && job.state != JobState::Cancelling {
        ", to be cancelled"
    } else {
        ""
    };
    format!(" for {}{deadline}{cancel}", age(now.since(job.since)))
}

fn try_line(one: &TryRow, names: &HostNames, job: &Job, now: Timestamp) -> String {
    let host = names.name(one.host);
    let machine = one.vm.map(|vm| format!(" in machine {}", vm.short())).unwrap_or_default();
    let ended = one.ended.or(job.ended);
    let tense = if ended.is_some() { "took" } else { "for" };
    let took = human_duration(ended.unwrap_or(now).since(one.began));
    let cause = one.cause.as_ref().map(|cause| format!(", ended by {cause}")).unwrap_or_default();
    format!("on {host}{machine}, {tense} {took}{cause}")
}

fn phase((phase, took): &(Phase, Duration)) -> String {
    format!("{} {}", phase.name(), human_duration(*took))
}

/// Names and values, one pair on each line.
#[derive(Default)]
struct Page(Vec<String>);

impl Page {
    fn line(&mut self, name: &str, value: &str) {
        self.styled(name, value, Style::new());
    }

    fn styled(&mut self, name: &str, value: &str, style: Style) {
        let mut name = name;
        for line in visible(value).lines() {
            self.0.push(format!("{name:NAMES$}{style}{line}{style:#}\n"));
            name = "";
        }
    }
}
