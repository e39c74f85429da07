//! The causes for which the infrastructure, not the job, is to blame.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A cause with what is known about this occurrence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Infrastructure {
    /// The cause.
    pub cause: Cause,
    /// This occurrence in a sentence: which file, machine, time, last console lines.
    pub message: String,
}

impl Infrastructure {
    /// Names a cause and what is known about it.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }
}

impl fmt::Display for Infrastructure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.cause.code(), self.message, self.cause.cure())
    }
}

impl std::error::Error for Infrastructure {}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, retry: $retry:literal, cure: $cure:literal;)*) => {
        /// The causes. Codes are stable: scripts and documents quote them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Cause {
            $($(#[$doc])* #[serde(rename = $code)] $name,)*
        }

        impl Cause {
            /// All causes, in the order of docs/errors.md.
            pub const ALL: &[Cause] = &[$(Cause::$name,)*];

            /// The stable code.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Cause::$name => $code,)* }
            }

            /// What to do about it, one sentence without a full stop.
            #[must_use]
            pub fn cure(self) -> &'static str {
                match self { $(Cause::$name => $cure,)* }
            }

            /// Whether a fresh machine may help, while no step of the user has started.
            #[must_use]
            pub fn is_transient(self) -> bool {
                match self { $(Cause::$name => $retry,)* }
            }
        }
    };
}

causes! {
    /// The image is not in the catalogue.
    ImageUnknown = "SOL-IMAGE-UNKNOWN", retry: false,
        cure: "see `solstice image list` for the labels of this host";
    /// The image could not be fetched, verified or built.
    ImageUnavailable = "SOL-IMAGE-UNAVAILABLE", retry: false,
        cure: "see the message for the source that failed, then run `solstice image pull LABEL`";
    /// QEMU or a tool of it is missing or too old.
    QemuMissing = "SOL-QEMU-MISSING", retry: false,
        cure: "install QEMU 10 or later, then run `solstice doctor`";
    /// QEMU refused to start or ended before the guest did anything.
    QemuStart = "SOL-QEMU-START", retry: true,
        cure: "run `solstice doctor`; the message has QEMU's own words";
    /// QEMU ended without the guest or Solstice asking for it.
    QemuKilled = "SOL-QEMU-KILLED", retry: true,
        cure: "look for a kill or an out-of-memory message in the host's kernel log";
    /// The host's disk has no room for the machine.
    HostDiskFull = "SOL-HOST-DISK-FULL", retry: false,
        cure: "free space in the state directory or set a smaller `disk_reserve`; `solstice image rm` removes images";
    /// The host has no memory for the machine.
    HostMemory = "SOL-HOST-MEMORY", retry: false,
        cure: "ask for a smaller machine with --memory, or wait for other machines to end";
    /// The guest did not answer in time after it was started.
    BootTimeout = "SOL-BOOT-TIMEOUT", retry: true,
        cure: "see the console tail in the log; a slow host may need a higher boot ceiling in the catalogue";
    /// The guest ended while it booted.
    BootFailed = "SOL-BOOT-FAILED", retry: true,
        cure: "see the console tail in the log, then try `solstice shell LABEL`";
    /// The guest's SSH server refused our key or showed another host key.
    GuestLogin = "SOL-GUEST-LOGIN", retry: true,
        cure: "check that the image's cloud-init reads the seed disk and that `user` in the catalogue is right";
    /// The guest program could not be placed or started.
    GuestProgram = "SOL-GUEST-PROGRAM", retry: true,
        cure: "check that the image's architecture and operating system match the catalogue entry";
    /// What a label's `prepare` does in its machines failed.
    Prepare = "SOL-PREPARE", retry: false,
        cure: "run the commands of the label's `prepare` in `solstice shell LABEL` and correct them in the catalogue";
    /// The guest's kernel panicked.
    GuestPanic = "SOL-GUEST-PANIC", retry: true,
        cure: "see the console tail in the log";
    /// The guest ran out of memory and its kernel killed a part that the job needs.
    GuestMemory = "SOL-GUEST-MEMORY", retry: false,
        cure: "give the machine more memory with --memory or a larger size label";
    /// The guest's disk has no room for what Solstice must write to it.
    GuestDiskFull = "SOL-GUEST-DISK-FULL", retry: false,
        cure: "give the image a larger `disk` in the catalogue, or remove what the job does not need";
    /// The guest restarted itself.
    GuestRebooted = "SOL-GUEST-REBOOTED", retry: true,
        cure: "remove the reboot from the step; a job lives in one boot of its machine";
    /// The guest powered itself off.
    GuestPoweredOff = "SOL-GUEST-POWERED-OFF", retry: true,
        cure: "remove the shutdown from the step; Solstice ends the machine itself";
    /// QEMU reported an error of the guest's disk.
    GuestDiskError = "SOL-GUEST-DISK-ERROR", retry: true,
        cure: "check the host's disk for errors and free space";
    /// The connection to the guest was lost and did not come back.
    SshLost = "SOL-SSH-LOST", retry: true,
        cure: "see the console tail in the log; the guest's SSH server or network may have been stopped by a step";
    /// The guest program broke the rules of its protocol.
    GuestProtocol = "SOL-GUEST-PROTOCOL", retry: false,
        cure: "a step may have tampered with the guest program; if none did, report this as a defect";
    /// The guest program ended without finishing the job.
    GuestProgramLost = "SOL-GUEST-PROGRAM-LOST", retry: true,
        cure: "a step may have killed it; see the console tail for an out-of-memory message";
    /// No host could take the job in time, or none ever can.
    NoHost = "SOL-NO-HOST", retry: false,
        cure: "see `solstice hosts` for the live hosts, their labels and sizes; correct `runs-on`, or start an orchestrator that offers the label";
    /// The machine was lost together with the orchestrator or the host that it ran on.
    HostRestarted = "SOL-HOST-RESTARTED", retry: true,
        cure: "run the job again; look in the host's log for why the orchestrator or the host ended";
    /// The job did not end at its deadline.
    Deadline = "SOL-DEADLINE", retry: false,
        cure: "raise `timeout-minutes` of the job or --timeout";
    /// The service that runs the job did not come back.
    ServiceLost = "SOL-SERVICE-LOST", retry: false,
        cure: "start it again and see `solstice jobs`: it may still have the job; --standalone runs jobs without it";
    /// The service refused the job.
    ServiceRefused = "SOL-SERVICE-REFUSED", retry: false,
        cure: "see the message; --standalone runs jobs without the service";
    /// The orchestrators cannot read what the job's forge runner sent.
    JobUnreadable = "SOL-JOB-UNREADABLE", retry: false,
        cure: "see the message; give the forge runner and every host the same keys in `seal_keys` and the same version, then run the job again";
    /// A part of Solstice failed in a way that should not happen.
    Internal = "SOL-INTERNAL", retry: true,
        cure: "report this as a defect, with the message";
}
