//! Environment variables in the order in which they were first set.

use std::collections::HashMap;

/// Names and values; setting a name again keeps its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    entries: Vec<(String, String)>,
    index: HashMap<String, usize>,
}

impl Variables {
    /// Sets a variable.
    pub(super) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        if let Some(&place) = self.index.get(&name) {
            self.entries[place].1 = value;
        } else {
            self.index.insert(name.clone(), self.entries.len());
            self.entries.push((name, value));
        }
    }

    /// Sets all of these.
    pub(super) fn extend<'a>(&mut self, others: impl IntoIterator<Item = (&'a str, &'a str)>) {
        for (name, value) in others {
            self.set(name, value);
        }
    }

    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|&place| self.entries[place].1.as_str())
    }

    /// Names and values in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all names and values.
    pub(super) fn bytes(&self) -> usize {
        self.entries.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Takes the pairs out.
    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.entries
    }
}
