//! `workflow-runner personal PORT`: makes a clone of a template a machine of its own.
//!
//! The program is frozen into the template while it waits for its line on the serial port. What
//! comes is described in [`common::personal`].

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Timestamp;
use common::personal::{Answer, DIGEST_DIGITS, GREETING, LINE_BYTES, Personal, SEED_BYTES};
use nix::fcntl::OFlag;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use sha2::{Digest, Sha256};

use super::GuestError;
use super::random;

/// Where the files of the script lie, below the run directories.
const DIRECTORY: &str = "personal";
/// How much of a script's complaint is passed on.
const COMPLAINT_BYTES: usize = 2048;
/// How often the host is asked for its clock, at most.
const CLOCK_QUESTIONS: u32 = 5;
/// An answer in less time is good enough.
const CLOCK_GOOD: Duration = Duration::from_millis(20);

/// Waits on a serial port for what makes this machine different from all others of its template,
/// does it, and ends.
///
/// # Errors
/// The port cannot be used. What else fails is answered on it.
pub fn personal(base: &Path, path: &Path) -> Result<(), GuestError> {
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags((OFlag::O_NOCTTY | OFlag::O_CLOEXEC).bits())
        .open(path);
    let port_file = open.map_err(GuestError::io("open", path))?;
    // No echo, no signals, no characters with a meaning.
    let raw = tcgetattr(&port_file).and_then(|mut settings| {
        cfmakeraw(&mut settings);
        tcsetattr(&port_file, SetArg::TCSANOW, &settings)
    });
    raw.map_err(|errno| GuestError::io("set up", path)(errno.into()))?;
    let mut port = Port { file: BufReader::new(port_file) };
    let used = |error| GuestError::io("use", path)(error);
    port.send(GREETING).map_err(used)?;
    let personal = loop {
        let line = port.line().map_err(used)?;
        match checked(&line) {
            Some(line) => break line.to_vec(),
            None if line.is_empty() => {
                return Err(used(io::ErrorKind::UnexpectedEof.into()));
            }
            None => port.say(&Answer::Again).map_err(used)?,
        }
    };
    let answer = match become_another(base, &personal, &mut port) {
        Ok(sample) => Answer::Done { sample },
        Err(reason) => Answer::Failed { reason },
    };
    port.say(&answer).map_err(used)
}

/// What is behind the digest of a line, if all of it arrived.
fn checked(line: &[u8]) -> Option<&[u8]> {
    let (digest, rest) = line.split_at_checked(DIGEST_DIGITS)?;
    let rest = rest.strip_prefix(b" ")?.strip_suffix(b"\n")?;
    let found = hex::encode(Sha256::digest(rest));
    (found.as_bytes().get(..DIGEST_DIGITS)? == digest).then_some(rest)
}

/// The guest's end of the conversation.
struct Port {
    file: BufReader<File>,
}

impl Port {
    fn send(&mut self, line: &str) -> io::Result<()> {
        self.file.get_mut().write_all(format!("{line}\n").as_bytes())
    }

    fn say(&mut self, answer: &Answer) -> io::Result<()> {
        self.send(&serde_json::to_string(answer).expect("an answer is plain text"))
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        (&mut self.file).take(LINE_BYTES as u64).read_until(b'\n', &mut line)?;
        Ok(line)
    }

    /// How late it is on the host. What the way of the answer took is known to half of the time
    /// between question and answer; the shortest of some is taken.
    fn host_time(&mut self) -> io::Result<Duration> {
        let mut damaged = String::new();
        let mut best: Option<(Duration, Instant, Duration)> = None;
        for _ in 0..CLOCK_QUESTIONS {
            let asked = Instant::now();
            self.say(&Answer::Clock)?;
            let line = self.line()?;
            // One that was damaged on its way is asked for again.
            let Ok(time) = serde_json::from_slice::<Timestamp>(&line) else {
                damaged = format!("{:?}", String::from_utf8_lossy(&line[..line.len().min(60)]));
                continue;
            };
            let took = asked.elapsed();
            if best.is_none_or(|(least, ..)| took < least) {
                let time = Duration::from_micros(time.as_micros());
                best = Some((took, asked, time));
            }
            if took < CLOCK_GOOD {
                break;
            }
        }
        let (took, asked, time) =
            best.ok_or_else(|| io::Error::other(format!("the answers cannot be read: {damaged}")))?;
        Ok(time + asked.elapsed().saturating_sub(took / 2))
    }
}

/// Does it, in the order that the random numbers ask for: whatever makes a key or a name comes after
/// the seed.
fn become_another(base: &Path, line: &[u8], port: &mut Port) -> Result<String, String> {
    let personal: Personal =
        serde_json::from_slice(line).map_err(|error| format!("cannot read the line: {error}"))?;
    let seed = hex::decode(personal.seed.expose()).unwrap_or_default();
    if seed.len() != SEED_BYTES {
        return Err(format!("a seed has {SEED_BYTES} bytes"));
    }
    random::reseed(&seed).map_err(|error| format!("cannot seed the random numbers: {error}"))?;
    let sample =
        random::sample().map_err(|error| format!("cannot read random numbers: {error}"))?;
    let time = port.host_time().map_err(|error| format!("cannot ask for the clock: {error}"))?;
    set_clock(time).map_err(|error| format!("cannot set the clock: {error}"))?;
    let directory = base.join(DIRECTORY);
    let placed = place(&directory, &personal);
    let done = placed
        .map_err(|error| format!("cannot write below {}: {error}", directory.display()))
        .and_then(|script| run(&directory, &script));
    // The private host key is in it.
    let removed = fs::remove_dir_all(&directory)
        .map_err(|error| format!("cannot remove {}: {error}", directory.display()));
    done.and(removed).map(|()| sample)
}

fn set_clock(since_1970: Duration) -> nix::Result<()> {
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(since_1970))
}

/// Writes the files that the script reads; gives the script's own.
fn place(directory: &Path, personal: &Personal) -> io::Result<PathBuf> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok::<_, io::Error>(path)
    };
    write("hostname", &personal.hostname)?;
    write("machine-id", &personal.machine_id)?;
    write("user", &personal.user)?;
    write("authorized-key", &personal.authorized_key)?;
    write("host-key", personal.host_key.expose())?;
    write("host-key.pub", &personal.host_public_key)?;
    write("script", &personal.script)
}

fn run(directory: &Path, script: &Path) -> Result<(), String> {
    let output = Command::new("/bin/sh")
        .arg(script)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| format!("cannot run /bin/sh: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = &output.stderr[..output.stderr.len().min(COMPLAINT_BYTES)];
    Err(format!(
        "the script ended with {}: {}",
        output.status,
        String::from_utf8_lossy(said).trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_lost_a_part_is_no_line() {
        let digest = &hex::encode(Sha256::digest("{}"))[..DIGEST_DIGITS];
        let line = format!("{digest} {{}}\n");
        assert_eq!(checked(line.as_bytes()), Some(&b"{}"[..]));
        for damaged in ["", "\n", "{}\n", &line[1..], &line[..line.len() - 1], &line[..9]] {
            assert_eq!(checked(damaged.as_bytes()), None, "{damaged:?}");
        }
        assert_eq!(checked(line.replace("{}", "{ }").as_bytes()), None);
    }
}
