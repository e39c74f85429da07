//! The language of the steps. One instruction a line; empty lines and lines with `#` say nothing.
//!
//! | line | does |
//! | --- | --- |
//! | `echo TEXT` | a line of log |
//! | `lines N EVERY [BYTES]` | N lines `line 1` to `line N`, one each EVERY milliseconds, padded to BYTES |
//! | `flood N [BYTES]` | the same without a pause |
//! | `sleep MS` | waits |
//! | `exit N` | ends the step |
//! | `mask VALUE` | a value to mask |
//! | `output NAME=VALUE` | an output of the job |
//! | `panic` | the kernel panics |
//! | `oom` | the kernel kills the guest program for want of memory |
//! | `poweroff`, `reboot` | the guest does that |
//! | `halt` | the guest stops for good without switching its power off |
//! | `diskfull` | a write of the guest's disk fails for want of room on the host |
//! | `nospace` | the guest's disk has no room for what the guest program must write for this step |
//! | `die` | the guest program is gone |
//! | `cut` | every SSH connection breaks |
//! | `unplug` | the same, and no further one lasts |
//! | `pause MS` | QEMU stops the guest and lets it go on after so long |
//! | `freeze MS` | nothing passes over SSH for so long, while the script goes on |
//! | `cache-put BYTES KEY [EVERY]` | saves a cache of so many bytes, in parts of 4 MiB, one each EVERY milliseconds |
//! | `cache-get KEY` | restores it, and says its length and hash |
//! | `action-fetch REFERENCE` | fetches an action, and says how long that took |
//! | `hostile-calls NUMBER` | calls that must be refused; NUMBER is the upload of another job |
//! | `hostile-body` | more of a call's body than there is room for |

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use common::event::Stream;
use common::limits::LOG_LINE_BYTES;
use tokio_util::sync::CancellationToken;

use crate::command::NOT_FOUND;
use crate::machine::Machine;
use crate::services::{self, Word};

/// Lines of a flood between two looks at everything else.
const LINES_PER_TURN: u64 = 64;

/// Where a script writes to.
pub(crate) trait Output {
    /// Writes a line.
    fn line(&mut self, stream: Stream, text: String) -> impl Future<Output = ()> + Send;
    /// Makes a value invisible.
    fn mask(&mut self, value: &str) -> impl Future<Output = ()> + Send;
    /// Sets an output of the job.
    fn output(&mut self, name: String, value: String);
    /// What is to do while the script waits. May be dropped at any time.
    fn idle(&mut self) -> impl Future<Output = Infallible> + Send;
}

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this exit code.
    Exit(u8),
    /// It was cancelled.
    Cancelled,
    /// It could not be written for want of room.
    NoSpace,
}

/// Runs a script.
pub(crate) async fn run(
    text: &str,
    machine: &Arc<Machine>,
    output: &mut (impl Output + Send),
    cancel: &CancellationToken,
) -> Ended {
    for (number, line) in text.lines().enumerate() {
        machine.clock.running().await;
        if cancel.is_cancelled() {
            return Ended::Cancelled;
        }
        let instruction = match Instruction::parse(line) {
            Ok(Some(instruction)) => instruction,
            Ok(None) => continue,
            Err(error) => {
                output.line(Stream::Stderr, format!("sh: line {}: {error}", number + 1)).await;
                return Ended::Exit(NOT_FOUND);
            }
        };
        if let Some(ended) = perform(instruction, machine, output, cancel).await {
            return ended;
        }
    }
    Ended::Exit(0)
}

