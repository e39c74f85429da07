//! What this host says about itself, every few seconds, and what it learns by it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Inner;
use crate::metrics;
use crate::record::Note;
use crate::store::{HostReport, LEASE, StoreError};

/// How often a host announces itself. Well below the time after which it counts as dead.
const BEAT: Duration = Duration::from_secs(5);

impl Inner {
    /// Announces this host until the service ends.
    pub(super) async fn beat(self: &Arc<Self>) {
        while !self.stop.is_cancelled() {
            if let Err(error) = self.announce().await {
                metrics::error("store");
                tracing::warn!(%error, "cannot announce this host; trying again");
            }
            self.measure().await;
            self.pause(BEAT).await;
        }
    }

    /// Looks at what else runs on this host until the service ends. Beside the heartbeat, which must
    /// not wait for another program that holds the host's ledger.
    pub(super) async fn watch_host(&self) {
        while !self.stop.is_cancelled() {
            self.pause(BEAT).await;
            if self.look_at_host().await {
                self.wake.notify_one();
            }
        }
    }

    /// Announces this host for the first time. After the machine was booted again, the service that
    /// lived here before seems to be another one until its lease is over.
    pub(super) async fn announce_first(&self) -> Result<(), StoreError> {
        let until = Instant::now() + LEASE + BEAT;
        loop {
            match self.announce().await {
                Err(error @ StoreError::HostIdInUse { .. }) if Instant::now() < until => {
                    tracing::warn!(%error, "waiting for the end of its lease");
                    tokio::time::sleep(BEAT).await;
                }
                done => return done,
            }
        }
    }

    /// Announces this host, and learns whether it shall take jobs.
    pub(super) async fn announce(&self) -> Result<(), StoreError> {
        if self.store.announce(&self.report(), self.place).await? > 0 {
            metrics::error("host id");
            tracing::error!(
                host.id = %self.host,
                "another orchestrator was started with this host's id and was refused; its \
                 `state_dir` is a copy of this one's"
            );
        }
        let hosts = self.store.hosts().await?;
        if let Some(own) = hosts.iter().find(|row| row.report.host == self.host) {
            let before = self.draining.swap(own.report.draining, Ordering::SeqCst);
            if before && !own.report.draining {
                self.wake.notify_one();
            }
        }
        Ok(())
    }

    /// The gauges that show the table of jobs.
    async fn measure(&self) {
        if let Ok(counts) = self.store.counts().await {
            metrics::jobs(&counts);
        }
        metrics::slots(self.used(), self.usable());
    }

    /// Writes what is only for people and statistics, beside the work.
    pub(super) async fn write_notes(&self, mut notes: mpsc::Receiver<Note>) {
        loop {
            let note = tokio::select! {
                Some(note) = notes.recv() => note,
                () = self.stop.cancelled() => return,
            };
            let written = match note {
                Note::All(waiting) => {
                    // Who waited may have lost patience.
                    _ = waiting.send(());
                    continue;
                }
                Note::Phase(job, lease, phase, took) => {
                    self.store.phase(job, lease, phase, took).await
                }
                Note::StepStarted(job, lease) => self.store.step_started(job, lease).await,
                Note::Booted(image, size, acceleration, took) => {
                    self.store.booted(&image, size, acceleration, took).await
                }
            };
            match written {
                // A job that is over or another host's has no more use for it.
                Ok(()) | Err(StoreError::LeaseLost { .. }) => {}
                Err(error) => tracing::debug!(%error, "a note is lost"),
            }
        }
    }

    /// Records which jobs' forge runners have everything.
    pub(super) async fn note_deliveries(&self) {
        let mut delivered = self.journals.delivered();
        loop {
            let job = tokio::select! {
                Some(job) = delivered.recv() => job,
                () = self.stop.cancelled() => return,
            };
            while let Err(error) = self.store.delivered(job).await {
                tracing::warn!(job.id = %job, %error, "cannot record a delivery; trying again");
                if self.stop.is_cancelled() {
                    return;
                }
                self.pause(BEAT).await;
            }
        }
    }
}

/// What a host says about itself.
pub(super) fn report(inner: &Inner) -> HostReport {
    HostReport {
        host: inner.host,
        name: inner.name.clone(),
        labels: inner.labels.clone(),
        capacity: inner.capacity,
        usable: inner.usable(),
        acceleration: inner.acceleration.clone(),
        load: load(),
        draining: false,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The load average of the last minute in hundredths, as far as the system tells.
fn load() -> u32 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|first| first.parse::<f64>().ok());
    first.map_or(0, |load| (load.clamp(0.0, 1e6) * 100.0) as u32)
}
