//! What the host fetches for jobs: by which rules, and where it is kept.
//!
//! A job may name any place. So that it cannot make the host look into its own networks, [`Policy`]
//! decides which addresses may be asked, and everything that is asked goes there and nowhere else:
//! names are resolved once, here, and each step of a redirect is decided anew.

mod ask;
mod export;
mod git;
mod modules;
mod origin;
mod parts;
mod policy;
mod refs;
mod room;
mod settings;
mod sparse;
mod store;
mod submodules;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use ask::chain;
pub use origin::Origin;
pub(crate) use origin::Repository;
pub(crate) use policy::Policy;
pub(crate) use refs::is_commit;
pub(crate) use room::sweep;
pub use settings::FetchSettings;
pub(crate) use sparse::check as check_sparse;
pub(crate) use store::ActionStore;
pub(crate) use tree::TreeStore;
