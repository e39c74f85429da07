//! `workflow-runner personal PORT SCRIPT`: makes a clone of a template a machine of its own.
//!
//! The program is frozen into the template while it waits for its word on the serial port. The image's
//! script has begun by then and waits too, so that a clone has no shell to start: that takes an
//! emulated one a tenth of a second. What is said is described in [`common::personal`].

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::personal::{Answer, GREETING, LINE_BYTES, Personal, SEED_BYTES, Word, line, read};
use nix::fcntl::OFlag;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use super::GuestError;
use super::random;

/// Where the files of the script lie, below the run directories.
const DIRECTORY: &str = "personal";
/// What the script writes when it waits, and what it waits for.
const READY: &str = "ready";
const GO: &[u8] = b"go\n";
/// How much of a script's complaint is passed on.
const COMPLAINT_BYTES: usize = 2048;
/// How many times of the host are compared, at most.
const CLOCK_READINGS: u32 = 5;
/// How often it is asked for them, at most: answers may be lost.
const CLOCK_QUESTIONS: u32 = 40;
/// An answer in less time is good enough.
const CLOCK_GOOD: Duration = Duration::from_millis(20);

/// Waits on a serial port for what makes this machine different from all others of its template,
/// does it, and ends.
///
/// `script` is the image's POSIX shell script that puts names and keys in their places. It runs as
/// root. What it does before it writes `ready` is done in the template; then it reads a line, and its
/// directory has the files `hostname`, `machine-id`, `user`, `authorized-key`, `host-key` and
/// `host-key.pub`.
///
/// # Errors
/// The port or the script cannot be used. What else fails is answered on the port.
pub fn personal(base: &Path, port: &Path, script: &Path) -> Result<(), GuestError> {
    let directory = base.join(DIRECTORY);
    make_directory(&directory).map_err(GuestError::io("create", &directory))?;
    let script = Script::begin(script, &directory).map_err(GuestError::io("run", script))?;
    let used = |error| GuestError::io("use", port)(error);
    let mut port = Port::open(port).map_err(used)?;
    port.send(format!("{GREETING}\n").as_bytes()).map_err(used)?;
    let personal = loop {
        match port.word().map_err(used)? {
            Some(Word::Personal(personal)) => break personal,
            // Damaged, or of another clone's conversation.
            _ => port.say(&Answer::Again).map_err(used)?,
        }
    };
    let answer = match become_another(&directory, &personal, script, &mut port) {
        Ok(sample) => Answer::Done { sample },
        Err(reason) => Answer::Failed { reason },
    };
    loop {
        port.say(&answer).map_err(used)?;
        if port.word().map_err(used)? == Some(Word::Heard) {
            return port.say(&Answer::Over).map_err(used);
        }
    }
}

/// The guest's end of the conversation.
struct Port {
    file: BufReader<File>,
}

impl Port {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags((OFlag::O_NOCTTY | OFlag::O_CLOEXEC).bits())
            .open(path)?;
        // No echo, no signals, no characters with a meaning.
        let mut settings = tcgetattr(&file)?;
        cfmakeraw(&mut settings);
        tcsetattr(&file, SetArg::TCSANOW, &settings)?;
        Ok(Self { file: BufReader::new(file) })
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.get_mut().write_all(bytes)
    }

    fn say(&mut self, answer: &Answer) -> io::Result<()> {
        self.send(&line(answer))
    }

    /// The next thing that the host says; nothing if it arrived damaged.
    fn word(&mut self) -> io::Result<Option<Word>> {
        let mut line = Vec::new();
        (&mut self.file).take(LINE_BYTES as u64).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read(&line))
    }

    /// How late it is on the host. What the way of the answer took is known to half of the time
    /// between question and answer; the shortest of some is taken.
    fn host_time(&mut self) -> io::Result<Duration> {
        let mut best: Option<(Duration, Instant, Duration)> = None;
        let mut readings = 0;
        for asked_for in 0..CLOCK_QUESTIONS {
            let asked = Instant::now();
            self.say(&Answer::Clock { question: asked_for })?;
            // The answer to an earlier question may come first.
            let now = loop {
                match self.word()? {
                    Some(Word::Clock { question, now }) if question == asked_for => {
                        break Some(now);
                    }
                    Some(_) => {}
                    None => break None,
                }
            };
            let Some(now) = now else { continue };
            let took = asked.elapsed();
            if best.is_none_or(|(least, ..)| took < least) {
                best = Some((took, asked, Duration::from_micros(now.as_micros())));
            }
            readings += 1;
            if took < CLOCK_GOOD || readings == CLOCK_READINGS {
                break;
            }
        }
        let (took, asked, time) =
            best.ok_or_else(|| io::Error::other("no answer arrived as it was said"))?;
        Ok(time + asked.elapsed().saturating_sub(took / 2))
    }
}

