//! Finding many patterns in a stream of bytes in one pass, with patterns added on the way.

use std::ops::Range;

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;

/// Patterns are kept in automata whose sizes grow by this factor, so that adding ten thousand of
/// them one by one stays cheap.
const GROWTH: usize = 8;

/// A set of patterns.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Each pattern is in exactly one of these; later ones are smaller.
    parts: Vec<Part>,
    fresh: Vec<Vec<u8>>,
    /// Counts the rebuilds: a position of an older generation is brought up to date.
    generation: u64,
}

#[derive(Debug)]
struct Part {
    patterns: Vec<Vec<u8>>,
    automaton: NFA,
    start: StateID,
}

/// Where the scanner is in a stream.
#[derive(Debug, Default, Clone)]
pub(super) struct Position {
    generation: u64,
    states: Vec<StateID>,
}

impl Scanner {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.fresh.is_empty()
    }

    pub(super) fn add(&mut self, pattern: Vec<u8>) {
        self.fresh.push(pattern);
    }

    /// The parts of `text` that a pattern covers, sorted and merged. A pattern that began before
    /// `text` gives a range at 0 whose missing part is returned by [`Scanner::scan_with_reach`].
    pub(super) fn scan(&mut self, position: &mut Position, text: &[u8]) -> Vec<Range<usize>> {
        self.scan_with_reach(position, text).0
    }

    /// As [`Scanner::scan`]; beside the ranges, for each pattern that began before `text`, how many
    /// bytes before `text` it reaches back (the largest).
    pub(super) fn scan_with_reach(
        &mut self,
        position: &mut Position,
        text: &[u8],
    ) -> (Vec<Range<usize>>, usize) {
        self.refresh(position, b"");
        let mut ranges = Vec::new();
        let mut reach = 0;
        for (part, state) in self.parts.iter().zip(&mut position.states) {
            for (index, byte) in text.iter().enumerate() {
                *state = part.automaton.next_state(Anchored::No, *state, *byte);
                if part.automaton.is_special(*state) && part.automaton.is_match(*state) {
                    let length = part.longest_match(*state);
                    let end = index + 1;
                    reach = reach.max(length.saturating_sub(end));
                    ranges.push(end.saturating_sub(length)..end);
                }
            }
        }
        (merge(ranges), reach)
    }

    /// Brings a position up to date with patterns that were added since: `tail` is what stood before
    /// it in its stream, back to where no pattern had begun.
    pub(super) fn refresh(&mut self, position: &mut Position, tail: &[u8]) {
        self.absorb_fresh();
        if position.generation == self.generation {
            return;
        }
        position.generation = self.generation;
        position.states = self.parts.iter().map(|part| part.start).collect();
        for (part, state) in self.parts.iter().zip(&mut position.states) {
            for byte in tail {
                *state = part.automaton.next_state(Anchored::No, *state, *byte);
            }
        }
    }

    /// Whether a pattern has begun and may go on.
    pub(super) fn is_inside(&self, position: &Position) -> bool {
        position.generation == self.generation
            && self.parts.iter().zip(&position.states).any(|(part, state)| *state != part.start)
    }

    fn absorb_fresh(&mut self) {
        if self.fresh.is_empty() {
            return;
        }
        let mut patterns = std::mem::take(&mut self.fresh);
        while self.parts.last().is_some_and(|part| part.patterns.len() < GROWTH * patterns.len()) {
            let part = self.parts.pop().expect("the loop saw a last part");
            patterns.extend(part.patterns);
        }
        // Building fails only past 2^31 states: more bytes of patterns than a job may send.
        let automaton = NFA::new(&patterns).expect("the masks of a job fit in an automaton");
        let start = automaton.start_state(Anchored::No).expect("unanchored search is supported");
        self.parts.push(Part { patterns, automaton, start });
        self.generation += 1;
    }
}

impl Part {
    fn longest_match(&self, state: StateID) -> usize {
        // A state lists its own pattern first and then those that are ends of it.
        (0..self.automaton.match_len(state).min(1))
            .map(|index| self.automaton.pattern_len(self.automaton.match_pattern(state, index)))
            .max()
            .unwrap_or(0)
    }
}

/// Sorts ranges and joins those that overlap or touch.
fn merge(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}
