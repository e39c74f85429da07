//! A server in this process that does what a test tells it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::server::{self, Auth, ChannelOpenHandle, Config, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, Limits};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

use crate::ssh::connection::Connection;
use crate::ssh::{Guest, Keys};

/// What the server does with a command.
pub(super) type Script = fn(ChannelId, &mut Session) -> Result<(), russh::Error>;

struct Scripted {
    script: Script,
}

impl server::Handler for Scripted {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        (self.script)(channel, session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        (self.script)(channel, session)
    }
}

/// Serves one connection.
pub(super) fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    keys: &Keys,
    script: Script,
) {
    let host = PrivateKey::from_openssh(&**keys.host_private_openssh().unwrap()).unwrap();
    let config =
        Config { keys: vec![host], auth_rejection_time: Duration::ZERO, ..Config::default() };
    tokio::spawn(async move {
        let session =
            server::run_stream(Arc::new(config), stream, Scripted { script }).await.unwrap();
        // How the connection ends is what the tests look at from the other side.
        drop(session.await);
    });
}

/// A guest on the other end of a server that follows `script`.
pub(super) async fn guest(script: Script) -> Guest {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let keys = Keys::generate().unwrap();
    serve(theirs, &keys, script);
    over(ours, &keys).await
}

/// Logs in over `stream`.
pub(super) async fn over(stream: DuplexStream, keys: &Keys) -> Guest {
    let address = SocketAddr::from(([192, 0, 2, 1], 22));
    let connection =
        Connection::over(stream, address, "root", keys, Limits::default()).await.unwrap();
    Guest::new(connection)
}
