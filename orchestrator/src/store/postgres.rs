//! The store in a PostgreSQL database that the hosts of an installation share.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Executor};
use tokio_util::task::AbortOnDropHandle;

use super::session::Session;
use super::signal::Signal;
use super::value::values;
use super::{StoreError, migrations};

/// Connections for calls.
const CALLERS: u32 = 8;
/// How long a call waits for a connection, and a connection for a database that is starting.
const CONNECT: Duration = Duration::from_secs(5);
/// The pause before the listener tries again to reach a database that does not answer.
const AGAIN: Duration = Duration::from_secs(1);
/// On which channel hosts tell each other that there may be something to claim.
const CHANNEL: &str = "solstice_jobs";
/// What every connection begins with. No statement of the store is long, and a process that stopped
/// in the middle of a transaction must not hold its rows for ever.
const LIMITS: &str = "SET statement_timeout = '30s'; SET lock_timeout = '20s'; \
                      SET idle_in_transaction_session_timeout = '60s'";

/// The store in a PostgreSQL database. Clones share the connections.
#[derive(Clone, Debug)]
pub(super) struct Postgres {
    pool: PgPool,
    signal: Arc<Signal>,
    _listener: Arc<AbortOnDropHandle<()>>,
}

impl Postgres {
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url.parse()?;
        let options = options.application_name("solstice").disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(CALLERS + 1)
            .acquire_timeout(CONNECT)
            .after_connect(|connection, _| {
                Box::pin(async move { connection.execute(LIMITS).await.map(drop) })
            })
            .connect_with(options)
            .await?;
        migrations::postgres(&mut *pool.acquire().await?).await?;

        let signal = Arc::new(Signal::new());
        let listener = connect(&pool).await?;
        let task = tokio::spawn(listen(pool.clone(), listener, Arc::clone(&signal)));
        Ok(Self { pool, signal, _listener: Arc::new(AbortOnDropHandle::new(task)) })
    }

    pub(super) fn signal(&self) -> &Signal {
        &self.signal
    }

    pub(super) async fn read(&self) -> Result<Session, StoreError> {
        Ok(Session::postgres_reader(self.pool.acquire().await?))
    }

    /// Makes a change in a transaction of its own.
    pub(super) async fn write<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Result<T, StoreError>> + Send + 'static,
    {
        let mut session = Session::postgres(self.pool.begin().await?);
        let result = change(&mut session).await?;
        if session.take_wake() {
            session.execute("SELECT pg_notify($1, '')", values![CHANNEL]).await?;
        }
        session.commit().await?;
        Ok(result)
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Passes notifications on. What came while the connection was lost is not known, so that a new
/// connection counts as a notification.
async fn listen(pool: PgPool, mut listener: PgListener, signal: Arc<Signal>) {
    while !pool.is_closed() {
        match listener.try_recv().await {
            Ok(_) => signal.raise(),
            Err(error) => {
                tracing::warn!(error = %error, "the store's listener lost the database");
                let Some(again) = reconnect(&pool).await else { return };
                listener = again;
                signal.raise();
            }
        }
    }
}

/// A new listener, or nothing once the store is closed.
async fn reconnect(pool: &PgPool) -> Option<PgListener> {
    while !pool.is_closed() {
        if let Ok(listener) = connect(pool).await {
            return Some(listener);
        }
        tokio::time::sleep(AGAIN).await;
    }
    None
}

async fn connect(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}
