//! One authenticated connection and its channels.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use russh::client::{self, DisconnectReason, Handle, Msg};
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{
    ChannelId, ChannelReadHalf, ChannelWriteHalf, Disconnect, Limits, Preferred, cipher, kex,
};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::within;
use super::heard::{Heard, LastHeard};
use super::{Keys, SshError, refused};

/// The longest silence after which a connection still counts as alive: a guest that swaps may not
/// answer for minutes (design, section 5). The end of QEMU or of the guest's SSH server is seen at
/// once, because the host's end of the forwarding closes.
pub(super) const SILENCE: Duration = Duration::from_secs(600);

/// How often a silent guest is asked for a sign of life. One answer to any of the questions within
/// [`SILENCE`] is enough.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The longest that closing waits for what is still on its way.
const GOODBYE: Duration = Duration::from_secs(5);

/// Bytes that a guest may send on one channel before the library lets it send more.
const WINDOW: u32 = 2 * 1024 * 1024;

/// The largest piece of data in one message.
const PACKET: u32 = 32 * 1024;

/// What is read from a connection at once, at most: the library asks for a packet in two pieces.
const READ_BYTES: usize = 4096;

/// Messages of one channel that wait for their reader; with [`PACKET`] at most 1 MiB. When they are
/// full the connection is not read any further, and the guest blocks.
const WAITING_MESSAGES: usize = 32;

/// A connection to a guest's SSH server, logged in.
pub(super) struct Connection {
    handle: Handle<Watcher>,
    life: Arc<Life>,
    heard: Arc<LastHeard>,
}

impl Connection {
    /// Connects, checks the host key and logs in, all within `deadline`.
    pub(super) async fn open(
        address: SocketAddr,
        user: &str,
        keys: &Keys,
        deadline: Duration,
    ) -> Result<Self, SshError> {
        let what = || format!("the ssh login at {address}");
        let work = async {
            let unreachable = |error: std::io::Error| SshError::Unreachable {
                address,
                reason: error.to_string(),
            };
            let socket = TcpStream::connect(address).await.map_err(unreachable)?;
            // Keystrokes and calls are small and wanted at once.
            socket.set_nodelay(true).map_err(unreachable)?;
            Self::over(socket, address, user, keys, Limits::default()).await
        };
        within(deadline, what, work).await
    }

    /// Checks the host key and logs in over `stream`; `address` is for messages, and new session
    /// keys are made at each of the `limits`.
    pub(super) async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: SocketAddr,
        user: &str,
        keys: &Keys,
        limits: Limits,
    ) -> Result<Self, SshError> {
        let unreachable = |reason: String| SshError::Unreachable { address, reason };
        let life = Arc::new(Life::default());
        let watcher = Watcher { expected: keys.host().clone(), life: Arc::clone(&life) };
        let heard = Arc::new(LastHeard::now());
        let stream = BufReader::with_capacity(READ_BYTES, Heard::new(stream, Arc::clone(&heard)));
        let mut handle = client::connect_stream(Arc::new(config(limits)), stream, watcher)
            .await
            .map_err(|failure| match failure {
                Failure::HostKey { expected, found } => {
                    SshError::HostKey { address, expected, found }
                }
                // What closes before the login is a server that is not up yet: the forwarding
                // accepts before anything in the guest listens.
                Failure::Library(
                    error @ (russh::Error::IO(_) | russh::Error::Disconnect | russh::Error::HUP),
                ) => unreachable(describe(&error)),
                Failure::Library(error) => SshError::Protocol(error.to_string()),
            })?;
        if let Some(key) = keys.refused() {
            match refused::accepts(&mut handle, user, key).await {
                Ok(false) => {}
                Ok(true) => return Err(SshError::ForeignKey { address, user: user.to_owned() }),
                Err(_) => return Err(unreachable("it hung up during the login".to_owned())),
            }
        }
        let key = PrivateKeyWithHashAlg::new(keys.login(), None);
        let login = handle.authenticate_publickey(user, key).await;
        match login {
            Ok(result) if result.success() => Ok(Self { handle, life, heard }),
            // The library reports a connection that closed meanwhile as a refusal.
            Ok(_) if !handle.is_closed() => {
                Err(SshError::Refused { address, user: user.to_owned() })
            }
            _ => {
                life.ended.cancelled().await;
                Err(unreachable(format!("it hung up during the login: {}", life.reason())))
            }
        }
    }

    /// Whether nothing can be sent any more.
    pub(super) fn is_closed(&self) -> bool {
        self.life.ended.is_cancelled() || self.handle.is_closed()
    }

    /// When the last bytes came from the guest's SSH server, answers to [`KEEPALIVE`] included.
    pub(super) fn last_heard(&self) -> Instant {
        self.heard.when()
    }

    /// Waits until the connection has ended, and says why.
    pub(super) async fn closed(&self) -> SshError {
        self.life.ended.cancelled().await;
        self.life.lost()
    }

    /// Says goodbye; sessions that still run end with [`SshError::Lost`]. While a session is not
    /// read the goodbye waits behind it: then the connection closes when that session is dropped.
    pub(super) async fn close(&self) {
        // The first reason is the cause, and this is none if there was one before.
        drop(self.life.reason.set("it was closed".to_owned()));
        let goodbye = async {
            // A connection that cannot take the message any more is closed already.
            drop(self.handle.disconnect(Disconnect::ByApplication, "", "").await);
            self.life.ended.cancelled().await;
        };
        drop(tokio::time::timeout(GOODBYE, goodbye).await);
    }

    /// Opens a channel for a command, a subsystem or a terminal.
    pub(super) async fn channel(
        self: &Arc<Self>,
    ) -> Result<(ChannelReadHalf, Arc<Lease>), SshError> {
        let open = async {
            self.handle.channel_open_session().await.map_err(|error| match error {
                russh::Error::ChannelOpenFailure(reason) => {
                    SshError::Rejected(format!("a channel: {reason:?}"))
                }
                _ => self.life.lost(),
            })
        };
        let (read, write) =
            within(SILENCE, || "opening an ssh channel".to_owned(), open).await?.split();
        let closed = self.life.register(write.id());
        let connection = Arc::clone(self);
        Ok((read, Arc::new(Lease { write: Arc::new(write), closed, connection })))
    }

    pub(super) fn lost(&self) -> SshError {
        self.life.lost()
    }
}

