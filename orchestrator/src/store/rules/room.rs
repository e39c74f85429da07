//! Sizes of machines and the room for them: processors and memory, never a count of machines.

use common::request::MachineSize;
use common::size::ByteSize;

use crate::store::Size;

/// The size that a job gets where a label's machines have `default`. Nothing is smaller than one
/// processor and one byte, so that a number of machines fits into any room.
pub(in crate::store) fn size(asked: MachineSize, default: Size) -> Size {
    Size {
        cpus: asked.cpus.unwrap_or(default.cpus).max(1),
        memory: ByteSize(asked.memory.unwrap_or(default.memory).0.max(1)),
    }
}

/// Whether a machine fits into a room.
pub(in crate::store) fn fits(machine: Size, room: Size) -> bool {
    machine.cpus <= room.cpus && machine.memory <= room.memory
}

/// What is left of a room; nothing if less than the machine was there.
pub(in crate::store) fn less(room: Size, machine: Size) -> Size {
    Size {
        cpus: room.cpus.saturating_sub(machine.cpus),
        memory: ByteSize(room.memory.0.saturating_sub(machine.memory.0)),
    }
}

/// Two machines together.
pub(in crate::store) fn plus(one: Size, other: Size) -> Size {
    Size {
        cpus: one.cpus.saturating_add(other.cpus),
        memory: ByteSize(one.memory.0.saturating_add(other.memory.0)),
    }
}

/// A machine that is as large as either in everything.
pub(in crate::store) fn larger(one: Size, other: Size) -> Size {
    Size { cpus: one.cpus.max(other.cpus), memory: one.memory.max(other.memory) }
}

/// No room at all.
pub(in crate::store) const NONE: Size = Size { cpus: 0, memory: ByteSize(0) };
