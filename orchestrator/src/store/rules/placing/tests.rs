use common::size::ByteSize;
use proptest::prelude::*;

use super::*;

fn size_of(cpus: u32) -> Size {
    Size { cpus, memory: ByteSize(u64::from(cpus) << 30) }
}

fn names(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

/// A host with labels of a number of processors each.
fn host(cpus: u32, used: u32, labels: &[(&str, u32)]) -> HostOffer {
    let labels = labels
        .iter()
        .map(|(label, cpus)| LabelOffer { label: (*label).to_owned(), size: size_of(*cpus) })
        .collect();
    HostOffer {
        host: HostId::new(),
        labels,
        capacity: size_of(cpus),
        usable: size_of(cpus),
        free: size_of(cpus - used),
    }
}

fn waiting(label: &str, count: u64) -> Waiting {
    let asked = MachineSize::default();
    Waiting { label: label.to_owned(), asked, only: None, count, starving: false }
}

fn held(labels: &[&str], count: u32) -> Held {
    Held { labels: names(labels), count }
}

fn granted(
    hosts: &[HostOffer],
    waiting: &[Waiting],
    held: &[Held],
    labels: &[&str],
    want: u32,
) -> u32 {
    grant(hosts.to_vec(), waiting, held, &names(labels), want).count
}

#[test]
fn what_is_free_and_not_promised_is_granted() {
    let hosts = [host(4, 1, &[("a", 1)]), host(4, 0, &[("a", 1)])];
    assert_eq!(granted(&hosts, &[], &[], &["a"], 100), 7);
    assert_eq!(granted(&hosts, &[], &[], &["a"], 3), 3);
    assert_eq!(granted(&hosts, &[waiting("a", 2)], &[], &["a"], 100), 5);
    assert_eq!(granted(&hosts, &[waiting("a", 2)], &[held(&["a"], 4)], &["a"], 100), 1);
    assert_eq!(granted(&hosts, &[waiting("a", 200)], &[], &["a"], 100), 0);
    assert_eq!(granted(&hosts, &[], &[held(&["a"], 8)], &["a"], 100), 0);
    assert_eq!(granted(&[], &[], &[], &["a"], 100), 0);
}

#[test]
fn counted_with_the_largest_of_the_labels() {
    let hosts = [host(8, 0, &[("small", 1), ("large", 4)])];
    assert_eq!(granted(&hosts, &[], &[], &["small"], 100), 8);
    assert_eq!(granted(&hosts, &[], &[], &["small", "large"], 100), 2);
    assert_eq!(granted(&hosts, &[], &[held(&["small", "large"], 1)], &["small"], 100), 4);
}

#[test]
fn room_in_pieces_is_not_room_for_a_large_machine() {
    let hosts = [host(4, 2, &[("a", 4)]), host(4, 2, &[("a", 4)])];
    assert_eq!(granted(&hosts, &[], &[], &["a"], 100), 0);
}

#[test]
fn labels_that_no_host_runs_are_left_out() {
    let hosts = [host(4, 0, &[("a", 1), ("huge", 8)])];
    let answer = grant(hosts.to_vec(), &[], &[], &names(&["plan9", "huge", "a", "a"]), 9);
    assert_eq!(answer, Grant { count: 4, labels: names(&["a"]) });
    let answer = grant(hosts.to_vec(), &[], &[], &names(&["plan9"]), 9);
    assert_eq!(answer, Grant { count: 0, labels: Vec::new() });
}

#[test]
fn a_label_that_is_full_now_stays_in_the_answer() {
    let hosts = [host(4, 4, &[("a", 1)])];
    let answer = grant(hosts.to_vec(), &[], &[], &names(&["a"]), 9);
    assert_eq!(answer, Grant { count: 0, labels: names(&["a"]) });
}

#[test]
fn all_jobs_may_carry_the_same_label() {
    // Only three can start if all are `b`, and only two if all are `a`.
    let hosts = [host(2, 0, &[("a", 1)]), host(3, 0, &[("b", 1)])];
    assert_eq!(granted(&hosts, &[], &[], &["a", "b"], 100), 2);
    // A host that runs both is used for both at once.
    let hosts = [host(2, 0, &[("a", 1)]), host(3, 0, &[("a", 1), ("b", 1)])];
    assert_eq!(granted(&hosts, &[], &[], &["a", "b"], 100), 3);
}

#[test]
fn what_is_promised_stays_promised_when_one_of_its_hosts_goes() {
    // `a` was on a host that has died since.
    let hosts = [host(3, 0, &[("b", 1)])];
    assert_eq!(granted(&hosts, &[], &[held(&["a", "b"], 2)], &["b"], 100), 1);
    // `a` is there, but full.
    let hosts = [host(3, 0, &[("b", 1)]), host(1, 1, &[("a", 1)])];
    assert_eq!(granted(&hosts, &[], &[held(&["a", "b"], 2)], &["b"], 100), 1);
}

#[test]
fn a_starving_job_keeps_the_hosts_that_could_run_it() {
    let hosts = [
        host(4, 2, &[("small", 1), ("large", 4)]),
        host(2, 0, &[("small", 1), ("large", 4)]),
        host(4, 0, &[("small", 1)]),
    ];
    let mut large = waiting("large", 1);
    assert_eq!(granted(&hosts, &[large.clone()], &[], &["small"], 100), 8);
    large.starving = true;
    assert_eq!(granted(&hosts, &[large], &[], &["small"], 100), 6);
}

#[test]
fn a_starving_job_does_not_close_a_host_that_other_programs_keep_from_it() {
    let mut shared = host(4, 0, &[("small", 1), ("large", 4)]);
    shared.usable = size_of(3);
    shared.free = size_of(3);
    let large = Waiting { starving: true, ..waiting("large", 1) };
    assert_eq!(granted(&[shared], &[large], &[], &["small"], 100), 3);
}

#[test]
fn a_job_of_one_host_takes_no_room_elsewhere() {
    let hosts = [host(2, 1, &[("a", 1)]), host(4, 0, &[("a", 1)])];
    let on = |index: usize| Waiting { only: Some(hosts[index].host), ..waiting("a", 3) };
    assert_eq!(granted(&hosts, &[on(0)], &[], &["a"], 100), 4);
    assert_eq!(granted(&hosts, &[on(1)], &[], &["a"], 100), 2);
    let starving = Waiting { starving: true, ..on(0) };
    assert_eq!(granted(&hosts, &[starving], &[], &["a"], 100), 4);
}

#[test]
fn a_job_that_is_larger_than_its_label_takes_what_it_asks_for() {
    let hosts = [host(8, 0, &[("a", 1)])];
    let mut kind = waiting("a", 1);
    kind.asked = MachineSize { cpus: Some(6), memory: None };
    assert_eq!(granted(&hosts, &[kind], &[], &["a"], 100), 2);
}

proptest! {
    /// Whoever asks in whatever order: all grants together and the waiting jobs fit on the hosts.
    #[test]
    fn never_more_than_there_is_room(
        cpus in prop::collection::vec((1u32..17, 1u32..4), 1..4),
        queue in 0u64..20,
        questions in prop::collection::vec((0u32..30, 0usize..3), 1..8),
    ) {
        let hosts: Vec<_> =
            cpus.iter().map(|(cpus, small)| host(*cpus, 0, &[("a", *small), ("b", 2)])).collect();
        let sets: [&[&str]; 3] = [&["a"], &["b"], &["a", "b"]];
        let queued = [waiting("a", queue)];
        let mut promised: Vec<Held> = Vec::new();
        for (want, set) in questions {
            let asked: Vec<String> = sets[set].iter().map(|label| (*label).to_owned()).collect();
            let Grant { count, labels } = grant(hosts.clone(), &queued, &promised, &asked, want);
            prop_assert!(count <= want);
            promised.push(Held { labels, count });
        }
        // Everything can be placed again, which is what a grant promises.
        let mut room = hosts.clone();
        place_waiting(&mut room, &queued);
        for held in &promised {
            for _ in 0..held.count {
                prop_assert!(place_unit(&mut room, &held.labels).whole);
            }
        }
        // And it never exceeds what the hosts have in all.
        let total: u32 = cpus.iter().map(|(cpus, _)| cpus).sum();
        prop_assert!(promised.iter().map(|held| held.count).sum::<u32>() <= total);
    }
}
