//! What a machine begins with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::size::ByteSize;
use serde_json::{Value, json};

use super::{MachineError, overlay};
use crate::frozen::Thaw;
use crate::host::MachinePaths;
use crate::image::Image;
use crate::seed::{self, Seed};
use crate::ssh::Keys;
use crate::template::{Template, files};

/// What a machine begins with.
#[derive(Clone, Debug, Default)]
pub enum Origin {
    /// Its image boots.
    #[default]
    Boot,
    /// A guest with memory and disk in a directory that exists, in which it is to be
    /// [frozen](super::Machine::freeze).
    Mould {
        /// The directory.
        directory: PathBuf,
        /// A template to go on from, of which the directory [has a copy](crate::template::Making);
        /// absent means that the image boots.
        base: Option<Arc<Template>>,
    },
    /// A template is restored.
    Clone(Arc<Template>),
    /// A frozen machine goes on.
    Thawed(Thaw),
}

/// The id of the guest's memory on QEMU's command line.
pub(super) const MEMORY_ID: &str = "memory";

impl Origin {
    /// The template that is restored; else the image boots.
    pub(super) fn template(&self) -> Option<&Arc<Template>> {
        match self {
            Self::Boot | Self::Thawed(_) => None,
            Self::Mould { base, .. } => base.as_ref(),
            Self::Clone(template) => Some(template),
        }
    }

    /// Whether the guest was saved before, and stands still when it has been restored.
    pub(super) fn is_restored(&self) -> bool {
        matches!(self, Self::Thawed(_)) || self.template().is_some()
    }

    /// Gives the machine its disk and its seed.
    pub(super) async fn place(
        &self,
        image: &Image,
        paths: &MachinePaths,
        qemu_img: &Path,
        seed: &Seed,
    ) -> Result<(), MachineError> {
        let base = match self {
            Self::Thawed(thaw) => return Ok(thaw.place(paths).await.map_err(Box::new)?),
            Self::Boot | Self::Mould { base: None, .. } => image.disk.clone(),
            Self::Mould { directory, base: Some(_) } => files::base(directory),
            Self::Clone(template) => files::link_template(template.directory(), &paths.state)?,
        };
        seed::write_iso(&paths.seed(), seed)?;
        overlay::create(qemu_img, &base, &self.overlay(paths), image.entry.disk).await
    }

    /// The keys by which the machine is reached.
    pub(super) fn keys(&self) -> Result<Keys, MachineError> {
        match self {
            Self::Thawed(thaw) => Ok(thaw.keys().map_err(Box::new)?),
            _ => match self.template() {
                Some(template) => Ok(Keys::generate()?.refusing(&template.facts().login_key)?),
                None => Ok(Keys::generate()?),
            },
        }
    }

    /// The machine's own disk.
    pub(super) fn overlay(&self, paths: &MachinePaths) -> PathBuf {
        match self {
            Self::Boot | Self::Clone(_) | Self::Thawed(_) => paths.overlay(),
            Self::Mould { directory, .. } => files::disk(directory),
        }
    }

    /// Whether there is a second serial port, by which a clone becomes a machine of its own. The
    /// devices of a template and its clones are the same.
    pub(super) fn has_port(&self) -> bool {
        match self {
            Self::Boot => false,
            Self::Thawed(thaw) => thaw.shape().clone,
            Self::Mould { .. } | Self::Clone(_) => true,
        }
    }

    /// The object that holds the guest's memory, where it is not QEMU's own, and its file if it has
    /// one. A clone maps that of its template and keeps to itself what it writes; without `rom` and
    /// `readonly` QEMU would open the file for writing (vm-facts 5).
    pub(super) fn memory(&self, size: ByteSize) -> Option<(Option<PathBuf>, Value)> {
        let object = |kind: &str, share: bool| json!({ "qom-type": kind, "id": MEMORY_ID, "size": size.0, "share": share });
        let file = "memory-backend-file";
        match self {
            Self::Boot => None,
            // The name of the memory is the same, wherever it lies.
            Self::Thawed(thaw) => {
                thaw.shape().clone.then(|| (None, object("memory-backend-ram", false)))
            }
            Self::Mould { directory, .. } => {
                Some((Some(files::memory(directory)), object(file, true)))
            }
            Self::Clone(template) => {
                let mut object = object(file, false);
                object["readonly"] = true.into();
                object["rom"] = "off".into();
                Some((Some(template.memory()), object))
            }
        }
    }
}
