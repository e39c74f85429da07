//! The connection to a QEMU of ours.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use super::QmpError;
use super::message::{Event, Lines, Message, command, parse};

/// How long QEMU may take to greet and to switch to command mode.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);

/// How long QEMU may take for an ordinary command. Its main loop may be held up by a slow disk.
pub(crate) const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// The connection to a QEMU of ours. It ends when dropped.
#[derive(Debug)]
pub(crate) struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Arc<Mutex<Waiting>>,
    closed: watch::Receiver<Option<String>>,
    _reader: AbortOnDropHandle<()>,
}

/// The commands that wait for their answers; `None` once none will come.
#[derive(Debug)]
struct Waiting {
    next: u64,
    answers: Option<HashMap<u64, oneshot::Sender<Result<Value, String>>>>,
}

impl Qmp {
    /// Takes a new connection and changes to command mode. From then on `on_event` hears every event, in order and
    /// before any answer that QEMU sent after it.
    pub(crate) async fn over(
        stream: UnixStream,
        on_event: impl FnMut(&Event) + Send + 'static,
    ) -> Result<Self, QmpError> {
        let (mut reader, writer) = stream.into_split();
        let mut lines = Lines::default();
        tokio::time::timeout(GREETING_DEADLINE, greeting(&mut reader, &mut lines)).await.map_err(
            |_| QmpError::Timeout { command: "greeting", deadline: GREETING_DEADLINE },
        )??;
        let waiting = Arc::new(Mutex::new(Waiting { next: 1, answers: Some(HashMap::new()) }));
        let (announce, closed) = watch::channel(None);
        let task = {
            let waiting = Arc::clone(&waiting);
            tokio::spawn(async move {
                let reason = read(&mut reader, lines, &waiting, on_event).await;
                // Dropping the senders tells every waiting command that no answer will come.
                drop(lock(&waiting).answers.take());
                announce.send_replace(Some(reason));
            })
        };
        let client = Self {
            writer: tokio::sync::Mutex::new(writer),
            waiting,
            closed,
            _reader: AbortOnDropHandle::new(task),
        };
        client.execute("qmp_capabilities", Value::Null, GREETING_DEADLINE).await?;
        Ok(client)
    }

    /// Runs a command and gives its answer.
    pub(crate) async fn execute(
        &self,
        name: &'static str,
        arguments: Value,
        deadline: Duration,
    ) -> Result<Value, QmpError> {
        let (sender, receiver) = oneshot::channel();
        let number = {
            let mut waiting = lock(&self.waiting);
            let number = waiting.next;
            let Some(answers) = &mut waiting.answers else {
                return Err(QmpError::Closed { command: name });
            };
            answers.insert(number, sender);
            waiting.next += 1;
            number
        };
        // Whatever happens, an answer that comes too late finds nobody.
        let _forget = Forget { waiting: &self.waiting, number };
        let exchange = async {
            let line = command(number, name, &arguments);
            self.writer.lock().await.write_all(&line).await?;
            receiver.await.map_err(|_| QmpError::Closed { command: name })
        };
        let answer = tokio::time::timeout(deadline, exchange)
            .await
            .map_err(|_| QmpError::Timeout { command: name, deadline })??;
        answer.map_err(|reason| QmpError::Refused { command: name, reason })
    }

    /// Runs a command of the monitor for people and gives its text. Its failures are text as well.
    pub(crate) async fn human(&self, line: &str) -> Result<String, QmpError> {
        let name = "human-monitor-command";
        let answer = self.execute(name, json!({ "command-line": line }), COMMAND_DEADLINE).await?;
        match answer {
            Value::String(text) => Ok(text),
            _ => Err(QmpError::Incomplete { command: name, what: "text" }),
        }
    }

    /// Waits until the connection has ended and says why.
    pub(crate) fn closed(&self) -> impl Future<Output = String> + Send + 'static {
        let mut closed = self.closed.clone();
        async move {
            match closed.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                Err(_) => "its reader is gone".to_owned(),
            }
        }
    }
}

struct Forget<'a> {
    waiting: &'a Mutex<Waiting>,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(answers) = &mut lock(self.waiting).answers {
            drop(answers.remove(&self.number));
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    // Every change is one call on the map, so it is whole whoever panicked.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first line must be the greeting.
async fn greeting(reader: &mut OwnedReadHalf, lines: &mut Lines) -> Result<(), QmpError> {
    let mut bytes = vec![0; 4096];
    loop {
        if let Some(line) = lines.next_line()? {
            return match parse(&line)? {
                Message::Greeting => Ok(()),
                _ => Err(QmpError::Malformed("something else before the greeting".to_owned())),
            };
        }
        match reader.read(&mut bytes).await? {
            0 => return Err(QmpError::Closed { command: "greeting" }),
            count => lines.push(&bytes[..count]),
        }
    }
}