/// Does it, in the order that the random numbers ask for: whatever makes a key or a name comes after
/// the seed.
fn become_another(
    directory: &Path,
    personal: &Personal,
    script: Script,
    port: &mut Port,
) -> Result<String, String> {
    let seed = hex::decode(personal.seed.expose()).unwrap_or_default();
    if seed.len() != SEED_BYTES {
        return Err(format!("a seed has {SEED_BYTES} bytes"));
    }
    random::reseed(&seed).map_err(|error| format!("cannot seed the random numbers: {error}"))?;
    let sample =
        random::sample().map_err(|error| format!("cannot read random numbers: {error}"))?;
    let time = port.host_time().map_err(|error| format!("cannot ask for the clock: {error}"))?;
    set_clock(time).map_err(|error| format!("cannot set the clock: {error}"))?;
    let done = place(directory, personal)
        .map_err(|error| format!("cannot write below {}: {error}", directory.display()))
        .and_then(|()| script.go_on());
    // The private host key is in it.
    let removed = fs::remove_dir_all(directory)
        .map_err(|error| format!("cannot remove {}: {error}", directory.display()));
    done.and(removed).map(|()| sample)
}

fn set_clock(since_1970: Duration) -> nix::Result<()> {
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(since_1970))
}

/// An empty directory for the script's files. One that is there is another program's that waits on the
/// port: two would take each other's lines.
fn make_directory(directory: &Path) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    DirBuilder::new().mode(0o700).create(directory)
}

/// Writes the files that the script reads.
fn place(directory: &Path, personal: &Personal) -> io::Result<()> {
    let write = |name: &str, text: &str| {
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(directory.join(name))?;
        file.write_all(text.as_bytes())?;
        if text.ends_with('\n') { Ok(()) } else { file.write_all(b"\n") }
    };
    write("hostname", &personal.hostname)?;
    write("machine-id", &personal.machine_id)?;
    write("user", &personal.user)?;
    write("authorized-key", &personal.authorized_key)?;
    write("host-key", personal.host_key.expose())?;
    write("host-key.pub", &personal.host_public_key)
}

/// The image's script, which has begun and waits.
struct Script {
    child: Child,
}

impl Script {
    /// Starts it, and waits until it waits.
    fn begin(script: &Path, directory: &Path) -> io::Result<Self> {
        let mut child = Command::new("/bin/sh")
            .arg(script)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut said = Vec::new();
        if let Some(stdout) = &mut child.stdout {
            // No further: what comes behind the line is read later.
            stdout.take(READY.len() as u64 + 1).read_to_end(&mut said)?;
        }
        if said.strip_suffix(b"\n") == Some(READY.as_bytes()) {
            return Ok(Self { child });
        }
        drop(child.stdin.take());
        let output = child.wait_with_output()?;
        Err(io::Error::other(ended(&output)))
    }

    /// Lets it do the rest.
    fn go_on(mut self) -> Result<(), String> {
        if let Some(mut stdin) = self.child.stdin.take() {
            // One that has ended says by itself why.
            drop(stdin.write_all(GO));
        }
        let output = self.child.wait_with_output();
        let output = output.map_err(|error| format!("cannot wait for the script: {error}"))?;
        if output.status.success() { Ok(()) } else { Err(ended(&output)) }
    }
}

fn ended(output: &Output) -> String {
    let said = &output.stderr[..output.stderr.len().min(COMPLAINT_BYTES)];
    format!("the script ended with {}: {}", output.status, String::from_utf8_lossy(said).trim())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use common::Timestamp;

    use super::*;

    /// A port, and the host's end of it.
    fn port() -> (Port, BufReader<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let port = Port { file: BufReader::new(File::from(OwnedFd::from(ours))) };
        (port, BufReader::new(theirs))
    }

    #[test]
    fn lost_and_late_answers_do_not_put_the_clock_off() {
        let (mut port, mut host) = port();
        let clock = |question: u32, micros: u64| {
            line(&Word::Clock { question, now: Timestamp::from_micros(micros) })
        };
        let host = thread::spawn(move || {
            let mut asked = 0;
            let mut text = Vec::new();
            while host.read_until(b'\n', &mut text).unwrap() > 0 {
                let Some(Answer::Clock { question }) = read(&text) else { panic!("{text:?}") };
                let right = clock(question, 5_000_000);
                let answer = match asked {
                    0 => right[3..].to_vec(),
                    1 => b"\n".to_vec(),
                    // Late, of another time.
                    2 => [clock(0, 1), clock(1, 2), right].concat(),
                    _ => right,
                };
                host.get_mut().write_all(&answer).unwrap();
                text.clear();
                asked += 1;
            }
            asked
        });
        let time = port.host_time().unwrap();
        assert!((5..60).contains(&time.as_secs()), "{time:?}");
        drop(port);
        assert!(host.join().unwrap() >= 3);
    }

    #[test]
    fn a_script_waits_for_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("script");
        let run = |text: &str| {
            fs::write(&path, text).unwrap();
            Script::begin(&path, directory.path())
        };
        let script = run("echo ready; read -r go; [ $go = go ] && cat name >copy").unwrap();
        fs::write(directory.path().join("name"), "late").unwrap();
        script.go_on().unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("copy")).unwrap(), "late");
        let script = run("echo ready; read -r go; echo wrong >&2; exit 3").unwrap();
        let error = script.go_on().unwrap_err();
        assert!(error.contains("3: wrong"), "{error}");
        let error = run("echo no such thing >&2; exit 4").err().unwrap().to_string();
        assert!(error.contains("4: no such thing"), "{error}");
    }

    #[test]
    fn a_host_that_is_gone_is_not_asked_for_ever() {
        let (mut port, host) = port();
        drop(host);
        assert!(port.host_time().is_err());
    }
}
