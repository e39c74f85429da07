//! What the fields of messages may hold.

use std::time::Duration;

use common::ids::JobId;
use common::limits::{
    JOB_DEADLINE, LABEL_CHARACTERS, MACHINE_CPUS, MACHINE_MEMORY, REPOSITORY_CHARACTERS,
    RESERVE_LABELS, RUNNER_CHARACTERS, STEPS,
};
use common::request::{Deadlines, Envelope, JobBody, MachineSize, PROTOCOL_VERSION};

use crate::Address;

use super::{Control, EventBatch, MessageError, Reserve, Reserved};

/// Characters of a refused value that stand in the error; the rest is cut.
const SHOWN_CHARACTERS: usize = 100;

/// The label of a job that was refused for what stands in its envelope; see
/// [`JobMessage::answerable`](super::JobMessage::answerable).
pub const REFUSED_LABEL: &str = "refused";

/// An envelope of the version that its message has.
pub(super) fn envelope(envelope: &Envelope, version: u16) -> Result<(), MessageError> {
    let Envelope { version: own, repository, label: name, size, deadlines, reply_to, .. } =
        envelope;
    require(*own == version, "version", own, "the version of its message")?;
    label("label", name)?;
    text("repository", repository, 0..=REPOSITORY_CHARACTERS, REPOSITORY)?;
    if let Some(cpus) = size.cpus {
        require((1..=MACHINE_CPUS).contains(&cpus), "size.cpus", &cpus, "a number from 1 to 64")?;
    }
    if let Some(memory) = size.memory {
        let fits = (1..=MACHINE_MEMORY).contains(&memory.0);
        require(fits, "size.memory", &memory, "more than nothing and at most 16 TiB")?;
    }
    deadline("deadlines.queued", deadlines.queued)?;
    deadline("deadlines.running", deadlines.running)?;
    let addressed = reply_to.is_empty() || reply_to.parse::<Address>().is_ok();
    require(addressed, "reply_to", reply_to, "an address, or empty")
}

/// A body whose job a guest can be given.
pub(super) fn body(body: &JobBody) -> Result<(), MessageError> {
    let steps = body.plan.steps.len();
    require(steps <= STEPS, "plan.steps", &steps, "1000 steps at most")
}

/// An envelope that is refused with ordinary values in the place of everything that may be wrong;
/// `None` if nobody can be told about it.
pub(super) fn harmless(refused: &Envelope) -> Option<Envelope> {
    refused.reply_to.parse::<Address>().ok()?;
    let shown = text("repository", &refused.repository, 0..=REPOSITORY_CHARACTERS, REPOSITORY);
    Some(Envelope {
        version: PROTOCOL_VERSION,
        job: refused.job,
        forge: refused.forge,
        repository: if shown.is_ok() { refused.repository.clone() } else { String::new() },
        label: REFUSED_LABEL.to_owned(),
        size: MachineSize::default(),
        priority: 0,
        deadlines: Deadlines::default(),
        reply_to: refused.reply_to.clone(),
        reservation: None,
    })
}

/// The version of an envelope that this program makes.
pub(super) fn own_envelope(made: &Envelope) -> Result<(), MessageError> {
    envelope(made, PROTOCOL_VERSION)
}

/// The numbers in the header of a part.
pub(super) fn header(try_number: u32, first: u64, count: u32) -> Result<(), MessageError> {
    require(try_number >= 1, "try", &try_number, "a number from 1")?;
    require(first >= 1, "first", &first, "a number from 1")?;
    require(count >= 1, "count", &count, "a number from 1")?;
    let next = first.checked_add(u64::from(count));
    require(next.is_some(), "first", &first, "a number that leaves room for the events")
}

/// A batch: some parts of one job, in order and without a hole, nothing after the final event.
pub(super) fn batch(batch: &EventBatch) -> Result<(), MessageError> {
    if batch.parts.is_empty() {
        return Err(events("there is no part".to_owned()));
    }
    for part in &batch.parts {
        header(part.try_number, part.first, part.count)?;
    }
    for (before, after) in batch.parts.iter().zip(&batch.parts[1..]) {
        same_job(before.job, after.job)?;
        let expected = if after.try_number == before.try_number {
            before.first + u64::from(before.count)
        } else {
            1
        };
        if before.last {
            return Err(events("a part follows the one with the final event".to_owned()));
        }
        if after.try_number < before.try_number || after.first != expected {
            return Err(events(format!(
                "event {} of try {} follows the part from event {} of try {}",
                after.first, after.try_number, before.first, before.try_number
            )));
        }
    }
    Ok(())
}

/// Whether two neighbours are of one job.
pub(super) fn same_job(before: JobId, after: JobId) -> Result<(), MessageError> {
    if before == after {
        Ok(())
    } else {
        Err(events(format!("they are of the jobs {before} and {after}")))
    }
}

/// An error about events as a whole.
pub(super) fn events(reason: String) -> MessageError {
    MessageError::Events { reason }
}

pub(super) fn control(control: &Control) -> Result<(), MessageError> {
    match control {
        Control::Progress(progress) => {
            require(progress.try_number >= 1, "try", &progress.try_number, "a number from 1")
        }
        Control::Cancel { .. } | Control::Release(_) => Ok(()),
    }
}

pub(super) fn reserve(question: &Reserve) -> Result<(), MessageError> {
    text("runner", &question.runner, 1..=RUNNER_CHARACTERS, RUNNER)?;
    labels(&question.labels)
}

pub(super) fn reserved(answer: &Reserved) -> Result<(), MessageError> {
    labels(&answer.labels)
}

const REPOSITORY: &str = "at most 300 characters without control characters";
const RUNNER: &str = "1 to 100 characters without control characters";

fn labels(labels: &[String]) -> Result<(), MessageError> {
    require(labels.len() <= RESERVE_LABELS, "labels", &labels.len(), "at most 256 labels")?;
    labels.iter().try_for_each(|name| label("labels", name))
}

/// A label becomes part of file names, metrics and command lines.
fn label(field: &'static str, label: &str) -> Result<(), MessageError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fits = (1..=LABEL_CHARACTERS).contains(&label.len())
        && !label.starts_with(['-', '.'])
        && label.chars().all(plain);
    let expected =
        "1 to 100 of the characters A-Z, a-z, 0-9, `.`, `_` and `-`, the first not `.` or `-`";
    require(fits, field, label, expected)
}

fn text(
    field: &'static str,
    text: &str,
    characters: std::ops::RangeInclusive<usize>,
    expected: &'static str,
) -> Result<(), MessageError> {
    let fits = characters.contains(&text.chars().count()) && !text.contains(char::is_control);
    require(fits, field, text, expected)
}

fn deadline(field: &'static str, time: Duration) -> Result<(), MessageError> {
    let fits = !time.is_zero() && time <= JOB_DEADLINE;
    require(fits, field, &format!("{} s", time.as_secs()), "more than nothing and at most 35 days")
}

fn require(
    fits: bool,
    field: &'static str,
    value: &(impl ToString + ?Sized),
    expected: &'static str,
) -> Result<(), MessageError> {
    if fits {
        return Ok(());
    }
    let value = value.to_string().chars().take(SHOWN_CHARACTERS).collect();
    Err(MessageError::Field { field, value, expected })
}
