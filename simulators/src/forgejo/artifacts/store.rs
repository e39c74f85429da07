//! The bytes of artifacts, in files that go with the server.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use axum::body::Body;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

/// Bytes that are copied at once.
const COPIED: usize = 256 * 1024;

/// A directory of files with names of their own.
#[derive(Debug)]
pub(in crate::forgejo) struct Store {
    place: TempDir,
}

/// A file that was put together.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) path: PathBuf,
    pub(super) length: u64,
    /// Its SHA-256 in hexadecimal.
    pub(super) hash: String,
}

impl Store {
    pub(in crate::forgejo) fn new() -> Self {
        Self { place: tempfile::tempdir().expect("a directory") }
    }

    /// No name of a client is in the path.
    fn new_path(&self) -> PathBuf {
        self.place.path().join(uuid::Uuid::new_v4().to_string())
    }

    /// Writes a body to a file as it comes, and shows it to who looks at it. Gives the file and how
    /// many bytes it has.
    ///
    /// # Errors
    /// The client went away in the middle; there is no file then.
    pub(super) async fn save(
        &self,
        body: Body,
        mut look: impl FnMut(&[u8]),
    ) -> io::Result<(PathBuf, u64)> {
        let path = self.new_path();
        let mut file = tokio::fs::File::create(&path).await?;
        let mut body = body.into_data_stream();
        let mut length = 0;
        while let Some(bytes) = body.next().await {
            match bytes {
                Ok(bytes) => {
                    look(&bytes);
                    length += bytes.len() as u64;
                    file.write_all(&bytes).await?;
                }
                Err(error) => {
                    drop(file);
                    remove([&path]);
                    return Err(io::Error::other(error));
                }
            }
        }
        file.flush().await?;
        Ok((path, length))
    }

    /// Puts files together to a new one. They stay.
    ///
    /// # Errors
    /// One is gone: somebody put them together at the same time.
    pub(super) async fn merge(&self, pieces: Vec<PathBuf>) -> io::Result<Merged> {
        let path = self.new_path();
        let merging = tokio::task::spawn_blocking(move || merge(&path, &pieces));
        merging.await.map_err(io::Error::other)?
    }
}

fn merge(path: &Path, pieces: &[PathBuf]) -> io::Result<Merged> {
    let mut target = File::create(path)?;
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut buffer = vec![0; COPIED];
    for piece in pieces {
        let mut piece = File::open(piece)?;
        loop {
            let count = piece.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            hash.update(bytes);
            target.write_all(bytes)?;
            length += bytes.len() as u64;
        }
    }
    Ok(Merged { path: path.to_owned(), length, hash: hex::encode(hash.finalize()) })
}

/// Removes files that nobody needs any more. What stays goes with the directory.
pub(super) fn remove<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) {
    for path in paths {
        std::fs::remove_file(path).unwrap_or_default();
    }
}
