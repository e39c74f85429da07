//! The actions that this program does itself, in any machine, in the place of the originals.

use std::ops::RangeInclusive;

use super::reference::{Reference, Remote};

/// What this program does itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Native {
    /// `actions/checkout`.
    Checkout,
    /// `actions/cache`: restores, and saves behind the last step.
    Cache,
    /// `actions/cache/restore`.
    RestoreCache,
    /// `actions/cache/save`.
    SaveCache,
    /// `actions/upload-artifact`.
    UploadArtifact,
    /// `actions/download-artifact`.
    DownloadArtifact,
}

impl Native {
    /// How the log calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkout => "checkout",
            Self::Cache => "cache",
            Self::RestoreCache => "cache restore",
            Self::SaveCache => "cache save",
            Self::UploadArtifact => "upload-artifact",
            Self::DownloadArtifact => "download-artifact",
        }
    }

    /// The inputs that the originals have, in any of the major versions.
    #[must_use]
    pub const fn inputs(self) -> &'static [&'static str] {
        match self {
            Self::Checkout => &[
                "repository",
                "ref",
                "token",
                "ssh-key",
                "ssh-known-hosts",
                "ssh-strict",
                "ssh-user",
                "persist-credentials",
                "path",
                "clean",
                "filter",
                "sparse-checkout",
                "sparse-checkout-cone-mode",
                "fetch-depth",
                "fetch-tags",
                "show-progress",
                "lfs",
                "submodules",
                "set-safe-directory",
                "github-server-url",
            ],
            Self::Cache => &[
                "path",
                "key",
                "restore-keys",
                "upload-chunk-size",
                "enableCrossOsArchive",
                "fail-on-cache-miss",
                "lookup-only",
                "save-always",
            ],
            Self::RestoreCache => &[
                "path",
                "key",
                "restore-keys",
                "enableCrossOsArchive",
                "fail-on-cache-miss",
                "lookup-only",
            ],
            Self::SaveCache => &["path", "key", "upload-chunk-size", "enableCrossOsArchive"],
            Self::UploadArtifact => &[
                "name",
                "path",
                "if-no-files-found",
                "retention-days",
                "compression-level",
                "overwrite",
                "include-hidden-files",
            ],
            Self::DownloadArtifact => &[
                "name",
                "artifact-ids",
                "path",
                "pattern",
                "merge-multiple",
                "github-token",
                "repository",
                "run-id",
            ],
        }
    }
}

/// An action that this program stands for.
#[derive(Clone, Debug)]
pub struct NativeAction {
    /// What it does.
    pub native: Native,
    /// `owner/name`.
    pub repository: &'static str,
    /// The directory in the repository; empty for its root.
    pub path: &'static str,
    /// The major versions of which it does what they do.
    pub majors: RangeInclusive<u32>,
}

/// Every action that this program stands for.
pub const NATIVE_ACTIONS: &[NativeAction] = &[
    action(Native::Checkout, "actions/checkout", "", 1..=6),
    action(Native::Cache, "actions/cache", "", 1..=5),
    action(Native::RestoreCache, "actions/cache", "restore", 3..=5),
    action(Native::SaveCache, "actions/cache", "save", 3..=5),
    action(Native::UploadArtifact, "actions/upload-artifact", "", 2..=6),
    action(Native::UploadArtifact, "forgejo/upload-artifact", "", 3..=4),
    action(Native::DownloadArtifact, "actions/download-artifact", "", 2..=7),
    action(Native::DownloadArtifact, "forgejo/download-artifact", "", 3..=4),
];

/// The forges from which they may be named by their whole address; by name alone they are the dialect's.
pub const NATIVE_ORIGINS: [&str; 3] =
    ["https://github.com/", "https://data.forgejo.org/", "https://code.forgejo.org/"];

const fn action(
    native: Native,
    repository: &'static str,
    path: &'static str,
    majors: RangeInclusive<u32>,
) -> NativeAction {
    NativeAction { native, repository, path, majors }
}

/// How sure it is that a version does what this program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// It is one of the major versions: this one.
    Listed(u32),
    /// It is a commit, which may be of any version.
    Commit,
    /// It is another version, or a branch.
    Other,
}

