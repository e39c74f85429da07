//! The ways in which a machine ends by our doing.

use std::time::Duration;

use common::time::Timestamp;

use super::{Machine, MachineError};
use crate::host::{Keep, Promise, resident_bytes, write_private};

/// How long a guest may take to shut down after it was asked to.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(30);

/// How long QEMU may take to end after `quit`.
const QUIT_DEADLINE: Duration = Duration::from_secs(5);

impl Machine {
    /// Shuts the guest down as a press of the power button does, ends QEMU, and removes everything.
    /// Takes at most half a minute and a few seconds, whatever the guest does.
    pub async fn stop(self) {
        self.ended.expect_stop();
        if self.command("system_powerdown").await.is_ok() {
            self.wait_end(SHUTDOWN_DEADLINE).await;
        }
        self.quit().await;
    }

    /// Like [`Machine::stop`], for guests that do not listen to the power button: `shutdown` asks the
    /// guest in its own way, such as a command over SSH. Its own end does not matter.
    pub async fn stop_by(self, shutdown: impl Future) {
        self.ended.expect_stop();
        let ask = async {
            drop(shutdown.await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = ask => {}
            () = self.wait_end(SHUTDOWN_DEADLINE) => {}
        }
        self.quit().await;
    }

    /// Ends QEMU at once and removes everything.
    pub async fn destroy(self) {
        self.ended.expect_stop();
        if let (Some(template), Some(pid)) = (&self.template, self.process_id())
            && let Some(bytes) = resident_bytes(pid, "RssAnon:")
        {
            template.note_dirtied(bytes);
        }
        // Ending a process and removing a large file block.
        drop(tokio::task::spawn_blocking(move || drop(self)).await);
    }

    /// Ends QEMU at once and removes everything but the room, which is for another machine then.
    ///
    /// # Errors
    ///
    /// QEMU does not end, or a file stays; the room is given back as soon as it can be.
    pub async fn destroy_for_another(self) -> Result<Promise, MachineError> {
        self.ended.expect_stop();
        let Self { body, .. } = self;
        let cleared = tokio::task::spawn_blocking(move || body.clear()).await;
        let cleared = cleared.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        Ok(cleared?)
    }

    /// Leaves the machine running for its user until a moment, under a name by which
    /// [`kept::find`](crate::host::kept::find) finds it. The login key is written to tmpfs with mode
    /// 0600. Whoever [maintains](crate::host::Instance::maintain) the instance ends the machine when its time is
    /// over, or the [watchdog](crate::host::watchdog) if nobody does.
    ///
    /// # Errors
    ///
    /// When the key or the record cannot be written; the machine is then destroyed.
    pub fn keep(self, name: &str, until: Timestamp) -> Result<(), MachineError> {
        let paths = self.body.paths();
        write_private(&paths.login_key(), self.keys.login_private_openssh().as_bytes())?;
        let mut record = self.record()?;
        record.keep = Some(Keep {
            name: name.to_owned(),
            until,
            address: self.address,
            user: self.user.clone(),
            host_key: self.keys.host_public_line(),
        });
        record.write(&paths.record())?;
        let Self { body, .. } = self;
        body.leave();
        Ok(())
    }

    /// Leaves the machine running for the next owner of its instance, which
    /// [adopts](Machine::adopt) it: the end of a service that is about to start again. What the guest
    /// does meanwhile, its own end included, is found out then. Only in the instance of a
    /// [service](crate::host::Instance::open_service) does anybody wait for that owner.
    ///
    /// A machine that was not started as adoptable is destroyed, which blocks as dropping it does.
    pub fn leave(self) {
        if !self.adoptable {
            tracing::warn!(vm.id = %self.id(), "a machine that nobody can adopt is destroyed");
            return;
        }
        let Self { body, .. } = self;
        body.leave_for_adoption();
    }

    async fn quit(self) {
        // The answer may or may not come before QEMU is gone.
        drop(self.command_within("quit", QUIT_DEADLINE).await);
        self.wait_end(QUIT_DEADLINE).await;
        self.destroy().await;
    }

    /// Waits until the process is gone or the time is over.
    async fn wait_end(&self, deadline: Duration) {
        if let Some(process) = self.body.process() {
            drop(tokio::time::timeout(deadline, process.ended()).await);
        }
    }
}
