//! Which jobs no host can ever run.

use common::request::MachineSize;

use super::placing::HostOffer;
use super::room::{fits, size};

/// Labels that a reason names at most.
const NAMED: usize = 10;

/// Why no host can ever run a job with this label and size, as a sentence; nothing if one can, or
/// if there is no host at all. What is in use now does not matter.
pub(in crate::store) fn unrunnable(
    hosts: &[HostOffer],
    label: &str,
    asked: MachineSize,
) -> Option<String> {
    if hosts.is_empty() {
        return None;
    }
    let mut largest = None;
    let mut wanted = None;
    for host in hosts {
        let Some(offer) = host.offer(label) else { continue };
        let machine = size(asked, offer.size);
        if fits(machine, host.capacity) {
            return None;
        }
        wanted = wanted.or(Some(machine));
        largest = largest.max(Some((host.capacity.memory, host.capacity.cpus)));
    }
    let (Some(wanted), Some((memory, cpus))) = (wanted, largest) else {
        return Some(no_label(hosts, label));
    };
    Some(format!(
        "the machine for label `{label}` has {} processors and {} of memory, and the largest host \
         that runs this label has {cpus} and {memory}",
        wanted.cpus, wanted.memory,
    ))
}

fn no_label(hosts: &[HostOffer], label: &str) -> String {
    let offers = hosts.iter().flat_map(|host| &host.labels);
    let mut labels: Vec<&str> = offers.map(|offer| offer.label.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    let more = if labels.len() > NAMED { " and more" } else { "" };
    labels.truncate(NAMED);
    if labels.is_empty() {
        return format!("no host runs the label `{label}`; the hosts run no label at all");
    }
    format!("no host runs the label `{label}`; there is {}{more}", labels.join(", "))
}

#[cfg(test)]
mod tests {
    use common::ids::HostId;
    use common::size::ByteSize;

    use super::*;
    use crate::store::{LabelOffer, Size};

    const GIB: u64 = 1 << 30;

    fn host(cpus: u32, gib: u64, labels: &[&str]) -> HostOffer {
        let capacity = Size { cpus, memory: ByteSize(gib * GIB) };
        let default = Size { cpus: 2, memory: ByteSize(2 * GIB) };
        let labels = labels
            .iter()
            .map(|label| LabelOffer { label: (*label).to_owned(), size: default })
            .collect();
        HostOffer { host: HostId::new(), labels, capacity, usable: capacity, free: capacity }
    }

    fn asked(cpus: u32) -> MachineSize {
        MachineSize { cpus: Some(cpus), memory: None }
    }

    #[test]
    fn nothing_while_no_host_is_there() {
        assert_eq!(unrunnable(&[], "debian-12", MachineSize::default()), None);
    }

    #[test]
    fn a_job_waits_if_one_host_can_run_it_at_some_time() {
        let mut hosts = [host(2, 2, &["debian-12"]), host(8, 16, &["debian-12", "omnios"])];
        hosts[1].free = super::super::room::NONE;
        assert_eq!(unrunnable(&hosts, "debian-12", asked(8)), None);
        assert_eq!(unrunnable(&hosts, "omnios", MachineSize::default()), None);
    }

    #[test]
    fn the_reason_is_a_sentence() {
        let hosts = [host(2, 2, &["debian-12"]), host(8, 16, &["omnios"])];
        assert_eq!(
            unrunnable(&hosts, "plan9", MachineSize::default()).unwrap(),
            "no host runs the label `plan9`; there is debian-12, omnios"
        );
        assert_eq!(
            unrunnable(&hosts, "debian-12", asked(4)).unwrap(),
            "the machine for label `debian-12` has 4 processors and 2 GiB of memory, and the \
             largest host that runs this label has 2 and 2 GiB"
        );
        assert_eq!(
            unrunnable(&[host(1, 1, &[])], "x", asked(1)).unwrap(),
            "no host runs the label `x`; the hosts run no label at all"
        );
        let many: Vec<String> = (10..30).map(|number| format!("label-{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let reason = unrunnable(&[host(1, 1, &many)], "x", asked(1)).unwrap();
        assert!(reason.ends_with("label-19 and more"), "{reason}");
    }
}
