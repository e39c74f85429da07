//! Actions inside actions, without a deep stack.

use std::future::Future;
use std::pin::Pin;

/// A future on the heap, made in a frame of its own: where jobs run inside steps of jobs, each level
/// would else hold the futures of all that it calls on the stack.
#[inline(never)]
pub(super) fn deep<'a, F>(
    make: impl FnOnce() -> F,
) -> Pin<Box<dyn Future<Output = F::Output> + Send + 'a>>
where
    F: Future + Send + 'a,
{
    Box::pin(make())
}
