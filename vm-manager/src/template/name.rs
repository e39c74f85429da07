//! Which template a machine is a clone of.

use std::sync::Arc;

use common::size::ByteSize;

use super::{KeyParts, TemplateError, TemplateKey};
use crate::host::{HostError, Instance};
use crate::image::Image;
use crate::machine::{MachineError, Shape};

impl TemplateKey {
    /// The template for machines of this image and shape with this guest program in it, which is
    /// named by the digest of its file, after this preparation.
    ///
    /// # Errors
    /// The image has no templates, or QEMU cannot be used.
    pub async fn of(
        instance: &Arc<Instance>,
        image: &Image,
        (cpus, memory): (u32, ByteSize),
        program: &str,
        prepare: &str,
    ) -> Result<Self, TemplateError> {
        let entry = &image.entry;
        let templating = entry
            .template
            .as_ref()
            .ok_or_else(|| TemplateError::Unsupported { label: entry.label.clone() })?;
        let (qemu, accelerator) = instance.qemu().await?;
        let build = qemu.build().map_err(HostError::io("look at", &qemu.path))?;
        let shape = Shape { image, acceleration: accelerator.acceleration, cpus, memory };
        let command_line = shape.command_line().map_err(|error: MachineError| {
            TemplateError::Damaged { path: image.disk.clone(), reason: error.to_string() }
        })?;
        let parts = KeyParts {
            image: &format!("{} {}", image.digest, image.disk.display()),
            qemu: &build,
            command_line: &command_line,
            script: &format!("{} {}", templating.port, templating.script),
            prepare,
            program,
        };
        Ok(parts.key())
    }
}
