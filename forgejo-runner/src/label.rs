//! Labels as a runner declares them: a name for `runs-on`, and what it stands for here.

use std::fmt;
use std::str::FromStr;

use common::limits::{GIB, MIB};
use common::request::MachineSize;
use common::size::ByteSize;

/// A label, written `NAME`, `NAME:vm://IMAGE` or `NAME:vm://IMAGE?cpus=4&memory=8G`.
///
/// Servers see the name only (forgejo-runner-protocol 7.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// What a job's `runs-on` says.
    pub name: String,
    /// The label of the image in the catalogue.
    pub image: String,
    /// The machine's size where it differs from the image's default.
    pub size: MachineSize,
}

/// Why a text is not a [`Label`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// It has no name, or one with blanks around it.
    #[error("{0:?} has no name: write NAME or NAME:vm://IMAGE")]
    Name(String),
    /// It is for a runner of another kind.
    #[error("the label {name:?} is for {schema}, which runs nothing here")]
    Schema {
        /// Its name.
        name: String,
        /// `docker`, `lxc`, `host` or another word.
        schema: String,
    },
    /// What follows `vm:` is not what belongs there.
    #[error("the label {name:?}: {reason}")]
    Arguments {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, rest) = text.split_once(':').map_or((text, None), |(n, r)| (n, Some(r)));
        if name.is_empty() || name.trim() != name {
            return Err(LabelError::Name(text.to_owned()));
        }
        let Some(rest) = rest else {
            return Ok(Self {
                name: name.to_owned(),
                image: name.to_owned(),
                size: MachineSize::default(),
            });
        };
        let (schema, arguments) = rest.split_once(':').unwrap_or((rest, ""));
        if schema != "vm" {
            let schema = schema.to_owned();
            return Err(LabelError::Schema { name: name.to_owned(), schema });
        }
        let refuse = |reason: String| LabelError::Arguments { name: name.to_owned(), reason };
        let Some(arguments) = arguments.strip_prefix("//") else {
            return Err(refuse(format!("write {name}:vm://IMAGE")));
        };
        let (image, query) = arguments.split_once('?').unwrap_or((arguments, ""));
        if image.is_empty() || image.contains(char::is_whitespace) {
            return Err(refuse(format!("{image:?} names no image")));
        }
        let size = size(query).map_err(refuse)?;
        Ok(Self { name: name.to_owned(), image: image.to_owned(), size })
    }
}

fn size(query: &str) -> Result<MachineSize, String> {
    let mut size = MachineSize::default();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key {
            "cpus" => {
                let cpus = value.parse().ok().filter(|cpus| (1..=1024).contains(cpus));
                size.cpus = Some(cpus.ok_or(format!("cpus is {value:?}, and must be a number"))?);
            }
            "memory" | "mem" => {
                let memory = value.parse().map_err(|error| format!("{key} is {value:?}: {error}"));
                size.memory = Some(memory?);
            }
            _ => return Err(format!("{key:?} is unknown; there are cpus and memory")),
        }
    }
    Ok(size)
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if *self
            != (Self { image: self.name.clone(), size: MachineSize::default(), ..self.clone() })
        {
            write!(f, ":vm://{}", self.image)?;
            let cpus = self.size.cpus.map(|cpus| format!("cpus={cpus}"));
            let memory = self.size.memory.map(|memory| format!("memory={}", short(memory)));
            let query: Vec<String> = cpus.into_iter().chain(memory).collect();
            if !query.is_empty() {
                write!(f, "?{}", query.join("&"))?;
            }
        }
        Ok(())
    }
}

/// A size as labels write it, without a blank.
fn short(size: ByteSize) -> String {
    match size.0 {
        bytes if bytes % GIB == 0 => format!("{}G", bytes / GIB),
        bytes if bytes % MIB == 0 => format!("{}M", bytes / MIB),
        bytes => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_what_it_says() {
        for text in ["debian-12", "illumos:vm://omnios-bloody", "big:vm://d?cpus=8&memory=16G"] {
            assert_eq!(text.parse::<Label>().map(|label| label.to_string()), Ok(text.to_owned()));
        }
        let big: Label = "big:vm://d?cpus=8&mem=16G".parse().expect("a label");
        assert_eq!((big.name.as_str(), big.image.as_str(), big.size.cpus), ("big", "d", Some(8)));
    }

    #[test]
    fn what_is_no_label_here_is_refused() {
        for (text, expected) in [
            ("", "\"\" has no name"),
            (" a", "\" a\" has no name"),
            ("a:docker://node:22", "the label \"a\" is for docker"),
            ("a:host", "the label \"a\" is for host"),
            ("a:vm", "write a:vm://IMAGE"),
            ("a:vm://", "\"\" names no image"),
            ("a:vm://x?cpus=0", "cpus is \"0\""),
            ("a:vm://x?memory=many", "memory is \"many\""),
            ("a:vm://x?disk=1", "\"disk\" is unknown"),
        ] {
            let error = text.parse::<Label>().expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
