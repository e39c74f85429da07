//! The functions by name, with the number of values that they take.

use super::scope::{nearest, shorten};

/// A function of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Contains,
    StartsWith,
    EndsWith,
    Format,
    Join,
    ToJson,
    FromJson,
    Case,
    HashFiles,
    Success,
    Failure,
    Always,
    Cancelled,
}

/// The most values that a function with an open end takes (github-runner-protocol 5.8).
const MANY: usize = 255;

/// Every function with its name, the least and the most values that it takes.
const FUNCTIONS: [(Function, &str, usize, usize); 13] = [
    (Function::Contains, "contains", 2, 2),
    (Function::StartsWith, "startsWith", 2, 2),
    (Function::EndsWith, "endsWith", 2, 2),
    (Function::Format, "format", 1, MANY),
    (Function::Join, "join", 1, 2),
    (Function::ToJson, "toJSON", 1, 1),
    (Function::FromJson, "fromJSON", 1, 1),
    (Function::Case, "case", 3, MANY),
    (Function::HashFiles, "hashFiles", 1, MANY),
    (Function::Success, "success", 0, 0),
    (Function::Failure, "failure", 0, 0),
    (Function::Always, "always", 0, 0),
    (Function::Cancelled, "cancelled", 0, 0),
];

impl Function {
    /// The function of this name, whatever its case; else what to say about the name.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        let found =
            FUNCTIONS.iter().find(|(_, candidate, ..)| candidate.eq_ignore_ascii_case(name));
        if let Some((function, ..)) = found {
            return Ok(*function);
        }
        let hint = match nearest(name, FUNCTIONS.iter().map(|(_, candidate, ..)| *candidate)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => {
                let names: Vec<&str> = FUNCTIONS.iter().map(|(_, name, ..)| *name).collect();
                format!("the functions are {}", names.join(", "))
            }
        };
        Err(format!("unknown function \"{}\": {hint}", shorten(name)))
    }

    /// The name as it is usually written.
    pub(super) fn name(self) -> &'static str {
        self.row().1
    }

    /// Whether it asks for the state of the job.
    pub(super) fn is_status(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Always | Self::Cancelled)
    }

    /// Whether it can be called with so many values; else what to say about it.
    pub(super) fn check_count(self, count: usize) -> Result<(), String> {
        let (_, name, least, most) = *self.row();
        if self == Self::Case && count >= least && count.is_multiple_of(2) {
            return Err(format!(
                "{name} takes pairs of a condition and a value, then a default: an odd number of \
                 values, not {count}"
            ));
        }
        if (least..=most).contains(&count) {
            return Ok(());
        }
        let takes = match (least, most) {
            (0, 0) => String::from("no value"),
            (1, 1) => String::from("one value"),
            (_, MANY) if count < least => {
                format!("at least {least} {}", if least == 1 { "value" } else { "values" })
            }
            (_, MANY) => format!("at most {MANY} values"),
            (least, most) if least == most => format!("{least} values"),
            (least, most) => format!("{least} or {most} values"),
        };
        Err(format!("{name} takes {takes}, not {count}"))
    }

    fn row(self) -> &'static (Self, &'static str, usize, usize) {
        FUNCTIONS.iter().find(|(function, ..)| *function == self).expect("the table has them all")
    }
}
