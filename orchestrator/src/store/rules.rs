//! What the store decides, apart from any database: pure functions over what was read.

pub(super) mod boots;
pub(super) mod claiming;
pub(super) mod clock;
pub(super) mod placing;
pub(super) mod room;
pub(super) mod runnable;
