//! From a booting guest to an authenticated connection.

use std::time::Duration;

use tokio::time::Instant;

use super::{CONSOLE_TAIL_LINES, ConsoleCause, Ended, Machine, MachineError, ready};
use crate::ssh::{Guest, SshError};

/// How long one login may take: key exchange and authentication on a slow guest.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(30);

/// How long a guest that answers may refuse us: its SSH server may be up before the seed was read.
const LOGIN_PATIENCE: Duration = Duration::from_secs(30);

/// Between two logins meanwhile.
const LOGIN_INTERVAL: Duration = Duration::from_millis(500);

/// How long a login to a clone may take before it is tried once more: it may have met an SSH server
/// that is about to start anew.
const CLONE_ATTEMPT: Duration = Duration::from_secs(10);

/// Between two of those.
const CLONE_INTERVAL: Duration = Duration::from_millis(10);

/// How often the console is asked for a panic meanwhile.
const CONSOLE_INTERVAL: Duration = Duration::from_millis(200);

impl Machine {
    /// Waits until the guest's SSH server shows itself and lets us in.
    ///
    /// # Errors
    ///
    /// [`MachineError::BootTimeout`] when it does not show itself within `ceiling`;
    /// [`MachineError::BootEnded`] and [`MachineError::BootPanic`] as soon as the machine ends or its
    /// console shows a panic; [`MachineError::Login`] when it does not let us in. All carry the end of
    /// the console.
    pub async fn wait_ready(&self, ceiling: Duration) -> Result<Guest, MachineError> {
        self.wait_answer(ceiling).await?;
        self.login().await
    }

    /// Waits until the guest's SSH server shows itself: the first half of [`Machine::wait_ready`].
    ///
    /// # Errors
    ///
    /// As there, without those of the login.
    pub async fn wait_answer(&self, ceiling: Duration) -> Result<(), MachineError> {
        tokio::select! {
            biased;
            error = self.boot_failure() => Err(error),
            () = ready::banner(self.address()) => Ok(()),
            () = tokio::time::sleep(ceiling) => {
                Err(MachineError::BootTimeout { ceiling, console: self.console_tail() })
            }
        }
    }

    /// Logs in to a guest whose server has shown itself: the second half of [`Machine::wait_ready`].
    ///
    /// # Errors
    ///
    /// As there, without the time limit of the boot.
    pub async fn login(&self) -> Result<Guest, MachineError> {
        tokio::select! {
            biased;
            error = self.boot_failure() => Err(error),
            result = self.try_login() => {
                result.map_err(|source| MachineError::Login { source, console: self.console_tail() })
            }
        }
    }

    /// Logs in to a clone, whose SSH server listens already, or will in a moment. One connection, and
    /// no other before it, because each costs the guest a process.
    ///
    /// # Errors
    ///
    /// As [`Machine::wait_ready`]; at once where the clone lets its template's key in.
    pub async fn login_to_clone(&self, ceiling: Duration) -> Result<Guest, MachineError> {
        let failed = |source| MachineError::Login { source, console: self.console_tail() };
        let until = Instant::now() + ceiling;
        let connect = async {
            loop {
                // One that reached nobody is not waited for.
                match tokio::time::timeout(CLONE_ATTEMPT, self.connect()).await {
                    Ok(Ok(guest)) => return Ok(guest),
                    Ok(Err(error @ SshError::ForeignKey { .. })) => return Err(failed(error)),
                    Ok(Err(error)) if Instant::now() >= until => return Err(failed(error)),
                    Err(_) if Instant::now() >= until => {
                        return Err(MachineError::BootTimeout {
                            ceiling,
                            console: self.console_tail(),
                        });
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(vm.id = %self.id(), %error, "the clone does not let us in yet");
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(CLONE_INTERVAL).await;
            }
        };
        tokio::select! {
            biased;
            error = self.boot_failure() => Err(error),
            guest = connect => guest,
        }
    }

    /// Makes a further connection to a guest that was ready before, in one attempt. Commands run and
    /// files are handled as root by it, as by every connection that this type gives: with the prefix
    /// that the image's entry names.
    ///
    /// # Errors
    ///
    /// What the connection failed with.
    pub async fn connect(&self) -> Result<Guest, SshError> {
        let guest =
            Guest::connect(self.address(), &self.user, self.keys(), ATTEMPT_DEADLINE).await?;
        Ok(guest.with_privilege(&self.privilege))
    }

    async fn try_login(&self) -> Result<Guest, SshError> {
        let patience = Instant::now() + LOGIN_PATIENCE;
        loop {
            match self.connect().await {
                Err(error) if Instant::now() >= patience => return Err(error),
                Err(error) => {
                    tracing::debug!(vm.id = %self.id(), %error, "the guest does not let us in yet");
                }
                Ok(guest) => return Ok(guest),
            }
            tokio::time::sleep(LOGIN_INTERVAL).await;
        }
    }

    /// Waits until something ends the boot.
    async fn boot_failure(&self) -> MachineError {
        let mut ended = self.ended();
        loop {
            tokio::select! {
                ended = async { ended.wait_for(Option::is_some).await.map(|ended| ended.clone()) } => {
                    let gone = || Ended::QemuGone { detail: "nobody watches it".to_owned() };
                    let ended = ended.ok().flatten().unwrap_or_else(gone);
                    return self.boot_ended(ended);
                }
                () = tokio::time::sleep(CONSOLE_INTERVAL) => {}
            }
            // A kernel that panicked and stays so tells nobody else. No job's program has written
            // to the console yet.
            if let Some(ConsoleCause::Panic(line)) = self.console().cause() {
                return MachineError::BootPanic { line, console: self.console_tail() };
            }
        }
    }

    fn boot_ended(&self, ended: Ended) -> MachineError {
        let console = self.console_tail();
        match (self.console().cause(), ended) {
            (Some(ConsoleCause::Panic(line)), Ended::Rebooted | Ended::Panicked) => {
                MachineError::BootPanic { line, console }
            }
            (_, ended) => MachineError::BootEnded { ended, console },
        }
    }

    fn console_tail(&self) -> Vec<String> {
        self.console().tail(CONSOLE_TAIL_LINES)
    }
}
