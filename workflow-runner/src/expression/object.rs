//! Mappings: keys in order, found without regard to case.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Value, text};

/// Mappings up to this size are searched from front to back; larger ones have an index.
const LINEAR_ENTRIES: usize = 8;

/// A mapping: keys in order, looked up without regard to case unless it was made by
/// [`Object::case_sensitive`].
///
/// A key that is set again keeps its place and its first spelling, and has the later value.
#[derive(Clone, Debug, Default)]
pub struct Object {
    entries: Vec<(Arc<str>, Value)>,
    /// From the key as it is compared to its place; empty while there are few entries.
    index: HashMap<Box<str>, usize>,
    case_sensitive: bool,
}

impl Object {
    /// An empty mapping whose keys are looked up without regard to case.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty mapping whose keys are looked up as they are written: a dictionary of type 5
    /// (github-runner-protocol 5.4), and the `env` context of systems whose environment is so.
    #[must_use]
    pub fn case_sensitive() -> Self {
        Self { case_sensitive: true, ..Self::default() }
    }

    /// The value of this key.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.position(name).map(|position| &self.entries[position].1)
    }

    /// Whether there is a value of this key.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// Sets a key and gives the value that it had.
    pub fn insert(&mut self, name: impl Into<Arc<str>>, value: Value) -> Option<Value> {
        let name = name.into();
        if let Some(position) = self.position(&name) {
            return Some(std::mem::replace(&mut self.entries[position].1, value));
        }
        self.entries.push((name, value));
        if self.entries.len() > LINEAR_ENTRIES {
            // The first time, this also takes in those that were searched linearly.
            for position in self.index.len()..self.entries.len() {
                let key = self.key(&self.entries[position].0);
                self.index.insert(key, position);
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

    fn position(&self, name: &str) -> Option<usize> {
        if self.index.is_empty() {
            return self.entries.iter().position(|(key, _)| {
                if self.case_sensitive { **key == *name } else { text::equal(key, name) }
            });
        }
        if self.case_sensitive {
            return self.index.get(name).copied();
        }
        self.index.get(&*text::fold(name)).copied()
    }

    /// The key as the index has it.
    fn key(&self, name: &str) -> Box<str> {
        if self.case_sensitive { Box::from(name) } else { text::fold(name).into_boxed_str() }
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
