//! `solstice doctor`: a list of checks, each with an id, a finding and a cure.

mod checks;
mod forgejo;
mod image_tools;
mod service;

use std::borrow::Cow;

use serde::Serialize;

use crate::cli::DoctorArgs;
use crate::exit::{CommandError, Exit};
use crate::settings::Settings;
use crate::table;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Nothing to do.
    Ok,
    /// Jobs run, but something could be better.
    Warning,
    /// Jobs do not run.
    Failed,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// Stable: scripts quote it.
    pub(crate) id: Cow<'static, str>,
    /// How it ended.
    pub(crate) verdict: Verdict,
    /// What was found, one sentence.
    pub(crate) finding: String,
    /// What to do, where something is to be done.
    pub(crate) cure: Option<String>,
}

impl Check {
    pub(crate) fn ok(id: impl Into<Cow<'static, str>>, finding: impl Into<String>) -> Self {
        Self { id: id.into(), verdict: Verdict::Ok, finding: finding.into(), cure: None }
    }

    pub(crate) fn warning(
        id: impl Into<Cow<'static, str>>,
        finding: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            verdict: Verdict::Warning,
            finding: finding.into(),
            cure: Some(cure.into()),
        }
    }

    pub(crate) fn failed(
        id: impl Into<Cow<'static, str>>,
        finding: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            verdict: Verdict::Failed,
            finding: finding.into(),
            cure: Some(cure.into()),
        }
    }
}

/// Checks this host. The exit code is 2 if jobs would not run.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) async fn doctor(
    settings: &Settings,
    arguments: &DoctorArgs,
) -> Result<Exit, CommandError> {
    let checks = checks::all(settings).await;
    if arguments.json {
        table::print_json(&checks)?;
    } else {
        table::print(&["", "CHECK", "FINDING"], checks.iter().flat_map(rows))?;
    }
    let failed = checks.iter().any(|check| check.verdict == Verdict::Failed);
    Ok(if failed { Exit::Infrastructure } else { Exit::Passed })
}

fn rows(check: &Check) -> impl Iterator<Item = [String; 3]> {
    let verdict = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Failed => "FAILED",
    };
    let finding = [verdict.to_owned(), check.id.to_string(), check.finding.replace('\n', "; ")];
    let cure = check.cure.as_ref().map(|cure| [String::new(), String::new(), format!("→ {cure}")]);
    std::iter::once(finding).chain(cure)
}
