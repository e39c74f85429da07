//! Files to and from a guest.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::{says_full, within};
use super::opening::{Request, start};
use super::quote::quote_path;
use super::run::complaint;
use super::sftp::Sftp;
use super::{ExitStatus, Guest, Output, Session, SshError};

/// Bytes that go through memory at a time.
const CHUNK: usize = 32 * 1024;

/// Bytes of standard error kept for a message.
const COMPLAINT: usize = 4 * 1024;

impl Guest {
    /// Writes `size` bytes of `source` to the file `path` in the guest with the permission bits
    /// `mode` (a program: 0o755), within `deadline`. The directory must exist.
    ///
    /// The bytes go to a new file beside `path` that takes its place at the end, so nobody sees a
    /// half-written file, and a program that runs can be replaced. SFTP is used where the guest has
    /// it, and `cat` where not or where commands run with a privilege prefix.
    ///
    /// # Errors
    ///
    /// [`SshError::Full`] when the guest's disk has no room for it, [`SshError::Transfer`] when the
    /// guest cannot write it, [`SshError::Local`] when `source` fails or does not have `size` bytes,
    /// and as for [`Guest::exec`]. `path` is as it was then;
    /// only a lost connection or the deadline may leave a part beside it, named `path.part-...`.
    pub async fn upload(
        &self,
        source: impl AsyncRead + Unpin + Send,
        size: u64,
        path: &str,
        mode: u32,
        deadline: Duration,
    ) -> Result<(), SshError> {
        check_path(path)?;
        let what = || format!("the upload of `{path}` ({size} bytes)");
        let work = async {
            let source = Exactly::new(source, size);
            match self.sftp(deadline).await? {
                Some(sftp) => sftp.upload(source, path, &beside(path), mode).await,
                None => self.upload_by_cat(source, path, &beside(path), mode).await,
            }
        };
        within(deadline, what, work).await
    }

    /// Copies the file `path` of the guest to `sink`, within `deadline`, and returns its size in
    /// bytes.
    ///
    /// # Errors
    ///
    /// [`SshError::Transfer`] when the guest cannot read it or it has more than `limit` bytes,
    /// [`SshError::Local`] when `sink` fails, and as for [`Guest::exec`]. `sink` may hold a part of
    /// the file then.
    pub async fn download(
        &self,
        path: &str,
        mut sink: impl AsyncWrite + Unpin + Send,
        limit: u64,
        deadline: Duration,
    ) -> Result<u64, SshError> {
        check_path(path)?;
        let what = || format!("the download of `{path}`");
        let work = async {
            let size = match self.sftp(deadline).await? {
                Some(sftp) => sftp.download(path, &mut sink, limit).await?,
                None => self.download_by_cat(path, &mut sink, limit).await?,
            };
            sink.flush().await.map_err(SshError::Local)?;
            Ok(size)
        };
        within(deadline, what, work).await
    }

