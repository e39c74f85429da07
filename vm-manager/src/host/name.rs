//! The name by which a QEMU process is found again.

use std::fmt;
use std::str::FromStr;

use common::ids::{InstanceId, VmId};

/// `solstice-<instance>-<vm>`: the value of QEMU's `-name`, visible in its command line and in
/// `query-name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MachineName {
    /// The instance that owns the machine.
    pub instance: InstanceId,
    /// The machine.
    pub vm: VmId,
}

/// A text that is not the name of one of our machines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a solstice machine")]
pub struct NotOurs;

/// The characters of a UUID as text.
const UUID_LENGTH: usize = 36;

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "solstice-{}-{}", self.instance, self.vm)
    }
}

impl FromStr for MachineName {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("solstice-").ok_or(NotOurs)?;
        let instance = rest.get(..UUID_LENGTH).ok_or(NotOurs)?;
        let vm = rest.get(UUID_LENGTH..).and_then(|rest| rest.strip_prefix('-')).ok_or(NotOurs)?;
        let name = Self {
            instance: instance.parse().map_err(|_| NotOurs)?,
            vm: vm.parse().map_err(|_| NotOurs)?,
        };
        // Other spellings of the same id are not ours: we write one.
        if name.to_string() == text { Ok(name) } else { Err(NotOurs) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_nothing_else_does() {
        let name = MachineName { instance: InstanceId::new(), vm: VmId::new() };
        let text = name.to_string();
        assert_eq!(text.parse(), Ok(name));
        let others = [
            "",
            "solstice-",
            "solstice-x-y",
            &text[..text.len() - 1],
            &format!("{text}0"),
            &text.to_uppercase(),
            &text.replace("solstice", "propolis"),
            "solstice-äääääääääääääääääääääääääääääääääääää",
        ];
        for other in others {
            assert_eq!(other.parse::<MachineName>(), Err(NotOurs), "{other}");
        }
    }
}
