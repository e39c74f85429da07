//! What a machine begins with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::size::ByteSize;
use serde_json::{Value, json};

use crate::host::MachinePaths;
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
}

/// The id of the guest's memory on QEMU's command line.
pub(super) const MEMORY_ID: &str = "memory";

impl Origin {
    /// The template that is restored; else the image boots.
    pub(super) fn template(&self) -> Option<&Arc<Template>> {
        match self {
            Self::Boot => None,
            Self::Mould { base, .. } => base.as_ref(),
            Self::Clone(template) => Some(template),
        }
    }

    /// The disk under the machine's own.
    pub(super) fn base(&self, image: &Path) -> PathBuf {
        match self {
            Self::Boot | Self::Mould { base: None, .. } => image.to_owned(),
            Self::Mould { directory, base: Some(_) } => files::base(directory),
            Self::Clone(template) => template.disk(),
        }
    }

    /// The machine's own disk.
    pub(super) fn overlay(&self, paths: &MachinePaths) -> PathBuf {
        match self {
            Self::Boot | Self::Clone(_) => paths.overlay(),
            Self::Mould { directory, .. } => files::disk(directory),
        }
    }

    /// Whether there is a second serial port, by which a clone becomes a machine of its own. The
    /// devices of a template and its clones are the same.
    pub(super) fn has_port(&self) -> bool {
        !matches!(self, Self::Boot)
    }

    /// The object that holds the guest's memory, where it is not QEMU's own. A clone maps that of
    /// its template and keeps to itself what it writes; without `rom` and `readonly` QEMU would open
    /// the file for writing (vm-facts 5).
    pub(super) fn memory(&self, size: ByteSize) -> Option<(PathBuf, Value)> {
        let object = |share: bool| {
            json!({ "qom-type": "memory-backend-file", "id": MEMORY_ID, "size": size.0,
                "share": share })
        };
        match self {
            Self::Boot => None,
            Self::Mould { directory, .. } => Some((files::memory(directory), object(true))),
            Self::Clone(template) => {
                let mut object = object(false);
                object["readonly"] = true.into();
                object["rom"] = "off".into();
                Some((template.memory(), object))
            }
        }
    }
}