/// What this program stands for, where `uses` names such an action.
pub(crate) fn native(text: &str) -> Option<(&'static NativeAction, Version)> {
    let Ok(Reference::Remote(remote)) = Reference::parse(text) else { return None };
    let is_known = remote.origin.is_empty()
        || NATIVE_ORIGINS.iter().any(|origin| origin.eq_ignore_ascii_case(&remote.origin));
    let action = find(&remote).filter(|_| is_known)?;
    let version = match major(&remote.version) {
        Some(major) if action.majors.contains(&major) => Version::Listed(major),
        None if is_commit(&remote.version) => Version::Commit,
        _ => Version::Other,
    };
    Some((action, version))
}

/// The action of this name, wherever it is said to be.
fn find(remote: &Remote) -> Option<&'static NativeAction> {
    let name = remote.repository.strip_suffix(".git").unwrap_or(&remote.repository);
    NATIVE_ACTIONS
        .iter()
        .find(|action| name.eq_ignore_ascii_case(action.repository) && remote.path == action.path)
}

/// Whether `uses` is the checkout action, of any version, by name or by the address of a mirror
/// (forgejo-runner-protocol 8.7).
pub(crate) fn is_checkout(text: &str) -> bool {
    let Ok(Reference::Remote(remote)) = Reference::parse(text) else { return false };
    find(&remote).is_some_and(|action| action.native == Native::Checkout)
}

/// The major version of `v4`, `v4.2` and `v4.2.1`.
fn major(version: &str) -> Option<u32> {
    let mut parts = version.strip_prefix('v')?.split('.');
    let major = parts.next()?.parse().ok()?;
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.all(is_number).then_some(major)
}

/// Whether a version is the whole id of a commit, by SHA-1 or SHA-256.
fn is_commit(version: &str) -> bool {
    matches!(version.len(), 40 | 64) && version.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<(Native, Version)> {
        native(text).map(|(action, version)| (action.native, version))
    }

    #[test]
    fn actions_are_known_by_name_path_version_and_origin() {
        use Native::{Cache, Checkout, RestoreCache, SaveCache, UploadArtifact};
        use Version::{Commit, Listed, Other};
        let commit = format!("actions/cache@{}", "0123456789".repeat(4));
        for (text, expected) in [
            ("actions/checkout@v4", Some((Checkout, Listed(4)))),
            ("Actions/Checkout@v4.2.1", Some((Checkout, Listed(4)))),
            ("https://code.forgejo.org/actions/checkout@v4", Some((Checkout, Listed(4)))),
            ("https://data.forgejo.org/actions/checkout.git@v4", Some((Checkout, Listed(4)))),
            ("https://forge.example/actions/checkout@v4", None),
            ("actions/checkout@v99", Some((Checkout, Other))),
            ("actions/checkout@main", Some((Checkout, Other))),
            ("actions/checkout@v4-beta", Some((Checkout, Other))),
            ("actions/checkout@v4.", Some((Checkout, Other))),
            (commit.as_str(), Some((Cache, Commit))),
            ("actions/cache@v4", Some((Cache, Listed(4)))),
            ("actions/cache/restore@v4", Some((RestoreCache, Listed(4)))),
            ("actions/cache/save@v4", Some((SaveCache, Listed(4)))),
            ("actions/cache/other@v4", None),
            ("forgejo/upload-artifact@v4", Some((UploadArtifact, Listed(4)))),
            ("actions/upload-artifact@v3", Some((UploadArtifact, Listed(3)))),
            ("actions/upload-artifact@v1", Some((UploadArtifact, Other))),
            ("other/cache@v4", None),
            ("./actions/cache", None),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }

    #[test]
    fn a_checkout_is_known_wherever_it_is() {
        for (reference, expected) in [
            ("actions/checkout@v4", true),
            ("Actions/Checkout@main", true),
            ("http://localhost:3000/actions/checkout.git@v4", true),
            ("actions/checkout", false),
            ("actions/checkout@", false),
            ("actions/checkout-more@v4", false),
            ("other/checkout@v4", false),
            ("actions/checkout/sub@v4", false),
            ("./actions/checkout", false),
            ("docker://actions/checkout", false),
        ] {
            assert_eq!(is_checkout(reference), expected, "{reference}");
        }
    }
}
