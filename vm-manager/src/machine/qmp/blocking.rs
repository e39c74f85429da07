//! One question to a QEMU that this process did not start.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::QmpError;
use super::message::{Lines, Message, command, parse};

/// Asks for the value of `-name`. Blocks for at most `deadline`; somebody else who is connected
/// already keeps QEMU from answering (vm-facts 7).
pub(crate) fn ask_name(socket: &Path, deadline: Duration) -> Result<String, QmpError> {
    let mut conversation = Conversation {
        stream: UnixStream::connect(socket)?,
        lines: Lines::default(),
        until: Instant::now() + deadline,
        deadline,
    };
    conversation.wait("greeting", |message| (message == Message::Greeting).then_some(()))?;
    conversation.ask(1, "qmp_capabilities")?;
    let answer = conversation.ask(2, "query-name")?;
    let name = answer.get("name").and_then(Value::as_str).map(str::to_owned);
    name.ok_or(QmpError::Incomplete { command: "query-name", what: "name" })
}

struct Conversation {
    stream: UnixStream,
    lines: Lines,
    until: Instant,
    deadline: Duration,
}

impl Conversation {
    fn ask(&mut self, number: u64, name: &'static str) -> Result<Value, QmpError> {
        self.stream.write_all(&command(number, name, &Value::Null))?;
        let answer = self.wait(name, |message| match message {
            Message::Answer(answered, answer) if answered == number => Some(answer),
            _ => None,
        })?;
        answer.map_err(|reason| QmpError::Refused { command: name, reason })
    }

    fn wait<T>(
        &mut self,
        name: &'static str,
        wanted: impl Fn(Message) -> Option<T>,
    ) -> Result<T, QmpError> {
        loop {
            while let Some(line) = self.lines.next_line()? {
                if let Some(found) = wanted(parse(&line)?) {
                    return Ok(found);
                }
            }
            let timeout = QmpError::Timeout { command: name, deadline: self.deadline };
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(timeout);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(QmpError::Closed { command: name }),
                Ok(count) => self.lines.push(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Err(timeout);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;

    use super::*;

    const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 10}}}}\n";

    #[test]
    fn a_name_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let qemu = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut commands = std::io::BufReader::new(stream.try_clone().unwrap()).lines();
            stream.write_all(GREETING.as_bytes()).unwrap();
            commands.next().unwrap().unwrap();
            stream.write_all(b"{\"event\": \"X\"}\n{\"return\": {}, \"id\": 1}\n").unwrap();
            let asked = commands.next().unwrap().unwrap();
            stream.write_all(b"{\"return\": {\"name\": \"n\"}, \"id\": 2}\n").unwrap();
            asked
        });
        assert_eq!(ask_name(&path, Duration::from_secs(10)).unwrap(), "n");
        assert!(qemu.join().unwrap().contains("query-name"));
    }

    #[test]
    fn a_qemu_that_talks_to_somebody_else_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qmp");
        let _listener = UnixListener::bind(&path).unwrap();
        let error = ask_name(&path, Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, QmpError::Timeout { command: "greeting", .. }), "{error}");
        let error = ask_name(&directory.path().join("none"), Duration::ZERO).unwrap_err();
        assert!(matches!(error, QmpError::Io(_)), "{error}");
    }
}
