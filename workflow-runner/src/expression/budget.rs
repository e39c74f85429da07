//! The bound on what one evaluation may produce.

use std::cell::Cell;

use common::limits::{EVALUATION_BYTES, MIB};

use super::EvaluateError;

/// The bytes that one evaluation may still produce.
///
/// Everything that an evaluation makes anew is charged before it is made: text of `format`, `join`
/// and `toJSON`, values of `fromJSON`, entries of filtered arrays, the text of a template. Values
/// that are only passed on are shared and cost nothing.
#[derive(Debug)]
pub struct Budget {
    left: Cell<usize>,
}

impl Default for Budget {
    /// A budget of [`EVALUATION_BYTES`].
    fn default() -> Self {
        Self { left: Cell::new(EVALUATION_BYTES) }
    }
}

impl Budget {
    /// Takes `bytes` from the budget, or fails with a sentence that names the limit.
    pub fn charge(&self, bytes: usize) -> Result<(), EvaluateError> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                // What comes later must not slip through a gap that this one did not fit.
                self.left.set(0);
                Err(EvaluateError::invalid(format!(
                    "the value is larger than {} MiB, the limit for one evaluation",
                    EVALUATION_BYTES as u64 / MIB
                )))
            }
        }
    }
}
