//! Which job a user means.

use common::ids::JobId;
use orchestrator::store::JobFilter;

use super::MOST;
use crate::client::Client;
use crate::exit::CommandError;

/// Candidates that an error names.
const NAMED: usize = 5;

/// The job of an id, or of a beginning or an end of one that no other job shares.
///
/// # Errors
/// The text is no part of an id, or of none or several; or the service cannot be used.
pub(crate) async fn find(client: &Client, text: &str) -> Result<JobId, CommandError> {
    let part = text.trim().to_ascii_lowercase();
    if let Ok(id) = part.parse() {
        return Ok(id);
    }
    let digits = part.replace('-', "");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(CommandError::usage(format!("{text:?} is not the id of a job"))
            .hint("`solstice jobs --all` lists the jobs that are known"));
    }
    let filter = JobFilter { most: MOST, ..JobFilter::default() };
    let jobs = client.jobs(&filter).await?;
    choose(text, &digits, jobs.iter().map(|job| job.id))
}

fn choose(
    text: &str,
    digits: &str,
    jobs: impl Iterator<Item = JobId>,
) -> Result<JobId, CommandError> {
    let matches = |id: &JobId| {
        let id = id.to_string().replace('-', "");
        id.ends_with(digits) || id.starts_with(digits)
    };
    let found: Vec<JobId> = jobs.filter(matches).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(CommandError::usage(format!("there is no job {text:?}"))
            .hint("`solstice jobs --all` lists the jobs that are known")),
        several => {
            let named: Vec<String> = several.iter().take(NAMED).map(JobId::short).collect();
            let more = if several.len() > NAMED { ", ..." } else { "" };
            let count = several.len();
            Err(CommandError::usage(format!("{text:?} is a part of {count} jobs' ids"))
                .hint(format!("write more of it: {}{more}", named.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose_of(digits: &str, ids: &[&str]) -> Result<String, String> {
        let ids = ids.iter().map(|id| id.parse().unwrap());
        choose(digits, digits, ids)
            .map(|id: JobId| id.short())
            .map_err(|error| format!("{error}; {}", error.advice().unwrap_or_default()))
    }

    const A: &str = "0192f0c1-0000-7000-8000-aaaaaaaaaaa1";
    const B: &str = "0192f0c1-0000-7000-8000-bbbbbbbbbbb1";

    #[test]
    fn a_part_that_one_job_has_is_enough() {
        let check = |digits: &str| choose_of(digits, &[A, B]);
        assert_eq!(check("aaaaaaaaaaa1").unwrap(), "aaaaaaaaaaa1");
        assert_eq!(check("b1").unwrap(), "bbbbbbbbbbb1");
        assert_eq!(check("0192f0c1000070008000b").unwrap(), "bbbbbbbbbbb1");
    }

    #[test]
    fn other_parts_are_refused_with_what_there_is() {
        let check = |digits: &str| choose_of(digits, &[A, B]).unwrap_err();
        assert_eq!(
            check("1"),
            "\"1\" is a part of 2 jobs' ids; write more of it: aaaaaaaaaaa1, bbbbbbbbbbb1"
        );
        assert!(check("c0ffee").starts_with("there is no job \"c0ffee\""));
        // In the middle is nothing that people see.
        assert!(check("7000").starts_with("there is no job"));
    }
}
