//! What remembered boots say about the next.

use std::time::Duration;

use crate::store::BootTimes;

/// Count, median and longest; nothing if there was no boot.
pub(in crate::store) fn summary(mut times: Vec<Duration>) -> Option<BootTimes> {
    times.sort_unstable();
    let longest = *times.last()?;
    let middle = times.len() / 2;
    let median = if times.len().is_multiple_of(2) {
        (times[middle - 1] + times[middle]) / 2
    } else {
        times[middle]
    };
    let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
    Some(BootTimes { count, median, longest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let seconds = |all: &[u64]| summary(all.iter().copied().map(Duration::from_secs).collect());
        assert_eq!(seconds(&[]), None);
        for (times, median, longest) in
            [(vec![4], 4, 4), (vec![9, 1], 5, 9), (vec![3, 9, 1], 3, 9), (vec![1, 2, 4, 50], 3, 50)]
        {
            let found = seconds(&times).unwrap();
            let count = u32::try_from(times.len()).unwrap();
            let (median, longest) = (Duration::from_secs(median), Duration::from_secs(longest));
            assert_eq!(found, BootTimes { count, median, longest }, "{times:?}");
        }
    }
}
