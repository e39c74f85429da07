//! Mappings: keys in order, found without regard to case.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Value, text};

/// Mappings up to this size are searched from front to back; larger ones have an index.
const LINEAR_ENTRIES: usize = 8;

/// A mapping: keys in order, looked up without regard to case unless it was made otherwise.
///
/// A key that is set again keeps its place and its first spelling, and has the later value.
#[derive(Clone, Debug, Default)]
pub struct Object {
    keys: Keys,
    entries: Vec<(Arc<str>, Value)>,
    /// Absent while there are few entries.
    index: Option<Box<Index>>,
}

/// Which keys are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Keys {
    /// Those that differ in case only.
    #[default]
    Folded,
    /// Those that are written alike.
    Exact,
    /// Those that are written alike, but a key that is not there as written is looked up without
    /// regard to case.
    Apart,
}

/// Where the keys stand.
#[derive(Clone, Debug, Default)]
struct Index {
    /// By spelling; empty where that does not matter.
    exact: HashMap<Box<str>, usize>,
    /// By folded spelling, the first of several; empty where case matters.
    folded: HashMap<Box<str>, usize>,
}

impl Object {
    /// An empty mapping in which keys that differ only in case are the same.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty mapping whose keys are looked up as they are written: a dictionary of type 5
    /// (github-runner-protocol 5.4), and the `env` context of systems whose environment is so.
    #[must_use]
    pub fn case_sensitive() -> Self {
        Self { keys: Keys::Exact, ..Self::default() }
    }

    /// An empty mapping that keeps keys apart that differ in case, and looks up without regard to
    /// case what is not there as written: a mapping of a workflow, where `http_proxy` and
    /// `HTTP_PROXY` may both stand.
    #[must_use]
    pub fn keeping_spellings() -> Self {
        Self { keys: Keys::Apart, ..Self::default() }
    }

    /// The value of this key.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let found = match self.keys {
            Keys::Exact => self.exact(name),
            Keys::Folded => self.folded(name),
            Keys::Apart => self.exact(name).or_else(|| self.folded(name)),
        };
        found.map(|position| &self.entries[position].1)
    }

    /// Whether there is a value of this key.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Sets a key and gives the value that it had.
    pub fn insert(&mut self, name: impl Into<Arc<str>>, value: Value) -> Option<Value> {
        let name = name.into();
        let same = match self.keys {
            Keys::Folded => self.folded(&name),
            Keys::Exact | Keys::Apart => self.exact(&name),
        };
        if let Some(position) = same {
            return Some(std::mem::replace(&mut self.entries[position].1, value));
        }
        self.entries.push((name, value));
        if self.entries.len() > LINEAR_ENTRIES {
            // The first time, this also takes in those that were searched from front to back.
            let known = if self.index.is_some() { self.entries.len() - 1 } else { 0 };
            let index = self.index.get_or_insert_default();
            for (position, (name, _)) in self.entries.iter().enumerate().skip(known) {
                if self.keys != Keys::Folded {
                    index.exact.insert(Box::from(&**name), position);
                }
                if self.keys != Keys::Exact {
                    index.folded.entry(text::fold(name).into()).or_insert(position);
                }
            }
        }
        None
    }

    /// The keys and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(name, value)| (&**name, value))
    }

    /// The values in order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Value> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// The number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn exact(&self, name: &str) -> Option<usize> {
        match &self.index {
            Some(index) => index.exact.get(name).copied(),
            None => self.entries.iter().position(|(key, _)| **key == *name),
        }
    }

    fn folded(&self, name: &str) -> Option<usize> {
        match &self.index {
            Some(index) => index.folded.get(&*text::fold(name)).copied(),
            None => self.entries.iter().position(|(key, _)| text::equal(key, name)),
        }
    }
}

impl<K: Into<Arc<str>>> Extend<(K, Value)> for Object {
    fn extend<T: IntoIterator<Item = (K, Value)>>(&mut self, pairs: T) {
        for (name, value) in pairs {
            self.insert(name, value);
        }
    }
}

impl<K: Into<Arc<str>>> FromIterator<(K, Value)> for Object {
    fn from_iter<T: IntoIterator<Item = (K, Value)>>(pairs: T) -> Self {
        let mut object = Self::new();
        object.extend(pairs);
        object
    }
}
