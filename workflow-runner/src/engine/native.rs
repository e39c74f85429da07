//! Actions that this program does itself, in the place of the originals.

mod artifact;
mod cache;
mod places;
mod service;

use common::event::Conclusion;
use common::guest::NativeCommits;
use common::plan;

use crate::workflow::{self, Native, NativeAction, Version};

use super::action::{NODE, unknown};
use super::fault::Fault;
use super::interpreter::Said;
use super::job::Job;
use super::step::{Performed, Performing};
pub(super) use cache::Saving;

/// Why this program has not done what an action does.
#[derive(Debug)]
pub(super) enum Unfit {
    /// It does not do what an input asks for: a sentence.
    Original(String),
    /// Nobody can do it.
    Failed(Fault),
}

impl From<Fault> for Unfit {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl From<String> for Unfit {
    fn from(sentence: String) -> Self {
        Self::Failed(sentence.into())
    }
}

impl From<Unfit> for Fault {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Original(sentence) => sentence.into(),
            Unfit::Failed(fault) => fault,
        }
    }
}

impl Job<'_> {
    /// Runs an action of a repository: what this program does itself where it can, else the original.
    pub(super) async fn use_action(
        &mut self,
        performing: &mut Performing<'_>,
        reference: &str,
        with: &plan::Value,
    ) -> Result<Performed, Fault> {
        let with = self.open_action(performing, reference, with).await?;
        let Some((action, version)) = workflow::native(reference) else {
            return self.run_action(performing, reference, with).await;
        };
        let has_node = self.has_node(performing).await?;
        if !self.stands_for(version, has_node) {
            if has_node {
                return self.run_action(performing, reference, with).await;
            }
            return Err(unlisted(reference, action).into());
        }
        let performed =
            self.run_native(performing, reference, (action.native, version), &with).await;
        // The original warns of them by its own file.
        if !has_node || !matches!(performed, Err(Unfit::Original(_))) {
            let valid = action.native.inputs();
            self.warn_of_unknown(&unknown(&with, valid), valid).await;
        }
        match performed {
            Ok(performed) => Ok(performed),
            Err(Unfit::Original(sentence)) if has_node => {
                let text = format!("{sentence}; the original action does it");
                self.events.say(self.system.now(), &text).await;
                self.run_action(performing, reference, with).await
            }
            Err(Unfit::Original(sentence)) => Err(format!(
                "{sentence}, and this machine has no node to run the original action; leave it \
                 out, or run the job on a label whose image has node"
            )
            .into()),
            Err(Unfit::Failed(fault)) => Err(fault),
        }
    }

    /// Whether this program does an action of this version itself.
    fn stands_for(&self, version: Version, has_node: bool) -> bool {
        match version {
            Version::Listed(_) => true,
            Version::Commit => match self.document.native_commits {
                NativeCommits::Always => true,
                NativeCommits::WithoutNode => !has_node,
                NativeCommits::Never => false,
            },
            Version::Other => false,
        }
    }

    async fn has_node(&mut self, performing: &Performing<'_>) -> Result<bool, Fault> {
        let environment = self.environment(performing);
        Ok(self.find_in_job(NODE, performing, &environment).await?.is_some())
    }

    async fn run_native(
        &mut self,
        performing: &mut Performing<'_>,
        reference: &str,
        (native, version): (Native, Version),
        with: &[(String, String)],
    ) -> Result<Performed, Unfit> {
        match native {
            Native::Checkout => self.place_tree(performing, reference, with).await,
            Native::Cache | Native::RestoreCache | Native::SaveCache => {
                self.run_cache(performing, reference, native, with).await
            }
            Native::UploadArtifact => {
                self.upload_artifact(performing, reference, version, with).await
            }
            Native::DownloadArtifact => {
                self.download_artifact(performing, reference, version, with).await
            }
        }
    }

    /// Says in the log that this program does it.
    async fn announce(&mut self, native: Native, reference: &str) {
        let text = format!("native {} (for {reference})", native.name());
        self.events.say(self.system.now(), &text).await;
        self.events.flush().await;
    }
}

/// A step that was ended before it was done.
fn stopped(stop: super::supervise::Stop) -> Performed {
    let said = Said::default();
    Performed { outcome: Conclusion::Failure, said, stop: Some(stop), disk_full: None }
}

fn unlisted(reference: &str, action: &NativeAction) -> String {
    let (first, last) = (action.majors.start(), action.majors.end());
    let name = match action.path {
        "" => action.repository.to_owned(),
        path => format!("{}/{path}", action.repository),
    };
    format!(
        "the version of {reference} is not one that this runner does itself (v{first} to v{last}), \
         and this machine has no node to run the original; write {name}@v{last}, or run the job on a \
         label whose image has node"
    )
}

/// An input of an action; empty where it is not given.
fn input<'a>(with: &'a [(String, String)], name: &str) -> &'a str {
    let found = with.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map_or("", |(_, value)| value.trim())
}

/// An input that is true or false (github-runner-protocol 8.3 has no kinds; the originals take these
/// words).
fn switch(with: &[(String, String)], name: &str, default: bool) -> Result<bool, Unfit> {
    match input(with, name) {
        "" => Ok(default),
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        other => Err(format!("the input {name} is {other}, and must be true or false").into()),
    }
}

/// The lines of an input, without those that are empty.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}
