//! QEMU's monitor: one client at a time, commands and events.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::machine::{Machine, Power};

/// Events that wait for a client that does not read; further ones are lost.
const WAITING_EVENTS: usize = 64;

/// What runs of the machine, as `query-status` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunState {
    Running,
    Paused,
    IoError,
    Shutdown,
}

impl RunState {
    fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::IoError => "io-error",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What the monitor knows.
#[derive(Debug)]
pub(crate) struct Monitor {
    name: String,
    /// The host's port of the forwarding and the guest's behind it.
    ports: (u16, u16),
    /// Cancelled when a client knows the port: then a host has its machine.
    pub(crate) claimed: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    run: RunState,
    /// Where events go, if a client is there and has left the negotiation.
    client: Option<mpsc::Sender<Value>>,
}

impl Monitor {
    pub(crate) fn new(name: &str, ports: (u16, u16)) -> Self {
        let state = Mutex::new(State { run: RunState::Running, client: None });
        Self { name: name.to_owned(), ports, claimed: CancellationToken::new(), state }
    }

    /// Tells the client that something happened. Without a client it is lost, as QEMU's is.
    pub(crate) fn event(&self, name: &str, data: Option<Value>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = json!({ "seconds": now.as_secs(), "microseconds": now.subsec_micros() });
        let mut event = json!({ "timestamp": timestamp, "event": name });
        if let Some(data) = data {
            event["data"] = data;
        }
        if let Some(client) = &self.state().client {
            drop(client.try_send(event));
        }
    }

    /// Changes what runs, and says what it was.
    pub(crate) fn set_run_state(&self, run: RunState) -> RunState {
        std::mem::replace(&mut self.state().run, run)
    }

    /// What runs.
    pub(crate) fn run_state(&self) -> RunState {
        self.state().run
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to `info usernet` (vm-facts 8).
    fn usernet(&self) -> String {
        let (host, guest) = self.ports;
        format!(
            "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port \
             RecvQ SendQ\r\n  TCP[HOST_FORWARD]  14       127.0.0.1 {host:5}       10.0.2.15 \
             {guest:5}     0     0\r\n"
        )
    }
}

/// Makes the socket as QEMU does, in place of what is there.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, String> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("Failed to unlink socket {}: {error}", path.display()));
        }
        _ => {}
    }
    UnixListener::bind(path)
        .map_err(|error| format!("Failed to bind socket to {}: {error}", path.display()))
}

/// Serves one client after the other until the machine is over and its last client knows.
pub(crate) async fn serve(machine: Arc<Machine>, listener: UnixListener) {
    loop {
        let client = tokio::select! {
            biased;
            () = machine.over.cancelled() => return,
            client = listener.accept() => client,
        };
        if let Ok((stream, _)) = client {
            // How a client leaves does not matter to the guest.
            drop(converse(&machine, stream).await);
            machine.monitor.state().client = None;
        }
    }
}

async fn converse(machine: &Machine, stream: UnixStream) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let version = json!({ "qemu": { "micro": 2, "minor": 0, "major": 10 }, "package": "scripted" });
    write(&mut writer, &json!({ "QMP": { "version": version, "capabilities": ["oob"] } })).await?;
    let (sender, mut events) = mpsc::channel(WAITING_EVENTS);
    let mut negotiating = Some(sender);
    loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => write(&mut writer, &event).await?,
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                let answer = answer(machine, &line, &mut negotiating);
                write(&mut writer, &answer.line).await?;
                // The answer first: QEMU tells of the end after it has agreed to it.
                if answer.quit {
                    machine.power(Power::Quit);
                }
            }
            () = machine.over.cancelled() => {
                while let Ok(event) = events.try_recv() {
                    write(&mut writer, &event).await?;
                }
                return Ok(());
            }
        }
    }
}

async fn write(writer: &mut (impl AsyncWriteExt + Unpin), line: &Value) -> io::Result<()> {
    writer.write_all(format!("{line}\r\n").as_bytes()).await
}

struct Answer {
    line: Value,
    quit: bool,
}

/// Does what a line asks for.
fn answer(machine: &Machine, line: &str, negotiating: &mut Option<mpsc::Sender<Value>>) -> Answer {
    let request: Value = serde_json::from_str(line).unwrap_or_default();
    let command = request.get("execute").and_then(Value::as_str).unwrap_or_default();
    let done = match (command, negotiating.take()) {
        ("", state) => {
            *negotiating = state;
            Err("GenericError: QMP input lacks member 'execute'".to_owned())
        }
        ("qmp_capabilities", Some(sender)) => {
            machine.monitor.state().client = Some(sender);
            Ok(json!({}))
        }
        (_, Some(sender)) => {
            *negotiating = Some(sender);
            Err("CommandNotFound: Expecting capabilities negotiation with 'qmp_capabilities'"
                .to_owned())
        }
        (command, None) => {
            let argument = request.pointer("/arguments/command-line").and_then(Value::as_str);
            execute(machine, command, argument.unwrap_or_default())
        }
    };
    let mut line = match done {
        Ok(value) => json!({ "return": value }),
        Err(error) => {
            let (class, text) = error.split_once(": ").unwrap_or(("GenericError", &error));
            json!({ "error": { "class": class, "desc": text } })
        }
    };
    if let Some(id) = request.get("id") {
        line["id"] = id.clone();
    }
    Answer { quit: command == "quit" && line.get("return").is_some(), line }
}

/// Executes a command after the negotiation; the error is `CLASS: text`.
fn execute(machine: &Machine, command: &str, argument: &str) -> Result<Value, String> {
    let monitor = &machine.monitor;
    Ok(match command {
        "query-name" => json!({ "name": monitor.name }),
        "query-status" => {
            let run = monitor.run_state();
            json!({ "status": run.name(), "running": run == RunState::Running })
        }
        "human-monitor-command" if argument == "info usernet" => {
            monitor.claimed.cancel();
            json!(monitor.usernet())
        }
        "human-monitor-command" => json!(format!("unknown command: '{argument}'\r\n")),
        "stop" => {
            machine.stop(RunState::Paused);
            json!({})
        }
        "cont" => {
            machine.go_on()?;
            json!({})
        }
        "system_powerdown" => {
            machine.press_power_button();
            json!({})
        }
        "quit" => json!({}),
        _ => return Err(format!("CommandNotFound: The command {command} has not been found")),
    })
}
