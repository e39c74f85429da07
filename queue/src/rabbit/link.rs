//! One connection to the broker, made again whenever it is lost.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::topology::Names;
use crate::QueueError;

/// How long a broker may take until it has accepted a connection and declared what is shared.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a broker may take to end a connection.
const CLOSE: Duration = Duration::from_secs(5);

/// Both sides of a connection send something at least this often, in seconds; one that is silent
/// for twice as long is gone. The deliveries of a lost host come to others after that.
const HEARTBEAT: u16 = 10;

/// The first pause before another attempt; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A connection for one purpose. lapin could repair it by itself; what becomes of unconfirmed
/// messages and old deliveries would then be up to it, so it is made new instead.
pub(super) struct Link {
    uri: AMQPUri,
    tls: OwnedTLSConfig,
    names: Names,
    purpose: &'static str,
    closed: CancellationToken,
    connection: Mutex<Option<Arc<Connection>>>,
}

/// The pauses between attempts.
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Link {
    pub(super) fn new(
        settings: &Settings,
        names: &Names,
        purpose: &'static str,
        closed: CancellationToken,
    ) -> Result<Self, QueueError> {
        // The text of the error may hold the URL and with it the password.
        let mut uri: AMQPUri = settings.url.parse().map_err(|_| QueueError::Unavailable {
            reason: "the broker's url is not `amqp://HOST:PORT/VHOST` or `amqps://..`".to_owned(),
        })?;
        if let Some(user) = &settings.user {
            uri.authority.userinfo.username.clone_from(user);
        }
        if let Some(password) = &settings.password {
            uri.authority.userinfo.password = password.to_string();
        }
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat = Some(uri.query.heartbeat.unwrap_or(HEARTBEAT));
        let tls = OwnedTLSConfig { cert_chain: settings.authority.clone(), identity: None };
        let connection = Mutex::new(None);
        Ok(Self { uri, tls, names: names.clone(), purpose, closed, connection })
    }

    /// A new channel, on a new connection if there is none. Waiting for others who make one counts:
    /// it takes twice the deadline of a connection at most.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses, or the queue was closed.
    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        let work = async {
            let connection = self.connection().await?;
            connection.create_channel().await.map_err(|error| self.error("open a channel", &error))
        };
        let work = timeout(2 * CONNECT, work);
        match self.closed.run_until_cancelled(work).await {
            None => Err(QueueError::Closed),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(self.unavailable("connect", "it does not answer")),
        }
    }

    /// Ends the connection, if there is one.
    pub(super) async fn close(&self) {
        let Some(connection) = self.connection.lock().await.take() else { return };
        // One that cannot be closed is dropped, which ends it as well.
        drop(timeout(CLOSE, connection.close(200, "closed".into())).await);
    }

    /// An error of the broker with what was tried.
    pub(super) fn error(&self, what: &str, error: &lapin::Error) -> QueueError {
        self.unavailable(what, &error.to_string())
    }

    fn unavailable(&self, what: &str, reason: &str) -> QueueError {
        let authority = &self.uri.authority;
        let broker = format!("{}:{}", authority.host, authority.port);
        QueueError::Unavailable {
            reason: format!("failed to {what} on the broker {broker}: {reason}"),
        }
    }

    async fn connection(&self) -> Result<Arc<Connection>, QueueError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|found| found.status().connected()) {
            return Ok(Arc::clone(connection));
        }
        *slot = None;
        let connection = timeout(CONNECT, self.connect()).await;
        let connection =
            connection.map_err(|_| self.unavailable("connect", "it does not answer"))?;
        let connection = Arc::new(connection.map_err(|error| self.error("connect", &error))?);
        // `close` may have looked before this one was made.
        if self.closed.is_cancelled() {
            return Err(QueueError::Closed);
        }
        *slot = Some(Arc::clone(&connection));
        tracing::debug!(purpose = self.purpose, "connected to the broker");
        Ok(connection)
    }

    /// Makes a connection on which nothing is declared, and ends it.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses.
    pub(super) async fn look(&self) -> Result<(), QueueError> {
        let opened = timeout(CONNECT, self.open()).await;
        let opened = opened.map_err(|_| self.unavailable("connect", "it does not answer"))?;
        let connection = opened.map_err(|error| self.error("connect", &error))?;
        *self.connection.lock().await = Some(Arc::new(connection));
        self.close().await;
        Ok(())
    }

    async fn connect(&self) -> lapin::Result<Connection> {
        let connection = self.open().await?;
        // Each time: the broker may have been replaced by an empty one.
        let channel = connection.create_channel().await?;
        self.names.declare(&channel).await?;
        channel.close(200, "declared".into()).await?;
        Ok(connection)
    }

    async fn open(&self) -> lapin::Result<Connection> {
        let name = format!("solstice {} {}", self.purpose, self.names.control());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = lapin::runtime::default_runtime()?;
        let (uri, tls) = (self.uri.clone(), self.tls.clone());
        Connection::connect_uri_with_config(uri, properties, tls, runtime).await
    }
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = self.uri.scheme == AMQPScheme::AMQPS;
        f.debug_struct("Link")
            .field("purpose", &self.purpose)
            .field("host", &self.uri.authority.host)
            .field("tls", &tls)
            .finish_non_exhaustive()
    }
}
