//! Files over SFTP version 3, as OpenSSH's server speaks it.

use std::time::Duration;

use common::size::{ByteSize, FULL_DISK};
use futures_util::StreamExt;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use russh_sftp::client::error::Error;
use russh_sftp::client::{Config, RawSftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::error::says_full;
use super::transfer::{Exactly, too_long};
use super::{SshError, Stdin, StreamReader};

/// Bytes in one request.
const BLOCK: usize = 32 * 1024;

/// Requests under way at a time: with [`BLOCK`] what hides the answering time of an emulated guest.
const UNDER_WAY: usize = 16;

/// The rename that replaces an existing file (OpenSSH's PROTOCOL file, section 4.3); SFTP's own
/// rename refuses that.
const POSIX_RENAME: &str = "posix-rename@openssh.com";

/// An SFTP session on a channel of its own. Dropping it closes the channel.
pub(super) struct Sftp {
    session: RawSftpSession,
}

impl Sftp {
    /// Greets the server. `None` when there is none behind the subsystem, or it lacks what an
    /// atomic replacement needs.
    pub(super) async fn start(
        reader: StreamReader,
        stdin: Stdin,
        deadline: Duration,
    ) -> Option<Self> {
        let config = Config {
            max_packet_len: 256 * 1024,
            // The transfer as a whole has its deadline.
            request_timeout_secs: deadline.as_secs().saturating_add(1),
            ..Config::default()
        };
        let stream = tokio::io::join(reader, stdin);
        let session = RawSftpSession::new_with_config(stream, config);
        let version = session.init().await.ok()?;
        version.extensions.contains_key(POSIX_RENAME).then_some(Self { session })
    }

    pub(super) async fn upload(
        &self,
        mut source: Exactly<impl AsyncRead + Unpin + Send>,
        path: &str,
        beside: &str,
        mode: u32,
    ) -> Result<(), SshError> {
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let private = FileAttributes { permissions: Some(0o600), ..FileAttributes::empty() };
        let handle = match self.session.open(beside, flags, private).await {
            Ok(opened) => opened.handle,
            Err(error) => return Err(self.refused(path, &error).await),
        };
        let write = async {
            self.write_all(&handle, &mut source).await?;
            let written = self.session.fstat(&handle).await?.attrs.size;
            if written != Some(source.size) {
                let reason =
                    format!("{} bytes were sent, {written:?} are in the file", source.size);
                let path = path.to_owned();
                return Err(SshError::Transfer { action: "write", path, reason }.into());
            }
            let attributes = FileAttributes { permissions: Some(mode), ..FileAttributes::empty() };
            self.session.fsetstat(&handle, attributes).await?;
            Ok::<_, Failed>(())
        };
        let written = write.await;
        let closed = self.session.close(&handle).await.map(drop).map_err(Failed::from);
        let placed = match written.and(closed) {
            Ok(()) => self.rename(beside, path).await.map_err(Failed::from),
            Err(failed) => Err(failed),
        };
        let error = match placed {
            Ok(()) => return Ok(()),
            // Asked for before the removal makes room again.
            Err(Failed::Server(error)) => self.refused(path, &error).await,
            Err(Failed::Other(error)) => error,
        };
        // The first error is the one to tell.
        drop(self.session.remove(beside).await);
        Err(error)
    }

    /// What it means that the server did not write a file. The protocol has no word for a full disk
    /// (draft-ietf-secsh-filexfer-02, section 7), so the file system is asked.
    async fn refused(&self, path: &str, error: &Error) -> SshError {
        let reason = said(error);
        let path = path.to_owned();
        if says_full(&reason) {
            return SshError::Full { path, reason };
        }
        let is_vague =
            matches!(error, Error::Status(status) if status.status_code == StatusCode::Failure);
        if is_vague && let Some(room) = self.full(&path).await {
            return SshError::Full { path, reason: format!("{reason}; {room}") };
        }
        SshError::Transfer { action: "write", path, reason }
    }

    /// What room the file system of a file has, in words, if it has none worth the name; `None` also
    /// where the server cannot tell.
    async fn full(&self, path: &str) -> Option<String> {
        let directory = match path.rsplit_once('/') {
            Some(("", _)) => "/",
            Some((directory, _)) => directory,
            None => ".",
        };
        let room = self.session.statvfs(directory).await.ok()?;
        let bytes = |blocks: u64| ByteSize(blocks.saturating_mul(room.fragment_size));
        let (free, size) = (bytes(room.blocks_avail), bytes(room.blocks));
        if size.0 > 0 && free < FULL_DISK {
            return Some(format!("{free} of {size} are free"));
        }
        (room.inodes > 0 && room.inodes_avail == 0)
            .then(|| format!("none of {} files is free", room.inodes))
    }

    async fn write_all(
        &self,
        handle: &str,
        source: &mut Exactly<impl AsyncRead + Unpin + Send>,
    ) -> Result<(), Failed> {
        let mut under_way = FuturesUnordered::new();
        let mut offset = 0;
        loop {
            let mut block = vec![0; BLOCK];
            let count = source.read(&mut block).await?;
            if count == 0 {
                break;
            }
            block.truncate(count);
            if under_way.len() == UNDER_WAY {
                under_way.next().await.transpose()?;
            }
            under_way.push(self.session.write(handle, offset, block));
            offset += count as u64;
            // A request is sent when it is first polled.
            if let Some(done) = futures_util::FutureExt::now_or_never(under_way.next()).flatten() {
                done?;
            }
        }
        while let Some(done) = under_way.next().await {
            done?;
        }
        Ok(())
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let mut data = Vec::with_capacity(from.len() + to.len() + 8);
        for text in [from, to] {
            let length = u32::try_from(text.len())
                .map_err(|_| Error::Limited("the path is too long".to_owned()))?;
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(text.as_bytes());
        }
        match self.session.extended(POSIX_RENAME, data).await? {
            Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
            Packet::Status(status) => Err(Error::Status(status)),
            _ => Err(Error::UnexpectedPacket),
        }
    }

    pub(super) async fn download(
        &self,
        path: &str,
        sink: &mut (impl AsyncWrite + Unpin),
        limit: u64,
    ) -> Result<u64, SshError> {
        let failure = |error: Error| transfer("read", path, &error);
        let empty = FileAttributes::empty();
        let handle = self.session.open(path, OpenFlags::READ, empty).await.map_err(failure)?.handle;
        let read = self.read_all(&handle, path, sink, limit).await;
        let closed = self.session.close(&handle).await.map_err(failure);
        let size = read?;
        closed?;
        Ok(size)
    }

    /// Reads blocks ahead, and takes them in order, until one of them starts at the end.
    async fn read_all(
        &self,
        handle: &str,
        path: &str,
        sink: &mut (impl AsyncWrite + Unpin),
        limit: u64,
    ) -> Result<u64, SshError> {
        let mut under_way = FuturesOrdered::new();
        let (mut asked, mut size) = (0, 0);
        loop {
            while under_way.len() < UNDER_WAY {
                under_way.push_back(self.read_block(handle, asked));
                asked += BLOCK as u64;
            }
            let block = under_way
                .next()
                .await
                .expect("requests were just added")
                .map_err(|error| transfer("read", path, &error))?;
            size += block.len() as u64;
            if size > limit {
                let reason = too_long(limit);
                return Err(SshError::Transfer { action: "read", path: path.to_owned(), reason });
            }
            sink.write_all(&block).await.map_err(SshError::Local)?;
            if block.len() < BLOCK {
                return Ok(size);
            }
        }
    }

    /// A whole block, or what there is of it before the end of the file.
    async fn read_block(&self, handle: &str, offset: u64) -> Result<Vec<u8>, Error> {
        let mut block = Vec::with_capacity(BLOCK);
        while block.len() < BLOCK {
            let missing = (BLOCK - block.len()) as u32;
            match self.session.read(handle, offset + block.len() as u64, missing).await {
                Ok(data) if data.data.is_empty() || data.data.len() > missing as usize => {
                    return Err(Error::UnexpectedPacket);
                }
                Ok(data) => block.extend_from_slice(&data.data),
                Err(Error::Status(status)) if status.status_code == StatusCode::Eof => break,
                Err(error) => return Err(error),
            }
        }
        Ok(block)
    }
}

/// What ended an upload, before it is known what it means.
enum Failed {
    /// The server refused something.
    Server(Error),
    /// Anything else.
    Other(SshError),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

impl From<SshError> for Failed {
    fn from(error: SshError) -> Self {
        Self::Other(error)
    }
}

fn transfer(action: &'static str, path: &str, error: &Error) -> SshError {
    SshError::Transfer { action, path: path.to_owned(), reason: said(error) }
}

/// A server's words, short and without control characters.
fn said(error: &Error) -> String {
    error.to_string().chars().filter(|c| !c.is_control()).take(300).collect()
}
