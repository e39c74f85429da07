//! Reads a catalogue's tables strictly, and says where something is wrong.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The file cannot be read.
    #[error("cannot read the image catalogue {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something that it must not.
    #[error("{file}:{line}:{column}: {message}")]
    Invalid {
        /// The file, or a name for the catalogue in the binary.
        file: String,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
}

/// One catalogue file and its text.
pub(super) struct CatalogueFile {
    pub(super) name: String,
    pub(super) text: String,
}

impl CatalogueFile {
    /// An error at a place of this file, given in bytes.
    pub(super) fn error(&self, span: &Range<usize>, message: impl fmt::Display) -> CatalogueError {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        let message = message.to_string();
        CatalogueError::Invalid { file: self.name.clone(), line, column, message }
    }

    /// The tables of the file.
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'_>>, CatalogueError> {
        DeTable::parse(&self.text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            self.error(&span, error.message().trim())
        })
    }
}

/// The same table in several files: a key is taken from the first that has it.
#[derive(Clone)]
pub(super) struct Layers<'a> {
    name: String,
    layers: Vec<Layer<'a>>,
    /// How many of them are not of another table that this one is like.
    own: usize,
}

#[derive(Clone)]
struct Layer<'a> {
    file: &'a CatalogueFile,
    span: Range<usize>,
    table: &'a DeTable<'a>,
}

/// A value and where it stands.
pub(super) struct Placed<'a, T> {
    pub(super) value: T,
    file: &'a CatalogueFile,
    span: Range<usize>,
}

impl<'a> Layers<'a> {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), layers: Vec::new(), own: 0 }
    }

    /// Adds the table of a file that counts less than those before it.
    pub(super) fn push(
        &mut self,
        file: &'a CatalogueFile,
        key: &Range<usize>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Result<(), CatalogueError> {
        let DeValue::Table(table) = value.get_ref() else {
            let found = value.get_ref().type_str();
            return Err(file.error(key, format!("{} is a table, not {found}", self.name)));
        };
        self.layers.push(Layer { file, span: key.clone(), table });
        self.own = self.layers.len();
        Ok(())
    }

    /// Takes what this table does not say from another.
    pub(super) fn be_like(&mut self, other: &Self) {
        self.layers.extend(other.layers.iter().cloned());
    }

    /// What this table says itself.
    pub(super) fn own(&self) -> Self {
        let layers = self.layers[..self.own].to_vec();
        Self { name: self.name.clone(), layers, own: self.own }
    }

    /// The layers from the first to the first that has one of the keys; all if none has.
    pub(super) fn down_to(&self, keys: &[&str]) -> Layers<'a> {
        let has = |layer: &Layer<'_>| keys.iter().any(|key| layer.table.contains_key(*key));
        let end = self.layers.iter().position(has).map_or(self.layers.len(), |at| at + 1);
        let layers = self.layers[..end].to_vec();
        Layers { name: self.name.clone(), own: self.own.min(end), layers }
    }

    /// An error about the table as a whole.
    pub(super) fn error(&self, message: impl fmt::Display) -> CatalogueError {
        let layer = self.layers.first().expect("a table is read because a file has it");
        layer.file.error(&layer.span, message)
    }

    fn find(&self, key: &'static str) -> Option<(&Layer<'a>, Range<usize>, &'a DeValue<'a>)> {
        self.layers.iter().find_map(|layer| {
            layer.table.get(key).map(|value| (layer, value.span(), value.get_ref()))
        })
    }

    fn typed<T>(
        &self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Result<Option<Placed<'a, T>>, CatalogueError> {
        let Some((layer, span, value)) = self.find(key) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(Placed { value, file: layer.file, span })),
            None => {
                let found = value.type_str();
                Err(layer.file.error(&span, format!("`{key}` is {expected}, not {found}")))
            }
        }
    }

    /// A text, if the key is there.
    pub(super) fn text(
        &self,
        key: &'static str,
    ) -> Result<Option<Placed<'a, &'a str>>, CatalogueError> {
        self.typed(key, "a text", DeValue::as_str)
    }

    /// A truth value, if the key is there.
    pub(super) fn flag(
        &self,
        key: &'static str,
    ) -> Result<Option<Placed<'a, bool>>, CatalogueError> {
        self.typed(key, "true or false", DeValue::as_bool)
    }

    /// A whole number of at least 0, if the key is there.
    pub(super) fn number(
        &self,
        key: &'static str,
    ) -> Result<Option<Placed<'a, u64>>, CatalogueError> {
        self.typed(key, "a whole number", |value| {
            let number = value.as_integer()?;
            u64::from_str_radix(number.as_str(), number.radix()).ok()
        })
    }

    /// A list of texts; empty if the key is not there.
    pub(super) fn texts(
        &self,
        key: &'static str,
    ) -> Result<Vec<Placed<'a, &'a str>>, CatalogueError> {
        let Some(list) = self.typed(key, "a list of texts", DeValue::as_array)? else {
            return Ok(Vec::new());
        };
        list.value
            .iter()
            .map(|item| match item.get_ref().as_str() {
                Some(value) => Ok(Placed { value, file: list.file, span: item.span() }),
                None => {
                    let found = item.get_ref().type_str();
                    Err(list
                        .file
                        .error(&item.span(), format!("`{key}` is a list of texts, not of {found}")))
                }
            })
            .collect()
    }

    /// The table under a key, from all layers that have it; `None` if none has.
    pub(super) fn table(&self, key: &'static str) -> Result<Option<Layers<'a>>, CatalogueError> {
        let mut inner = Layers::new(format!("`{key}` of {}", self.name));
        for layer in &self.layers {
            if let Some((name, value)) = layer.table.get_key_value(key) {
                inner.push(layer.file, &name.span(), value)?;
            }
        }
        Ok(if inner.layers.is_empty() { None } else { Some(inner) })
    }

    /// The value that the table must have.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        value: Option<T>,
    ) -> Result<T, CatalogueError> {
        value.ok_or_else(|| self.error(format!("{} has no `{key}`", self.name)))
    }

    /// Refuses all keys but these.
    pub(super) fn allow(&self, known: &[&str]) -> Result<(), CatalogueError> {
        for layer in &self.layers {
            for key in layer.table.keys() {
                let name = key.get_ref().as_ref();
                if !known.contains(&name) {
                    let message = format!(
                        "{} has no key `{name}`{}",
                        self.name,
                        offer(name, known.iter().copied())
                    );
                    return Err(layer.file.error(&key.span(), message));
                }
            }
        }
        Ok(())
    }
}

