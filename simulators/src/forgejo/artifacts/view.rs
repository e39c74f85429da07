//! Artifacts as tests see them.

use super::super::forge::Forge;
use super::super::trigger::RunId;

/// A complete file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactView {
    /// The artifact's name.
    pub name: String,
    /// The path in the artifact: `name.zip` for the newer actions, which upload one archive.
    pub path: String,
    /// How many bytes were uploaded.
    pub length: u64,
    /// How many bytes the file had before it was compressed for the upload.
    pub size: u64,
    /// How it was compressed for the upload, such as `gzip`.
    pub encoding: Option<String>,
}

impl Forge {
    /// The files that the jobs of a run uploaded completely, the oldest first.
    #[must_use]
    pub fn artifacts(&self, run: RunId) -> Vec<ArtifactView> {
        let state = self.shared.lock();
        let files = state.complete_artifacts(run.0).into_iter();
        let view = files.map(|(artifact, stored)| ArtifactView {
            name: artifact.name.clone(),
            path: artifact.path.clone(),
            length: stored.length,
            size: stored.size.try_into().unwrap_or_default(),
            encoding: stored.encoding.clone(),
        });
        view.collect()
    }

    /// The bytes of an artifact with one file, as they were uploaded.
    ///
    /// # Panics
    /// The run has no such artifact, or it has several files.
    #[must_use]
    pub fn artifact(&self, run: RunId, name: &str) -> Vec<u8> {
        let files = self.artifacts(run).into_iter().filter(|file| file.name == name);
        let paths: Vec<_> = files.map(|file| file.path).collect();
        let [path] = paths.as_slice() else {
            panic!("the files of the artifact {name:?} are {paths:?}\n{}", self.dump())
        };
        self.artifact_file(run, name, path)
    }

    /// The bytes of a file of an artifact, as they were uploaded.
    ///
    /// # Panics
    /// The run has no such file.
    #[must_use]
    pub fn artifact_file(&self, run: RunId, name: &str, path: &str) -> Vec<u8> {
        // Nobody replaces it while it is read.
        let state = self.shared.lock();
        let stored = state.artifact(run.0, name, path).and_then(super::Artifact::stored);
        let bytes = stored.map(|stored| std::fs::read(&stored.path).expect("the store keeps it"));
        drop(state);
        bytes.unwrap_or_else(|| panic!("no file {path:?} of {name:?}\n{}", self.dump()))
    }
}