/// Reads until the connection ends, and says why it did.
async fn read(
    reader: &mut OwnedReadHalf,
    mut lines: Lines,
    waiting: &Mutex<Waiting>,
    mut on_event: impl FnMut(&Event),
) -> String {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        loop {
            let message = match lines.next_line() {
                Ok(None) => break,
                Ok(Some(line)) => parse(&line),
                Err(error) => Err(error),
            };
            match message {
                Ok(Message::Event(event)) => on_event(&event),
                Ok(Message::Answer(number, answer)) => {
                    let sender = lock(waiting).answers.as_mut().and_then(|map| map.remove(&number));
                    if let Some(sender) = sender {
                        // Whoever asked may have stopped waiting.
                        drop(sender.send(answer));
                    }
                }
                Ok(Message::Greeting) => return "a second greeting".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
        match reader.read(&mut bytes).await {
            Ok(0) => return "QEMU closed its monitor".to_owned(),
            Ok(count) => lines.push(&bytes[..count]),
            Err(error) => return error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 10}}}}\n";

    /// A QEMU that greets, answers the first command with nothing, and each further line with the
    /// next of `script`, in which `ID` is the number of the command.
    async fn connect(
        greeting: &'static str,
        script: Vec<&'static str>,
    ) -> (Result<Qmp, QmpError>, Arc<Mutex<Vec<String>>>) {
        let (ours, stream) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let (reader, mut writer) = stream.into_split();
            let mut commands = BufReader::new(reader).lines();
            writer.write_all(greeting.as_bytes()).await.unwrap();
            for answer in std::iter::once("{\"return\": {}, \"id\": ID}\n").chain(script) {
                let Ok(Some(line)) = commands.next_line().await else { return };
                let asked: Value = serde_json::from_str(&line).unwrap();
                let answer = answer.replace("ID", &asked["id"].to_string());
                writer.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let events = Arc::new(Mutex::new(Vec::new()));
        let client = {
            let events = Arc::clone(&events);
            Qmp::over(ours, move |event| events.lock().unwrap().push(event.name.clone())).await
        };
        (client, events)
    }

    #[tokio::test]
    async fn commands_answers_and_events() {
        let script = vec![
            "{\"event\": \"A\"}\n{\"return\": {\"x\": 1}, \"id\": ID}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": ID}\n",
            "{\"return\": \"text\\r\\n\", \"id\": ID}\n",
        ];
        let (client, events) = connect(GREETING, script).await;
        let client = client.unwrap();
        let answer = client.execute("query-x", Value::Null, COMMAND_DEADLINE).await.unwrap();
        assert_eq!(answer, json!({ "x": 1 }));
        assert_eq!(*events.lock().unwrap(), ["A"]);
        let error = client.execute("bad", json!({ "a": 1 }), COMMAND_DEADLINE).await.unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused `bad`: no");
        assert_eq!(client.human("info usernet").await.unwrap(), "text\r\n");
        assert_eq!(client.closed().await, "QEMU closed its monitor");
        let error = client.execute("late", Value::Null, COMMAND_DEADLINE).await.unwrap_err();
        assert!(matches!(error, QmpError::Closed { command: "late" }), "{error}");
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_has_a_deadline() {
        let (client, _) = connect(GREETING, vec!["", "{\"return\": 2, \"id\": ID}\n"]).await;
        let client = client.unwrap();
        let deadline = Duration::from_millis(10);
        let error = client.execute("slow", Value::Null, deadline).await.unwrap_err();
        assert!(matches!(error, QmpError::Timeout { command: "slow", .. }), "{error}");
        assert_eq!(client.execute("next", Value::Null, COMMAND_DEADLINE).await.unwrap(), json!(2));
    }

    #[tokio::test]
    async fn whoever_does_not_greet_is_not_qemu() {
        for line in ["hello\n", "{\"event\": \"A\"}\n", "{\"QMP\": {}}\n"] {
            let (client, _) = connect(line, vec![]).await;
            assert!(matches!(client, Err(QmpError::Malformed(_))), "{line}");
        }
    }

    #[tokio::test]
    async fn garbage_ends_the_connection() {
        let (client, _) = connect(GREETING, vec!["garbage\n"]).await;
        let client = client.unwrap();
        let error = client.execute("x", Value::Null, COMMAND_DEADLINE).await.unwrap_err();
        assert!(matches!(error, QmpError::Closed { .. }), "{error}");
        assert!(client.closed().await.contains("not its protocol"));
    }
}
