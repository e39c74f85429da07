//! One newtype for every identifier, so that they cannot be mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new identifier; sorts after those made earlier on this host.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "an id is never a default value")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The last twelve hexadecimal digits: short enough for people, random enough for one
            /// host.
            #[must_use]
            pub fn short(&self) -> String {
                let text = self.0.simple().to_string();
                text[20..].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id! {
    /// One job of one run attempt, chosen by whoever makes the JobRequest.
    JobId
}
id! {
    /// One run of a workflow that no forge knows of: its jobs share artifacts.
    RunId
}
id! {
    /// One virtual machine.
    VmId
}
id! {
    /// One locked state directory; stands in the name of each of its QEMU processes.
    InstanceId
}
id! {
    /// A promise that a number of jobs can start now.
    ReservationId
}
id! {
    /// One orchestrator host of an installation; made once and kept in its state directory.
    HostId
}
id! {
    /// One host's hold on one job: whoever writes about the job must show it.
    LeaseId
}
