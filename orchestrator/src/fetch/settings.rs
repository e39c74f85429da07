//! Where what jobs need comes from, and where it is kept.

use std::path::PathBuf;

use common::size::ByteSize;

use super::Origin;

/// Where what jobs need comes from, and where it is kept.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// The directory for everything that is fetched.
    pub directory: PathBuf,
    /// How much may lie there; what was not used for longest goes first.
    pub quota: ByteSize,
    /// Where the actions of jobs of GitHub's dialect are that name no host.
    pub github: Origin,
    /// Where those of Forgejo's are, unless the server says so.
    pub forgejo: Origin,
    /// Where those of Gitea's are, unless the server says so.
    pub gitea: Origin,
    /// Further origins that may be asked wherever they are.
    pub trusted: Vec<Origin>,
}