/// Performs an instruction; `Some` ends the script.
async fn perform(
    instruction: Instruction,
    machine: &Arc<Machine>,
    output: &mut (impl Output + Send),
    cancel: &CancellationToken,
) -> Option<Ended> {
    match instruction {
        Instruction::Echo(text) => output.line(Stream::Stdout, text).await,
        Instruction::Lines { count, every, bytes } => {
            for number in 1..=count {
                output.line(Stream::Stdout, padded(number, bytes)).await;
                if every.is_zero() {
                    if number % LINES_PER_TURN == 0 {
                        tokio::task::yield_now().await;
                        machine.clock.running().await;
                    }
                    if cancel.is_cancelled() {
                        return Some(Ended::Cancelled);
                    }
                } else if number < count && !rest(every, machine, output, cancel).await {
                    return Some(Ended::Cancelled);
                }
            }
        }
        Instruction::Sleep(time) => {
            if !rest(time, machine, output, cancel).await {
                return Some(Ended::Cancelled);
            }
        }
        Instruction::Exit(code) => return Some(Ended::Exit(code)),
        Instruction::Mask(value) => output.mask(&value).await,
        Instruction::Output(name, value) => output.output(name, value),
        Instruction::Panic => machine.panic("the script wants it"),
        Instruction::PowerOff => machine.power_off(),
        Instruction::Reboot => machine.reboot(),
        Instruction::Halt => machine.halt(),
        Instruction::DiskFull => machine.disk_full(),
        Instruction::NoSpace => return Some(Ended::NoSpace),
        Instruction::OutOfMemory => machine.out_of_memory(),
        Instruction::Die => machine.program.die(),
        Instruction::Cut => machine.network.cut(),
        Instruction::Unplug => machine.network.unplug(),
        Instruction::Pause(time) => machine.pause(time),
        Instruction::Freeze(time) => machine.freeze(time),
        Instruction::Call(word) => {
            if let Some(ended) = services::perform(word, machine, output, cancel).await {
                return Some(ended);
            }
        }
    }
    if machine.over.is_cancelled() {
        // A guest that is off does nothing more, not even for the moment that QEMU has left.
        std::future::pending::<()>().await;
    }
    // A killed guest program goes no further than this.
    tokio::task::yield_now().await;
    None
}

/// Waits for a time of the guest's; false if it was cancelled.
async fn rest(
    time: Duration,
    machine: &Machine,
    output: &mut (impl Output + Send),
    cancel: &CancellationToken,
) -> bool {
    meanwhile(machine.clock.sleep(time), machine, output, cancel).await.is_some()
}

/// Waits for something, while lines go their way; `None` if it was cancelled.
pub(crate) async fn meanwhile<T>(
    work: impl Future<Output = T>,
    machine: &Machine,
    output: &mut (impl Output + Send),
    cancel: &CancellationToken,
) -> Option<T> {
    let cancelled = async {
        cancel.cancelled().await;
        machine.clock.running().await;
    };
    tokio::select! {
        done = work => Some(done),
        () = cancelled => None,
        never = output.idle() => match never {},
    }
}

fn padded(number: u64, bytes: usize) -> String {
    let mut text = format!("line {number}");
    if text.len() < bytes {
        text.push(' ');
        text.extend(std::iter::repeat_n('x', bytes - text.len()));
    }
    text
}

/// One line of a script.
#[derive(Debug, PartialEq, Eq)]
enum Instruction {
    Echo(String),
    Lines { count: u64, every: Duration, bytes: usize },
    Sleep(Duration),
    Exit(u8),
    Mask(String),
    Output(String, String),
    Panic,
    OutOfMemory,
    PowerOff,
    Reboot,
    Halt,
    DiskFull,
    NoSpace,
    Die,
    Cut,
    Unplug,
    Pause(Duration),
    Freeze(Duration),
    Call(Word),
}

