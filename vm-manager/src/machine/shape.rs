//! What the command lines of a template and its clones have in common.

use std::ffi::OsString;

use common::ids::{InstanceId, VmId};
use common::size::ByteSize;

use super::arguments::CommandLine;
use super::{MachineError, Origin};
use crate::host::{Acceleration, MachineName, MachinePaths};
use crate::image::Image;

/// The place of everything that each machine has for itself.
const ITS_OWN: &str = "/";

/// What the command lines of a template and its clones have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    pub(crate) image: &'a Image,
    pub(crate) acceleration: Acceleration,
    pub(crate) cpus: u32,
    pub(crate) memory: ByteSize,
}

impl Shape<'_> {
    /// The command line of a mould, without the names and places of any one machine.
    pub(crate) fn command_line(&self) -> Result<Vec<String>, MachineError> {
        let Self { image, acceleration, cpus, memory } = *self;
        let nobody = uuid::Uuid::nil().to_string();
        let (instance, vm): (Result<InstanceId, _>, Result<VmId, _>) =
            (nobody.parse(), nobody.parse());
        let (Ok(instance), Ok(vm)) = (instance, vm) else {
            unreachable!("an id of zeros is an id");
        };
        let paths = MachinePaths { state: ITS_OWN.into(), runtime: ITS_OWN.into() };
        let name = MachineName { instance, vm };
        let mould = Origin::Mould { directory: ITS_OWN.into(), base: None };
        let (origin, paths) = (&mould, &paths);
        let line = CommandLine { name, image, acceleration, cpus, memory, origin, paths };
        let words = line.arguments()?.into_iter().map(OsString::into_string);
        Ok(words.map(|word| word.unwrap_or_else(|word| format!("{word:?}"))).collect())
    }
}
