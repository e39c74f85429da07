//! The caches of jobs (`actions/cache`), kept on this host.
//!
//! ```text
//!   CACHE_DIR/REPOSITORY/about            what REPOSITORY, a hash, stands for
//!                        HASH.entry       key, version, scope, size: a cache that is complete
//!                        ID.data          what is in it
//!                        NUMBER.pending   one that is being saved, by which job
//!                        NUMBER.upload    what of it has come, NUMBER.ranges which bytes,
//!                        NUMBER.HASH.block   and the parts of one that comes in blocks
//! ```
//!
//! Several processes may use one directory. An entry exists as soon as its `.entry` does, which is made
//! once and never changed, so the first to save a key wins. The name of what is being saved comes from
//! the job and the key: a job that goes on after this process was killed finds it again. An entry says
//! which job saved it, so that one that was not told may ask again.
//!
//! Jobs speak the protocols of the forges' cache services ([`JobCache::answer`]): the first version
//! (forgejo-runner-protocol 8.8) and the second (github-runner-protocol 8.5).

mod evict;
mod http;
mod scope;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod upload;

pub(crate) use http::JobCache;
pub(crate) use scope::Scope;
pub use settings::CacheSettings;
pub(crate) use store::CacheStore;
