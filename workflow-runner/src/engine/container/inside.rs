//! Processes inside the container of a job: how they start, and how they are told to end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::engine::job::Job;
use crate::engine::supervise::Limits;
use crate::engine::variables::Variables;
use crate::system::{Command, Control, Exit, Pending, Process, Signal, System, SystemError};

use super::arguments::{Arguments, of_workflow};
use super::drive::{Order, Trouble};
use super::tool::Tool;

/// How long handing on a signal may take.
const HAND_ON: Duration = Duration::from_secs(10);

/// Says which process it is, and becomes the program. Its group has the same number.
const BEGIN: &str = r#"{ echo $$ >"$0"; } 2>/dev/null; exec "$@""#;

/// A process in the job's container.
pub(in crate::engine) struct Inside {
    tool: Arc<Tool>,
    container: String,
    /// The file of the container with the process's number there.
    number: String,
}

impl Inside {
    /// Sends a signal to the group of the process. It is no error when nobody is left in it.
    pub(in crate::engine) async fn signal(&self, signal: Signal, system: &dyn System) {
        let name = match signal {
            Signal::Interrupt => "INT",
            Signal::Terminate => "TERM",
            Signal::Kill => "KILL",
        };
        // A process that is just being started says its number soon.
        let script = format!(
            r#"for i in 1 2 3 4; do [ -s "$0" ] || sleep 1; done; p=$(cat "$0") && {{ kill -{name} "-$p" || kill -{name} "$p"; }}"#
        );
        let words = ["exec", &self.container, "sh", "-c", &script, &self.number];
        let command = self.tool.command(words.map(str::to_owned).into(), Vec::new());
        let handed_on = async {
            let Process { stdout, stderr, mut control } = system.start(command).await?;
            let exit = control.wait().await;
            drop((stdout, stderr));
            exit
        };
        // Whoever cannot be reached so ends with the container.
        drop(timeout(HAND_ON, handed_on).await);
    }

    /// Hands signals on, without end.
    pub(in crate::engine) async fn relay(
        &self,
        signals: &mut mpsc::UnboundedReceiver<Signal>,
        system: &dyn System,
    ) -> Infallible {
        loop {
            match signals.recv().await {
                Some(signal) => self.signal(signal, system).await,
                None => std::future::pending().await,
            }
        }
    }
}

/// The client of a process that is elsewhere: signals go there, but for the one that ends the client
/// as well.
struct Relayed {
    client: Box<dyn Control>,
    signals: mpsc::UnboundedSender<Signal>,
}

/// Wraps such a client; what comes out of the receiver is to be handed on.
pub(in crate::engine) fn relayed(
    client: Box<dyn Control>,
) -> (Box<dyn Control>, mpsc::UnboundedReceiver<Signal>) {
    let (signals, receiver) = mpsc::unbounded_channel();
    (Box::new(Relayed { client, signals }), receiver)
}

impl Control for Relayed {
    fn wait(&mut self) -> Pending<'_, Result<Exit, SystemError>> {
        self.client.wait()
    }

    fn signal(&self, signal: Signal) {
        let is_last = signal == Signal::Kill;
        if is_last || self.signals.send(signal).is_err() {
            self.client.signal(signal);
        }
    }

    fn is_alive(&self) -> bool {
        self.client.is_alive()
    }
}

impl Job<'_> {
    /// The command that runs another in the job's container, if the job has one. `set` are the
    /// variables that the workflow set.
    pub(in crate::engine) fn enter_container(
        &self,
        command: Command,
        set: &Variables,
        step: u32,
    ) -> (Command, Option<Inside>) {
        let (Some(container), Some(tool)) = (self.containers.of_job(), self.containers.tool())
        else {
            return (command, None);
        };
        let Command { program, arguments: words, environment, directory, .. } = command;
        let paths = self.containers.paths();
        let mut arguments = Arguments::default();
        arguments.words(["exec", "--workdir", &directory]);
        for (name, value) in of_workflow(&environment, set, paths, self.service_places()) {
            if name != "PATH" {
                arguments.variable(name, &value);
            }
        }
        if let Some(search_path) = self.container_search_path(set) {
            arguments.variable("PATH", &search_path);
        }
        let number = self.directories.process_number(step);
        arguments.words([container.id.as_str(), "sh", "-c", BEGIN, &number, &program]);
        arguments.words(words.iter().map(String::as_str));
        let (arguments, environment) = arguments.take();
        let inside = Inside { container: container.id.clone(), number, tool };
        (inside.tool.command(arguments, environment), Some(inside))
    }

    /// The `PATH` of a process in the job's container where it is not that of the image.
    fn container_search_path(&self, set: &Variables) -> Option<String> {
        let container = self.containers.of_job()?;
        let base = set.get("PATH").filter(|base| !base.is_empty());
        if self.paths.is_empty() && base.is_none() {
            return None;
        }
        let base = base.unwrap_or(&container.search_path);
        let parts = self.paths.iter().map(String::as_str).chain(std::iter::once(base));
        Some(parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(":"))
    }

    /// Whether the job's container has a program.
    pub(in crate::engine) async fn container_has(
        &mut self,
        program: &str,
        set: &Variables,
        limits: &Limits,
    ) -> Result<bool, Trouble> {
        let (Some(container), Some(tool)) = (self.containers.of_job(), self.containers.tool())
        else {
            return Ok(false);
        };
        let mut arguments = Arguments::default();
        arguments.words(["exec"]);
        if let Some(search_path) = self.container_search_path(set) {
            arguments.variable("PATH", &search_path);
        }
        arguments.words([container.id.as_str(), "sh", "-c", "command -v \"$0\"", program]);
        let (arguments, environment) = arguments.take();
        let order = Order { arguments, environment, ..Order::silent([]) };
        Ok(self.try_order(&tool, order, limits).await?.is_well())
    }
}
