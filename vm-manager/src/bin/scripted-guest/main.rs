//! The scripted guest: a program that takes the place of `qemu-system-x86_64` and `qemu-img`, for
//! tests only. It is never shipped.
//!
//! To the host it looks like QEMU with a guest in it: it takes the real command line, serves the
//! monitor, writes the serial console, forwards a port to an SSH server with the keys of the seed,
//! and behind that speaks for the guest program. So vm-manager and the orchestrator run unchanged,
//! and a guest costs some milliseconds and a few megabytes instead of seconds and hundreds.
//!
//! ```text
//!   command line ──▶ command_line        seed disk ──▶ seed
//!                          │                  │
//!   monitor ◀──▶ monitor ──┴──▶ machine ◀─────┴── boot ◀── boot.conf, boots/
//!                                │ clock, network, console
//!   SSH ◀──▶ ssh ──▶ command ──▶ program ──▶ engine ──▶ script
//!                └──▶ sftp           └──▶ job, spool ◀──▶ attach ◀── calls ◀── services
//! ```
//!
//! What it does is written in the job: [`script`] has the language of its steps. How it boots stands
//! in files beside it: [`boot`]. It differs from a real guest where a real one computes: expressions
//! are not evaluated, and files exist by their names and sizes. `simulators::ScriptedHost` makes a
//! host with it.
//!
//! It knows what it shall be by the name it is called by, `qemu-system-x86_64` or `qemu-img`, or
//! else by its first argument.

mod attach;
mod boot;
mod calls;
mod clock;
mod command;
mod command_line;
mod console;
mod disk_tool;
mod engine;
mod files;
mod hostile;
mod job;
mod log;
mod machine;
mod monitor;
mod network;
mod program;
mod script;
mod seed;
mod services;
mod sftp;
mod spool;
mod ssh;
mod words;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use command_line::Started;

/// What `--version` says, after the program's name. A version that vm-manager drives.
const VERSION: &str = "version 10.0.2 (the scripted guest of Solstice)";

/// The exit code for a call that is for neither program: sysexits' `EX_USAGE`.
const EXIT_USAGE: u8 = 64;

/// What QEMU exits with when the probe guest came through (vm-manager's `probe_rom`).
const PROBE_STATUS: u8 = (0x5a << 1) | 1;

/// Which program's place is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Emulator,
    DiskTool,
}

impl Role {
    fn of(name: &str) -> Option<Self> {
        match name {
            _ if name.starts_with("qemu-system") => Some(Self::Emulator),
            _ if name.starts_with("qemu-img") => Some(Self::DiskTool),
            _ => None,
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = PathBuf::from(arguments.next().unwrap_or_default());
    let mut arguments: Vec<OsString> = arguments.collect();
    let name = called.file_name().unwrap_or_default().to_string_lossy();
    let role = Role::of(&name).or_else(|| {
        let role = Role::of(&arguments.first()?.to_string_lossy())?;
        arguments.remove(0);
        Some(role)
    });
    let (program, done) = match role {
        Some(Role::Emulator) => ("qemu-system-x86_64", emulate(&called, &arguments)),
        Some(Role::DiskTool) => ("qemu-img", disk_tool::run(&arguments)),
        None => {
            eprintln!("{name}: call it qemu-system-x86_64 or qemu-img, or name one of them first");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("{program}: {error}");
        ExitCode::FAILURE
    })
}

/// Is QEMU until the machine ends; the error is what QEMU would print.
fn emulate(called: &Path, arguments: &[OsString]) -> Result<ExitCode, String> {
    if arguments.iter().any(|argument| argument == "--version") {
        println!("QEMU emulator {VERSION}");
        return Ok(ExitCode::SUCCESS);
    }
    match command_line::parse(arguments)? {
        Started::Probe => Ok(ExitCode::from(PROBE_STATUS)),
        Started::Machine(line) => {
            let boot = boot::Boot::load(called.parent(), |name| std::env::var(name).ok())?;
            machine::run(&line, boot)?;
            // QEMU ends well whatever its guest did (vm-facts 9).
            Ok(ExitCode::SUCCESS)
        }
    }
}
