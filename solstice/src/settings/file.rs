//! Values as they were given, each with its place.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::limits::MIB;
use common::size::ByteSize;
use toml::de::{DeTable, DeValue};

use crate::exit::CommandError;

/// A settings file. A larger one is refused.
const FILE_BYTES: u64 = MIB;

/// A value that a key was given.
pub(super) struct Given {
    pub(super) key: String,
    /// `solstice.toml:3:1`, or the name of the variable.
    pub(super) place: String,
    value: Value,
    /// Relative paths start here.
    base: PathBuf,
}

enum Value {
    Text(String),
    List(Vec<String>),
    Integer(u64),
    Bool(bool),
    Table(Vec<Given>),
    /// What it is instead.
    Other(&'static str),
}

impl Given {
    /// The value of an environment variable; lists are separated by colons.
    pub(super) fn from_variable(
        name: &str,
        value: &OsStr,
        base: &Path,
    ) -> Result<Self, CommandError> {
        let text = value
            .to_str()
            .ok_or_else(|| CommandError::usage(format!("{name}: the value is not UTF-8")))?;
        Ok(Self {
            key: name.to_owned(),
            place: name.to_owned(),
            value: Value::Text(text.to_owned()),
            base: base.to_path_buf(),
        })
    }

    /// The same for a key.
    pub(super) fn of_key(self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self }
    }

    pub(super) fn text(&self) -> Result<&str, String> {
        match &self.value {
            Value::Text(text) if text.is_empty() => Err("the value is empty".to_owned()),
            Value::Text(text) => Ok(text),
            other => Err(format!("expected a text, found {}", other.kind())),
        }
    }

    pub(super) fn path(&self) -> Result<PathBuf, String> {
        Ok(self.base.join(self.text()?))
    }

    /// A path, or a bare name that is looked up in `PATH` later.
    pub(super) fn program(&self) -> Result<PathBuf, String> {
        let text = self.text()?;
        if text.contains('/') { self.path() } else { Ok(PathBuf::from(text)) }
    }

    pub(super) fn paths(&self) -> Result<Vec<PathBuf>, String> {
        match &self.value {
            Value::Text(text) => {
                let parts = text.split(':').filter(|part| !part.is_empty());
                Ok(parts.map(|part| self.base.join(part)).collect())
            }
            Value::List(items) => Ok(items.iter().map(|item| self.base.join(item)).collect()),
            other => Err(format!("expected a list of texts, found {}", other.kind())),
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self) -> Result<Vec<String>, String> {
        self.texts_by(':')
    }

    /// A list of texts, which a variable separates by this character.
    pub(super) fn texts_by(&self, separator: char) -> Result<Vec<String>, String> {
        match &self.value {
            Value::Text(text) => {
                let parts = text.split(separator).filter(|part| !part.is_empty());
                Ok(parts.map(str::to_owned).collect())
            }
            Value::List(items) => Ok(items.clone()),
            other => Err(format!("expected a list of texts, found {}", other.kind())),
        }
    }

    /// A number from 1 to `most`.
    pub(super) fn number(&self, most: u32) -> Result<u32, String> {
        let number = match &self.value {
            Value::Integer(number) => Some(*number),
            Value::Text(_) => self.text()?.parse().ok(),
            other => {
                return Err(format!("expected a number from 1 to {most}, found {}", other.kind()));
            }
        };
        number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (1..=most).contains(number))
            .ok_or_else(|| format!("expected a number from 1 to {most}"))
    }

    /// A length of time between two others.
    pub(super) fn time(&self, least: Duration, most: Duration) -> Result<Duration, String> {
        let text = match &self.value {
            Value::Text(_) => self.text()?,
            other => {
                let kind = other.kind();
                return Err(format!("expected a time such as \"90s\" or \"3h\", found {kind}"));
            }
        };
        let time = humantime::parse_duration(text)
            .map_err(|_| format!("{text:?} is not a time such as 500ms, 90s, 30m or 3h"))?;
        if (least..=most).contains(&time) {
            return Ok(time);
        }
        let shown = humantime::format_duration;
        Err(format!("expected a time from {} to {}", shown(least), shown(most)))
    }

    pub(super) fn boolean(&self) -> Result<bool, String> {
        match &self.value {
            Value::Bool(value) => Ok(*value),
            Value::Text(text) if text == "true" => Ok(true),
            Value::Text(text) if text == "false" => Ok(false),
            Value::Text(text) => Err(format!("{text:?} is neither true nor false")),
            other => Err(format!("expected true or false, found {}", other.kind())),
        }
    }

    /// What a table holds, in the order of the file.
    pub(super) fn table(&self) -> Result<&[Given], String> {
        match &self.value {
            Value::Table(entries) => Ok(entries),
            other => Err(format!("expected a table, found {}", other.kind())),
        }
    }

    pub(super) fn size(&self) -> Result<ByteSize, String> {
        match &self.value {
            Value::Integer(bytes) => Ok(ByteSize(*bytes)),
            Value::Text(_) => self
                .text()?
                .parse()
                .map_err(|error: common::size::ParseByteSizeError| error.to_string()),
            other => Err(format!(
                "expected a number with an optional K, M, G or T, such as 512M or 2G, found {}",
                other.kind()
            )),
        }
    }
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Integer(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// The text of a settings file; `None` if it need not exist and does not.
pub(super) fn read(path: &Path, required: bool) -> Result<Option<String>, CommandError> {
    let cannot = |what: String| {
        CommandError::usage(format!("cannot read the settings file {}: {what}", path.display()))
    };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_BYTES => {
            return Err(cannot(format!("it has over {FILE_BYTES} bytes")));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
            return Ok(None);
        }
        _ => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(|error| cannot(error.to_string()))
}

/// The keys and values of a settings file, in its order.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Given>, CommandError> {
    let place = |offset: usize| {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        format!("{}:{line}:{column}", path.display())
    };
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        CommandError::usage(format!("{}: {}", place(offset), error.message()))
    })?;
    let base = path.parent().unwrap_or(Path::new("/"));
    Ok(entries(table.get_ref(), base, &place))
}

/// The keys and values of a table, in the order of the file.
fn entries(table: &DeTable<'_>, base: &Path, place: &dyn Fn(usize) -> String) -> Vec<Given> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let given = entries.into_iter().map(|(key, value)| Given {
        key: key.get_ref().to_string(),
        place: place(key.span().start),
        value: match value.get_ref() {
            DeValue::Table(table) => Value::Table(self::entries(table, base, place)),
            other => self::value(other),
        },
        base: base.to_path_buf(),
    });
    given.collect()
}

fn value(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) if number.as_str().starts_with('-') => Value::Other("a negative number"),
            Err(_) => Value::Other("a number that is too large"),
        },
        DeValue::Array(items) => {
            let texts: Option<Vec<String>> =
                items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
            texts.map_or(Value::Other("a list with something that is not a text"), Value::List)
        }
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Table(_) => Value::Table(Vec::new()),
    }
}