/// A channel, closed when its last user is gone; it keeps the connection open until then.
pub(super) struct Lease {
    pub(super) write: Arc<ChannelWriteHalf<Msg>>,
    /// Cancelled when the guest closed the channel or the connection ended: nothing can be written
    /// any more, and the library would wait forever for the guest to take it.
    pub(super) closed: CancellationToken,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.connection.life.forget(self.write.id()));
        if self.closed.is_cancelled() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let write = Arc::clone(&self.write);
        // Closing sends a message, and a drop cannot wait for room in the queue. Where the message
        // cannot be sent the connection is gone, and the channel with it.
        runtime.spawn(async move { drop(write.close().await) });
    }
}

/// What outlives the library's task: why the connection ended and which channels are open.
#[derive(Default)]
struct Life {
    ended: CancellationToken,
    reason: OnceLock<String>,
    channels: Mutex<HashMap<ChannelId, CancellationToken>>,
}

impl Life {
    fn register(&self, id: ChannelId) -> CancellationToken {
        let token = self.ended.child_token();
        self.channels().insert(id, token.clone());
        token
    }

    fn forget(&self, id: ChannelId) -> Option<CancellationToken> {
        self.channels().remove(&id)
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, HashMap<ChannelId, CancellationToken>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reason(&self) -> &str {
        self.reason.get().map_or("it was closed", String::as_str)
    }

    fn lost(&self) -> SshError {
        SshError::Lost { reason: self.reason().to_owned() }
    }
}

/// The library's callbacks: checks the host key and notes the ends.
struct Watcher {
    expected: PublicKey,
    life: Arc<Life>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // The library's task owns the watcher, so this happens on every way out of it.
        self.life.ended.cancel();
    }
}

impl client::Handler for Watcher {
    type Error = Failure;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        let found = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                if key.key_data() == self.expected.key_data() {
                    return Ok(true);
                }
                key.fingerprint(HashAlg::Sha256).to_string()
            }
            PublicKeyOrCertificate::Certificate(_) => "of a certificate".to_owned(),
        };
        let expected = self.expected.fingerprint(HashAlg::Sha256).to_string();
        Err(Failure::HostKey { expected, found })
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _: &mut client::Session,
    ) -> Result<(), Failure> {
        if let Some(closed) = self.life.forget(channel) {
            closed.cancel();
        }
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Failure>) -> Result<(), Failure> {
        let text = match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                let said: String =
                    info.message.chars().filter(|c| !c.is_control()).take(200).collect();
                format!("the guest's ssh server hung up: {said:?}")
            }
            DisconnectReason::Error(Failure::Library(russh::Error::KeepaliveTimeout)) => {
                format!("the guest was silent for {} s", SILENCE.as_secs())
            }
            DisconnectReason::Error(Failure::Library(error)) => describe(&error),
            DisconnectReason::Error(failure) => failure.to_string(),
        };
        // The first reason is the cause.
        drop(self.life.reason.set(text));
        Ok(())
    }
}

/// Why the library's task ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("wrong host key {found}")]
    HostKey { expected: String, found: String },
    #[error(transparent)]
    Library(#[from] russh::Error),
}

/// The library's words, except for the usual end.
fn describe(error: &russh::Error) -> String {
    match error {
        russh::Error::Disconnect | russh::Error::HUP => "the guest's end was closed".to_owned(),
        russh::Error::IO(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the guest's end was closed".to_owned()
        }
        other => other.to_string(),
    }
}

fn config(limits: Limits) -> client::Config {
    client::Config {
        limits,
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        channel_buffer_size: WAITING_MESSAGES,
        preferred: Preferred {
            kex: Cow::Borrowed(&[
                kex::CURVE25519,
                kex::CURVE25519_PRE_RFC_8731,
                kex::EXTENSION_SUPPORT_AS_CLIENT,
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
            ]),
            key: Cow::Borrowed(&[Algorithm::Ed25519]),
            // The first one costs an emulated processor least (vm-facts, section 1).
            cipher: Cow::Borrowed(&[
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_GCM,
                cipher::AES_128_CTR,
                cipher::AES_256_CTR,
            ]),
            // Compressing would cost the guest more than the bytes do.
            compression: Cow::Borrowed(&[russh::compression::NONE]),
            ..Preferred::default()
        },
        // A quiet build is no dead build.
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: (SILENCE.as_secs() / KEEPALIVE.as_secs()) as usize,
        nodelay: true,
        ..client::Config::default()
    }
}
