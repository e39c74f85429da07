//! What can be wrong with an expression.

/// Why a text is not an expression or not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// Characters before the place.
    pub offset: usize,
    /// What is wrong and what to write instead: lower case, no full stop.
    pub message: String,
}

impl ParseError {
    /// An error at a place that is given in characters.
    pub(crate) fn new(offset: usize, message: impl Into<String>) -> Self {
        Self { offset, message: message.into() }
    }

    /// The same error in a text in which this one's text begins at `characters`.
    pub(crate) fn moved(mut self, characters: usize) -> Self {
        self.offset += characters;
        self
    }
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// It does not parse.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A function or context was used wrongly, or a limit was reached.
    #[error("{message}")]
    Invalid {
        /// Characters before the call or the context, where it is about one.
        offset: Option<usize>,
        /// What is wrong and what to write instead: lower case, no full stop.
        message: String,
    },
    /// `hashFiles` must be computed for these patterns first; a first pattern
    /// `--follow-symbolic-links` is the option of that name.
    #[error("hashFiles is not available here")]
    NeedsHash(Vec<String>),
}

impl EvaluateError {
    /// A wrong use, described in a sentence.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { offset: None, message: message.into() }
    }

    /// Says where it is, unless a part of that place did already.
    pub(crate) fn at(mut self, place: usize) -> Self {
        if let Self::Invalid { offset: offset @ None, .. } = &mut self {
            *offset = Some(place);
        }
        self
    }

    /// The same error in a text in which the expression begins at `characters`.
    pub(crate) fn moved(mut self, characters: usize) -> Self {
        match &mut self {
            Self::Parse(error) => error.offset += characters,
            Self::Invalid { offset, .. } => *offset = offset.map(|offset| offset + characters),
            Self::NeedsHash(_) => {}
        }
        self
    }

    /// Characters before the place that it is about, where it is about one.
    #[must_use]
    pub fn offset(&self) -> Option<usize> {
        match self {
            Self::Parse(error) => Some(error.offset),
            Self::Invalid { offset, .. } => *offset,
            Self::NeedsHash(_) => None,
        }
    }
}
