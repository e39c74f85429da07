//! Which waiting jobs this host starts, and when.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use common::size::ByteSize;
use vm_manager::host::{Capacity, CapacityLimits, HostError, Share};
use vm_manager::image::UnknownLabel;

use super::Inner;
use crate::machines::Machines;
use crate::metrics;
use crate::store::{Claimed, LabelOffer, Room, Size};

/// How often the table is looked at when nobody says that it changed: another host may have ended
/// without a word, or a starving job may be due.
const LOOK: Duration = Duration::from_secs(5);
/// The shortest time between two looks, so that a host with a full table does nothing else.
const PAUSE: Duration = Duration::from_millis(500);
/// Jobs that are taken at once.
const MOST: u32 = 64;

impl Inner {
    /// Starts jobs until the service ends.
    pub(super) async fn schedule(self: &Arc<Self>) {
        while !self.stop.is_cancelled() {
            let mut took = 0;
            if !self.is_draining() {
                let taking = self.hands.taking().await;
                match self.claim().await {
                    Ok(claimed) => {
                        took = claimed.len();
                        for claimed in claimed {
                            self.start_claimed(claimed);
                        }
                        drop(taking);
                    }
                    Err(error) => {
                        drop(taking);
                        metrics::error("store");
                        tracing::warn!(%error, "cannot look for jobs; trying again");
                        self.pause(PAUSE).await;
                    }
                }
            }
            // There may be more than were taken at once.
            if took < MOST as usize {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = self.store.changed() => {}
                    () = tokio::time::sleep(LOOK) => {}
                    () = self.stop.cancelled() => {}
                }
            }
        }
    }

    async fn claim(&self) -> Result<Vec<Claimed>, crate::store::StoreError> {
        let room = self.room();
        if room.free.cpus == 0 || room.free.memory == ByteSize(0) {
            return Ok(Vec::new());
        }
        self.store.claim(self.host, room, &self.labels, MOST).await
    }

    /// What this host has free for machines now.
    pub(super) fn room(&self) -> Room {
        let (used, usable) = (self.used(), self.usable());
        let free = Size {
            cpus: usable.cpus.saturating_sub(used.cpus),
            memory: ByteSize(usable.memory.0.saturating_sub(used.memory.0)),
        };
        Room { free, capacity: usable }
    }

    /// What the machines of this service may use together, as it was seen last.
    pub(super) fn usable(&self) -> Size {
        *self.usable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what else runs on this host. Says whether more is usable than before.
    pub(super) async fn look_at_host(&self) -> bool {
        let seen = match self.machines.instance().await {
            // A file is locked, and processes are looked at.
            Ok(instance) => {
                let look = move || Ok((instance.share()?, instance.running()?));
                tokio::task::spawn_blocking(look).await
            }
            Err(error) => Ok(Err(error)),
        };
        let usable = match seen {
            Ok(Ok((share, running))) => {
                metrics::machines(running);
                guests(share, &self.labels)
            }
            Ok(Err(error)) => {
                metrics::error("host");
                tracing::warn!(%error, "cannot see what else runs on this host");
                return false;
            }
            // The process ends.
            Err(_) => return false,
        };
        let mut known = self.usable.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *known, usable);
        usable.cpus > before.cpus || usable.memory > before.memory
    }

    /// What the machines of this service use.
    pub(super) fn used(&self) -> Size {
        let workers = self.workers();
        let settled = self.hands.sizes(|job| workers.contains_key(&job));
        let sizes = workers.values().map(|worker| worker.size).chain(settled);
        sizes.fold(Size { cpus: 0, memory: ByteSize(0) }, |sum, size| Size {
            cpus: sum.cpus.saturating_add(size.cpus),
            memory: ByteSize(sum.memory.0.saturating_add(size.memory.0)),
        })
    }

    /// What this host offers under a label.
    pub(super) fn offer(&self, label: &str) -> Option<&LabelOffer> {
        self.labels.iter().find(|offer| offer.label == label)
    }
}

/// What a host offers: every image of its catalogue with its aliases, or those that were chosen.
pub(super) fn offers(
    machines: &Machines,
    chosen: Option<&[String]>,
) -> Result<Vec<LabelOffer>, UnknownLabel> {
    let names: BTreeSet<String> = match chosen {
        Some(chosen) => chosen.iter().cloned().collect(),
        None => machines.catalogue().labels(),
    };
    let offer = |label: String| {
        let entry = machines.image(&label)?;
        Ok(LabelOffer { label, size: Size { cpus: entry.cpus, memory: entry.memory } })
    };
    names.into_iter().map(offer).collect()
}

/// What machines of the service may ever use together.
pub(super) fn capacity(limits: &CapacityLimits, labels: &[LabelOffer]) -> Result<Size, HostError> {
    let host = Capacity::within(limits).map_err(|source| HostError::Io {
        action: "read",
        path: Path::new("/proc/meminfo").to_owned(),
        source,
    })?;
    Ok(guests(Share { memory: host.memory, cpus: host.cpus }, labels))
}

/// What guests may have of it: each of them needs a QEMU as well.
fn guests(share: Share, labels: &[LabelOffer]) -> Size {
    let least = labels.iter().map(|offer| offer.size.memory).min();
    Size { cpus: share.cpus, memory: share.for_guests(least.unwrap_or(ByteSize(0))) }
}