impl<'a, T> Placed<'a, T> {
    /// An error at this value.
    pub(super) fn error(&self, message: impl fmt::Display) -> CatalogueError {
        self.file.error(&self.span, message)
    }

    /// The value, or an error at it that says what was expected.
    pub(super) fn check(
        self,
        fits: impl FnOnce(&T) -> bool,
        message: impl fmt::Display,
    ) -> Result<T, CatalogueError> {
        if fits(&self.value) { Ok(self.value) } else { Err(self.error(message)) }
    }
}

impl Placed<'_, &str> {
    /// What the text stands for, or its type's error at this place.
    pub(super) fn parse<T: FromStr<Err: fmt::Display>>(&self) -> Result<T, CatalogueError> {
        self.value.parse().map_err(|error| self.error(error))
    }

    /// What the text stands for, out of a list of names.
    pub(super) fn one_of<T: Copy>(
        &self,
        what: &str,
        choices: &[(&str, T)],
    ) -> Result<T, CatalogueError> {
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == self.value) {
            return Ok(*choice);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
        Err(self.error(format!(
            "{:?} is no {what}; known are {}{}",
            self.value,
            names.join(", "),
            offer(self.value, choices.iter().map(|(name, _)| *name))
        )))
    }
}

/// The least likeness at which one name is offered for another.
const LIKENESS: f64 = 0.6;

/// The end of a message about a wrong name.
fn offer<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    nearest(name, names).map_or(String::new(), |nearest| format!("; the nearest is `{nearest}`"))
}

/// The name most like the given one, if any is like it at all.
pub(super) fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let name = name.to_ascii_lowercase();
    names
        .into_iter()
        .map(|other| {
            (strsim::normalized_damerau_levenshtein(&name, &other.to_ascii_lowercase()), other)
        })
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}
