//! The machine: what its parts share, and the ways in which it ends.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::boot::{Boot, BootEnd};
use crate::clock::Clock;
use crate::command_line::CommandLine;
use crate::console::Console;
use crate::files::Files;
use crate::monitor::{self, Monitor, RunState};
use crate::network::Network;
use crate::program::Program;
use crate::seed::Seed;
use crate::ssh;

/// How long the last words of a machine may take to reach the monitor's client.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a guest that ends by itself while it boots waits for a host that shall see it: no kernel
/// is so fast that it ends before.
const CLAIM: Duration = Duration::from_secs(5);

/// How a machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    /// The guest powers itself off.
    Off,
    /// The guest restarts, which ends QEMU with `-no-reboot`.
    Reset,
    /// The guest's kernel panics and says so to pvpanic.
    Panic,
    /// The monitor's `quit`.
    Quit,
    /// A signal to QEMU.
    Signal,
}

/// A running machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) clock: Clock,
    pub(crate) network: Arc<Network>,
    pub(crate) console: Console,
    pub(crate) monitor: Monitor,
    pub(crate) seed: Seed,
    pub(crate) files: Files,
    pub(crate) program: Program,
    /// What came of its boot.
    pub(crate) booted: BootEnd,
    /// Cancelled when QEMU ends.
    pub(crate) over: CancellationToken,
}

/// Is a machine until it ends; the error is what QEMU prints when it does not start.
pub(crate) fn run(line: &CommandLine, boot: Boot) -> Result<(), String> {
    if boot.end == BootEnd::Fail {
        return Err("cannot set up guest memory 'pc.ram': as its boot.conf wants it".to_owned());
    }
    let forward = TcpListener::bind(line.forward)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    let (forward, port) = forward
        .and_then(|listener| listener.local_addr().map(|address| (listener, address.port())))
        .map_err(|error| format!("Could not set up host forwarding rule: {error}"))?;
    let machine = Arc::new(Machine {
        clock: Clock::new(),
        network: Arc::new(Network::new()),
        console: Console::open(&line.console)?,
        monitor: Monitor::new(&line.name, (port, line.guest_port)),
        seed: Seed::read(&line.seed)?,
        files: Files::default(),
        program: Program::default(),
        booted: boot.end,
        over: CancellationToken::new(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        let signals = end_by_signal(&machine).map_err(|error| format!("no signals: {error}"))?;
        let monitor = monitor::listen(&line.monitor)?;
        let mut monitor = tokio::spawn(monitor::serve(Arc::clone(&machine), monitor));
        tokio::spawn(signals);
        tokio::spawn(start(Arc::clone(&machine), boot, forward));
        machine.over.cancelled().await;
        drop(tokio::time::timeout(LAST_WORDS, &mut monitor).await);
        Ok(())
    })
}

/// Boots the guest.
async fn start(machine: Arc<Machine>, boot: Boot, forward: TcpListener) {
    machine.console.kernel("Scripted guest version 1");
    machine.clock.sleep(boot.time).await;
    match boot.end {
        BootEnd::Ready | BootEnd::Full | BootEnd::Slow | BootEnd::Refuse => {
            machine.console.kernel(&format!("{}: the SSH server listens", machine.seed.hostname));
            ssh::serve(machine, forward, boot.end == BootEnd::Refuse).await;
        }
        BootEnd::Panic => {
            drop(tokio::time::timeout(CLAIM, machine.monitor.claimed.cancelled()).await);
            machine.panic("VFS: Unable to mount root fs on unknown-block(0,0)");
        }
        // Connections stay in the queue of the listener, which must live.
        BootEnd::Hang | BootEnd::Fail => machine.over.cancelled().await,
    }
}

/// What heeds the signals that end QEMU.
fn end_by_signal(machine: &Arc<Machine>) -> std::io::Result<impl Future<Output = ()> + use<>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let machine = Arc::clone(machine);
    Ok(async move {
        tokio::select! {
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        machine.power(Power::Signal);
    })
}

impl Machine {
    /// Ends the machine, with the events that QEMU sends then (vm-facts 9).
    pub(crate) fn power(&self, power: Power) {
        let (guest, reason) = match power {
            Power::Off => (true, "guest-shutdown"),
            Power::Reset => (true, "guest-reset"),
            Power::Panic => {
                self.monitor.event("GUEST_PANICKED", Some(json!({ "action": "poweroff" })));
                (true, "guest-panic")
            }
            Power::Quit => (false, "host-qmp-quit"),
            Power::Signal => (false, "host-signal"),
        };
        self.monitor.set_run_state(RunState::Shutdown);
        self.monitor.event("SHUTDOWN", Some(json!({ "guest": guest, "reason": reason })));
        self.over.cancel();
    }

    /// The guest shuts itself down.
    pub(crate) fn power_off(&self) {
        self.console.kernel("reboot: Power down");
        self.power(Power::Off);
    }

    /// The guest restarts itself.
    pub(crate) fn reboot(&self) {
        self.console.kernel("reboot: Restarting system");
        self.power(Power::Reset);
    }

    /// The guest stops for good without switching its power off: QEMU sees nothing of it.
    pub(crate) fn halt(&self) {
        self.console.kernel("reboot: System halted");
        self.network.unplug();
    }

    /// The guest's kernel panics.
    pub(crate) fn panic(&self, why: &str) {
        self.console.kernel(&format!("Kernel panic - not syncing: {why}"));
        self.power(Power::Panic);
    }

    /// The guest's kernel runs out of memory and kills the guest program.
    pub(crate) fn out_of_memory(&self) {
        self.console.kernel("Out of memory: Killed process 321 (workflow-runner), UID 0");
        self.program.die();
    }

    /// The host has no room for the guest's disk: QEMU stops the guest.
    pub(crate) fn disk_full(&self) {
        let data = json!({ "node-name": "disk", "device": "", "operation": "write",
            "action": "stop", "nospace": true, "reason": "No space left on device" });
        self.monitor.event("BLOCK_IO_ERROR", Some(data));
        self.stop(RunState::IoError);
    }

    /// Stops the guest's processors.
    pub(crate) fn stop(&self, state: RunState) {
        if self.clock.set_stopped(true) {
            self.monitor.set_run_state(state);
            self.network.shut();
            self.monitor.event("STOP", None);
        }
    }

    /// Lets them go on.
    pub(crate) fn go_on(&self) -> Result<(), String> {
        if self.over.is_cancelled() {
            return Err("GenericError: Resetting the Virtual Machine is required".to_owned());
        }
        if self.clock.set_stopped(false) {
            self.monitor.set_run_state(RunState::Running);
            self.network.open();
            self.monitor.event("RESUME", None);
        }
        Ok(())
    }

    /// Stops the guest's processors for a time of the host's, as somebody does who asks QEMU for it.
    pub(crate) fn pause(self: &Arc<Self>, time: Duration) {
        self.stop(RunState::Paused);
        let machine = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            // It may be off by now.
            machine.go_on().unwrap_or_default();
        });
    }

    /// What the guest does when somebody presses its power button. One that stands still does not
    /// notice.
    pub(crate) fn press_power_button(&self) {
        self.monitor.event("POWERDOWN", None);
        if self.monitor.run_state() == RunState::Running {
            self.power_off();
        }
    }

    /// Lets no byte pass over SSH for a time, while everything else goes on.
    pub(crate) fn freeze(self: &Arc<Self>, time: Duration) {
        self.network.shut();
        let machine = Arc::clone(self);
        tokio::spawn(async move {
            machine.clock.sleep(time).await;
            machine.network.open();
        });
    }
}
