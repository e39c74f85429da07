//! How many jobs can start now: the arithmetic of reservations.
//!
//! Everything that has a claim on the free room is placed on it first, in this order: jobs that
//! have waited too long, other waiting jobs, and what reservations still hold. What then still fits
//! is granted. Placing is greedy; where it is wrong, a job waits that could have started, or one
//! that was promised a start waits for its turn.

use common::ids::HostId;
use common::request::MachineSize;

use super::room::{NONE, fits, larger, less, size};
use crate::store::{LabelOffer, Size};

/// What a live host offers.
#[derive(Clone, Debug)]
pub(in crate::store) struct HostOffer {
    pub(in crate::store) host: HostId,
    pub(in crate::store) labels: Vec<LabelOffer>,
    pub(in crate::store) capacity: Size,
    /// What of that other programs leave to its jobs now.
    pub(in crate::store) usable: Size,
    /// What its jobs leave of that.
    pub(in crate::store) free: Size,
}

/// Waiting jobs of one kind.
#[derive(Clone, Debug)]
pub(in crate::store) struct Waiting {
    pub(in crate::store) label: String,
    pub(in crate::store) asked: MachineSize,
    /// The only host that may run them; `None` for any.
    pub(in crate::store) only: Option<HostId>,
    pub(in crate::store) count: u64,
    /// Whether they have waited so long that others must wait for them.
    pub(in crate::store) starving: bool,
}

/// What a reservation still holds: so many jobs, each with any of the labels.
#[derive(Clone, Debug)]
pub(in crate::store) struct Held {
    pub(in crate::store) labels: Vec<String>,
    pub(in crate::store) count: u32,
}

/// The answer to who asks for a reservation.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct Grant {
    pub(in crate::store) count: u32,
    /// The labels of the question that a host can run.
    pub(in crate::store) labels: Vec<String>,
}

/// The most jobs of one reservation.
pub(in crate::store) const MOST: u32 = 10_000;

impl HostOffer {
    pub(in crate::store) fn offer(&self, label: &str) -> Option<&LabelOffer> {
        self.labels.iter().find(|offer| offer.label == label)
    }

    /// The size of a machine for a job with this label, if it can ever run here.
    fn machine(&self, label: &str, asked: MachineSize) -> Option<Size> {
        let machine = size(asked, self.offer(label)?.size);
        fits(machine, self.capacity).then_some(machine)
    }
}

impl Waiting {
    /// The size of their machine on a host that can ever run them.
    fn machine(&self, host: &HostOffer) -> Option<Size> {
        let may_run = self.only.is_none_or(|only| only == host.host);
        may_run.then(|| host.machine(&self.label, self.asked)).flatten()
    }
}

/// Grants at most `want` jobs. `hosts` are those that are alive and take new jobs.
pub(in crate::store) fn grant(
    mut hosts: Vec<HostOffer>,
    waiting: &[Waiting],
    held: &[Held],
    labels: &[String],
    want: u32,
) -> Grant {
    place_waiting(&mut hosts, waiting);
    for held in held {
        for _ in 0..held.count {
            // Where there is no room for one of the labels, the others are still promised.
            if place_unit(&mut hosts, &held.labels).taken.is_empty() {
                break;
            }
        }
    }

    let runnable = |label: &String| {
        hosts.iter().any(|host| host.machine(label, MachineSize::default()).is_some())
    };
    let mut labels: Vec<String> = labels.iter().filter(|label| runnable(label)).cloned().collect();
    labels.sort_unstable();
    labels.dedup();
    let mut count = 0;
    while count < want.min(MOST) && !labels.is_empty() && place_unit(&mut hosts, &labels).whole {
        count += 1;
    }
    Grant { count, labels }
}

fn place_waiting(hosts: &mut [HostOffer], waiting: &[Waiting]) {
    let (starving, others): (Vec<_>, Vec<_>) = waiting.iter().partition(|kind| kind.starving);
    for kind in starving {
        if place_kind(hosts, kind) < kind.count {
            // Every host that its own jobs keep from running it waits until it has room for it.
            for host in hosts.iter_mut() {
                let machine = kind.machine(host);
                if machine.is_some_and(|machine| fits(machine, host.usable)) {
                    host.free = NONE;
                }
            }
        }
    }
    for kind in others {
        place_kind(hosts, kind);
    }
}

/// Places as many jobs of one kind as fit; their number.
fn place_kind(hosts: &mut [HostOffer], kind: &Waiting) -> u64 {
    let mut placed = 0;
    for host in hosts {
        let Some(machine) = kind.machine(host) else { continue };
        while placed < kind.count && fits(machine, host.free) {
            host.free = less(host.free, machine);
            placed += 1;
        }
    }
    placed
}

/// What became of one job with any of some labels.
struct Placed {
    /// The hosts on which it takes room.
    taken: Vec<usize>,
    /// Whether there is room for it whichever label it has.
    whole: bool,
}

/// Places one job that may carry any of the labels, with the largest machine that one of them has.
/// Where no host runs all labels, it takes room for each on some host, the fewest hosts that do.
fn place_unit(hosts: &mut [HostOffer], labels: &[String]) -> Placed {
    let mut open: Vec<&String> = labels.iter().collect();
    let mut taken: Vec<usize> = Vec::new();
    while !open.is_empty() {
        let fitting = hosts.iter().enumerate().filter_map(|(index, host)| {
            let (machine, covered) = largest(host, &open)?;
            let free = !taken.contains(&index) && fits(machine, host.free);
            free.then_some((covered, index, machine))
        });
        // The first of those that run the most labels.
        let best = fitting.max_by_key(|(covered, index, _)| (*covered, std::cmp::Reverse(*index)));
        let Some((_, index, machine)) = best else { break };
        let host = &mut hosts[index];
        open.retain(|label| host.machine(label, MachineSize::default()).is_none());
        host.free = less(host.free, machine);
        taken.push(index);
    }
    Placed { taken, whole: open.is_empty() }
}

/// The largest machine that a host has for these labels, and how many of them it runs.
fn largest(host: &HostOffer, labels: &[&String]) -> Option<(Size, usize)> {
    let machines = labels.iter().filter_map(|label| host.machine(label, MachineSize::default()));
    machines.fold(None, |sum, machine| match sum {
        None => Some((machine, 1)),
        Some((largest, count)) => Some((larger(largest, machine), count + 1)),
    })
}

#[cfg(test)]
mod tests;