    /// An SFTP session, or `None` where the guest has none that is of use.
    async fn sftp(&self, deadline: Duration) -> Result<Option<Sftp>, SshError> {
        if !self.may_use_sftp() {
            return Ok(None);
        }
        let session = match start(&self.connection, &[Request::Subsystem("sftp")]).await {
            Ok(session) => session,
            Err(SshError::Rejected(_)) => {
                self.without_sftp.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let (reader, stdin) = session.into_split();
        let sftp = Sftp::start(reader, stdin, deadline).await;
        if sftp.is_none() && !self.is_closed() {
            // The subsystem is configured and its program is missing or broken.
            self.without_sftp.store(true, Ordering::Relaxed);
        }
        Ok(sftp)
    }

    async fn upload_by_cat(
        &self,
        mut source: Exactly<impl AsyncRead + Unpin + Send>,
        path: &str,
        beside: &str,
        mode: u32,
    ) -> Result<(), SshError> {
        let (part, target, size) = (quote_path(beside), quote_path(path), source.size);
        // The size is checked in the guest before the new file takes its place: a connection that
        // is cut looks like the end of the input there.
        // What it says is read by a program: not in the language of the guest.
        let command = format!(
            "umask 077; LC_ALL=C; export LC_ALL; if cat >{part} && [ \"$(($(wc -c <{part})))\" -eq {size} ] && \
             chmod {mode:o} {part} && [ ! -d {target} ] && mv -f {part} {target}; then exit 0; fi; \
             rm -f {part}; [ ! -d {target} ] || echo 'it is a directory' >&2; exit 1"
        );
        let Session { mut stdin, mut output } = self.exec(&command).await?;
        let feed = async {
            let mut buffer = vec![0; CHUNK];
            let (mut sent, mut fed) = (0, Ok(()));
            loop {
                let bytes = match source.read(&mut buffer).await {
                    Ok(0) => break,
                    Ok(count) => &buffer[..count],
                    Err(error) => {
                        fed = Err(error);
                        // Too much on purpose, so that the guest does not take it for complete.
                        if sent < size { break } else { b"x".as_slice() }
                    }
                };
                // A guest that takes no more says why in its end status.
                if stdin.write_all(bytes).await.is_err() || fed.is_err() {
                    break;
                }
                sent += bytes.len() as u64;
            }
            drop(stdin.shutdown().await);
            fed
        };
        let (fed, ended) = tokio::join!(feed, drain(&mut output));
        fed?;
        let (status, stderr) = ended?;
        if status.success() {
            return Ok(());
        }
        let (path, reason) = (path.to_owned(), complaint(&status, &stderr));
        if says_full(&String::from_utf8_lossy(&stderr)) {
            return Err(SshError::Full { path, reason });
        }
        Err(SshError::Transfer { action: "write", path, reason })
    }

    async fn download_by_cat(
        &self,
        path: &str,
        sink: &mut (impl AsyncWrite + Unpin),
        limit: u64,
    ) -> Result<u64, SshError> {
        let failure =
            |reason: String| SshError::Transfer { action: "read", path: path.to_owned(), reason };
        let file = quote_path(path);
        let command = format!(
            "if [ -d {file} ]; then echo 'it is a directory' >&2; exit 1; fi; exec cat <{file}"
        );
        let Session { stdin, mut output } = self.exec(&command).await?;
        drop(stdin);
        let (mut size, mut stderr, mut status) = (0, Vec::new(), None);
        while let Some(piece) = output.next().await? {
            match piece {
                Output::Stdout(bytes) => {
                    size += bytes.len() as u64;
                    if size > limit {
                        return Err(failure(too_long(limit)));
                    }
                    sink.write_all(&bytes).await.map_err(SshError::Local)?;
                }
                Output::Stderr(bytes) => keep(&mut stderr, &bytes),
                Output::Exit(end) => status = Some(end),
            }
        }
        match status {
            Some(status) if status.success() => Ok(size),
            Some(status) => Err(failure(complaint(&status, &stderr))),
            None => Err(no_status()),
        }
    }
}

/// Reads a command that should say nothing to its end.
async fn drain(output: &mut super::Outputs) -> Result<(ExitStatus, Vec<u8>), SshError> {
    let (mut stderr, mut status) = (Vec::new(), None);
    while let Some(piece) = output.next().await? {
        match piece {
            Output::Stdout(_) => {}
            Output::Stderr(bytes) => keep(&mut stderr, &bytes),
            Output::Exit(end) => status = Some(end),
        }
    }
    Ok((status.ok_or_else(no_status)?, stderr))
}

fn keep(stderr: &mut Vec<u8>, bytes: &[u8]) {
    let room = COMPLAINT.saturating_sub(stderr.len());
    stderr.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn no_status() -> SshError {
    SshError::Protocol("it ended a command without its exit status".to_owned())
}

pub(super) fn too_long(limit: u64) -> String {
    format!("it has more than {limit} bytes")
}

fn check_path(path: &str) -> Result<(), SshError> {
    if path.contains('\0') {
        return Err(SshError::Nul("a path"));
    }
    if path.is_empty() {
        return Err(SshError::Transfer {
            action: "use",
            path: String::new(),
            reason: "the path is empty".to_owned(),
        });
    }
    Ok(())
}

/// A name beside `path` that nobody else uses.
fn beside(path: &str) -> String {
    format!("{path}.part-{:08x}", rand::random::<u32>())
}

/// A source that must have exactly `size` bytes.
pub(super) struct Exactly<R> {
    source: R,
    pub(super) size: u64,
    read: u64,
}

impl<R: AsyncRead + Unpin> Exactly<R> {
    fn new(source: R, size: u64) -> Self {
        Self { source, size, read: 0 }
    }

    /// Reads some bytes; 0 at the end, which is an error anywhere but after `size` bytes.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SshError> {
        let count = self.source.read(buffer).await.map_err(SshError::Local)?;
        self.read += count as u64;
        if self.read > self.size || (count == 0 && self.read < self.size) {
            let text = format!("the source does not have the {} bytes it was said to", self.size);
            return Err(SshError::Local(std::io::Error::other(text)));
        }
        Ok(count)
    }
}