impl Instruction {
    /// Reads a line; `None` if it says nothing. The error is what a shell would complain about.
    fn parse(line: &str) -> Result<Option<Self>, String> {
        let line = line.trim();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        Ok(Some(match (word, &words[..]) {
            ("", _) => return Ok(None),
            (comment, _) if comment.starts_with('#') => return Ok(None),
            ("echo", _) => Self::Echo(rest.to_owned()),
            ("lines", [count, every]) => {
                Self::Lines { count: number(count)?, every: time(every)?, bytes: 0 }
            }
            ("lines", [count, every, bytes]) => {
                Self::Lines { count: number(count)?, every: time(every)?, bytes: width(bytes)? }
            }
            ("flood", [count]) => {
                Self::Lines { count: number(count)?, every: Duration::ZERO, bytes: 0 }
            }
            ("flood", [count, bytes]) => {
                Self::Lines { count: number(count)?, every: Duration::ZERO, bytes: width(bytes)? }
            }
            ("sleep", [ms]) => Self::Sleep(time(ms)?),
            ("exit", [code]) => {
                Self::Exit(code.parse().map_err(|_| format!("exit: {code}: illegal number"))?)
            }
            ("mask", [_, ..]) => Self::Mask(rest.to_owned()),
            ("output", [_, ..]) => match rest.split_once('=') {
                Some((name, value)) => Self::Output(name.to_owned(), value.to_owned()),
                None => return Err(format!("output: {rest}: no value")),
            },
            ("panic", []) => Self::Panic,
            ("oom", []) => Self::OutOfMemory,
            ("poweroff", []) => Self::PowerOff,
            ("reboot", []) => Self::Reboot,
            ("halt", []) => Self::Halt,
            ("diskfull", []) => Self::DiskFull,
            ("nospace", []) => Self::NoSpace,
            ("die", []) => Self::Die,
            ("cut", []) => Self::Cut,
            ("unplug", []) => Self::Unplug,
            ("pause", [ms]) => Self::Pause(time(ms)?),
            ("freeze", [ms]) => Self::Freeze(time(ms)?),
            _ => match Word::parse(word, &words)? {
                Some(word) => Self::Call(word),
                None => return Err(format!("{line}: not found")),
            },
        }))
    }
}

pub(crate) fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text}: illegal number"))
}

pub(crate) fn time(text: &str) -> Result<Duration, String> {
    number(text).map(Duration::from_millis)
}

/// The bytes of a line, which has a limit.
fn width(text: &str) -> Result<usize, String> {
    let bytes = number(text)?;
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes <= LOG_LINE_BYTES)
        .ok_or_else(|| format!("{text}: a line has at most {LOG_LINE_BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_and_what_is_none() {
        let check = |line: &str, expected: Instruction| {
            assert_eq!(Instruction::parse(line), Ok(Some(expected)), "{line}");
        };
        let ms = Duration::from_millis;
        check("echo  a 'b' ", Instruction::Echo(" a 'b'".to_owned()));
        check("echo", Instruction::Echo(String::new()));
        check("lines 3 10", Instruction::Lines { count: 3, every: ms(10), bytes: 0 });
        check("flood 9 80", Instruction::Lines { count: 9, every: ms(0), bytes: 80 });
        check("output a=b=c", Instruction::Output("a".to_owned(), "b=c".to_owned()));
        check("mask two words", Instruction::Mask("two words".to_owned()));
        check("exit 255", Instruction::Exit(255));
        check("pause 5", Instruction::Pause(ms(5)));
        check("freeze 5", Instruction::Freeze(ms(5)));
        let put = |every| Word::Put { bytes: 9, key: "k".to_owned(), every };
        check("cache-put 9 k", Instruction::Call(put(ms(0))));
        check("cache-put 9 k 5", Instruction::Call(put(ms(5))));
        check("cache-get k", Instruction::Call(Word::Get { key: "k".to_owned() }));
        check("hostile-calls 7", Instruction::Call(Word::HostileCalls { upload: 7 }));
        for line in ["", "   ", "# sleep 5"] {
            assert_eq!(Instruction::parse(line), Ok(None));
        }
        for line in ["sleep", "sleep x", "exit 256", "panic now", "make test", "output a", "mask"]
            .into_iter()
            .chain(["cache-put 9", "cache-put x k", "cache-get", "action-fetch", "hostile-calls"])
        {
            assert!(Instruction::parse(line).is_err(), "{line}");
        }
        assert!(Instruction::parse("flood 1 99999999").is_err());
    }

    #[test]
    fn lines_are_padded() {
        assert_eq!(padded(7, 0), "line 7");
        assert_eq!(padded(7, 10), "line 7 xxx");
        assert_eq!(padded(12345, 7), "line 12345");
    }
}
