//! A throw-away PostgreSQL.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::place::{POLL, Place, blocking};
use crate::{ServerError, ports};

/// How long a database may take until it answers, on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Attempts to start with other ports.
const ATTEMPTS: u32 = 3;

/// Where Debian puts the versions of PostgreSQL, whose programs are not in the search path.
const VERSIONS: &str = "/usr/lib/postgresql";

/// The superuser's password over TCP. Only this host reaches the port.
const PASSWORD: &str = "throw-away";

const LOG: &str = "log";

/// What differs from Debian's own. Shared memory of a kind that ends with the directory.
const SETTINGS: [&str; 4] = [
    "listen_addresses=127.0.0.1",
    "shared_buffers=32MB",
    "max_connections=100",
    "dynamic_shared_memory_type=mmap",
];

/// A PostgreSQL server for tests, as durable as one in production (`fsync` is on). Dropping it ends
/// it and removes its data.
#[derive(Clone, Debug)]
pub struct PostgresServer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    place: Mutex<Place>,
    programs: PathBuf,
    port: u16,
    databases: AtomicU32,
}

impl PostgresServer {
    /// Starts a server of its own and waits until it takes connections.
    ///
    /// # Errors
    /// See [`ServerError`]; the server has 60 s.
    pub async fn start() -> Result<Self, ServerError> {
        let inner = blocking(|| {
            let mut attempt = 1;
            loop {
                match Inner::start() {
                    Err(ServerError::Failed { .. }) if attempt < ATTEMPTS => attempt += 1,
                    result => return result,
                }
            }
        });
        Ok(Self { inner: Arc::new(inner.await?) })
    }

    /// The one server of this test process, which lives as long as it. Take a [`database`] of it and
    /// never kill it.
    ///
    /// [`database`]: PostgresServer::database
    ///
    /// # Errors
    /// As [`PostgresServer::start`]; the next call tries again.
    pub async fn shared() -> Result<&'static Self, ServerError> {
        static SHARED: OnceCell<PostgresServer> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// The address of its maintenance database, as the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.inner.url("postgres")
    }

    /// The address of a new empty database.
    ///
    /// # Errors
    /// The server does not run.
    pub async fn database(&self) -> Result<String, ServerError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let number = inner.databases.fetch_add(1, Ordering::Relaxed);
            let name = format!("test_{number}");
            let place = inner.place.lock().unwrap_or_else(PoisonError::into_inner);
            let mut command = place.command(&inner.programs.join("createdb"))?;
            command.args(["--host", inner.socket(&place).as_str(), "--username", "postgres"]);
            command.args(["--port", &inner.port.to_string(), &name]);
            place.run(command)?;
            Ok(inner.url(&name))
        })
        .await
    }

    /// Runs a statement on the database of this address, over TCP with the password, as a client
    /// would, and gives what it answers: a line for each row, `|` between the columns.
    ///
    /// # Errors
    /// The server does not run, or the statement fails.
    pub async fn query(&self, url: &str, statement: &str) -> Result<String, ServerError> {
        let inner = Arc::clone(&self.inner);
        let (url, statement) = (url.to_owned(), statement.to_owned());
        blocking(move || {
            let place = inner.place.lock().unwrap_or_else(PoisonError::into_inner);
            let mut command = place.command(&inner.programs.join("psql"))?;
            command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command"]);
            command.args([&statement, &url]);
            place.run(command).map(|output| output.trim().to_owned())
        })
        .await
    }

    /// Kills every process of the server (SIGKILL), as a power cut would. Its data stays.
    ///
    /// # Errors
    /// A process cannot be killed.
    pub async fn kill(&self) -> Result<(), ServerError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || kill(&mut inner.place.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
    }

    /// Starts it again with the same data and port, killed before or not, and waits until it takes
    /// connections.
    ///
    /// # Errors
    /// As [`PostgresServer::start`].
    pub async fn restart(&self) -> Result<(), ServerError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let mut place = inner.place.lock().unwrap_or_else(PoisonError::into_inner);
            let start = Instant::now();
            loop {
                kill(&mut place)?;
                match run(&mut place, &inner.programs, inner.port) {
                    // Somebody may have the port for a moment.
                    Err(ServerError::Failed { .. }) if start.elapsed() < START => {}
                    result => return result,
                }
            }
        })
        .await
    }
}

impl Inner {
    fn start() -> Result<Self, ServerError> {
        let programs = programs()?;
        let mut place = Place::make("postgres", "postgres")?;
        let password = place.file("password", PASSWORD)?;
        place.directory("socket")?;
        let mut command = place.command(&programs.join("initdb"))?;
        command.args(["--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        command.args(["--auth-local=trust", "--auth-host=scram-sha-256", "--pgdata=data"]);
        command.arg("--pwfile").arg(password);
        place.run(command)?;
        let [port] = ports::free()?;
        run(&mut place, &programs, port)?;
        Ok(Self { place: Mutex::new(place), programs, port, databases: AtomicU32::new(0) })
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    fn socket(&self, place: &Place) -> String {
        place.path().join("socket").to_string_lossy().into_owned()
    }
}

/// Kills the server, and removes what the kernel keeps of it: a power cut would take that as well,
/// and the next start does not come in every test.
fn kill(place: &mut Place) -> Result<(), ServerError> {
    let state = std::fs::read_to_string(place.path().join("data/postmaster.pid"));
    place.kill()?;
    // Its seventh line has the key and the number of a segment of shared memory.
    let segment = state
        .ok()
        .and_then(|state| state.lines().nth(6)?.split_whitespace().nth(1).map(ToOwned::to_owned));
    if let Some(segment) = segment {
        // It may be gone already: the server has ended by itself.
        drop(place.command(Path::new("/usr/bin/ipcrm"))?.args(["-m", &segment]).output());
    }
    Ok(())
}

/// Starts the server and waits until it takes connections.
fn run(place: &mut Place, programs: &Path, port: u16) -> Result<(), ServerError> {
    let socket = place.path().join("socket");
    let mut command: Command = place.command(&programs.join("postgres"))?;
    command.args(["-D", "data", "-p", &port.to_string(), "-k"]).arg(&socket);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    place.spawn(command, LOG)?;
    let start = Instant::now();
    loop {
        let mut ready = place.command(&programs.join("pg_isready"))?;
        ready.arg("--quiet").arg("--host").arg(&socket).args(["--port", &port.to_string()]);
        // It listens on TCP before it answers on its own socket, and on both or not at all.
        if place.run(ready).is_ok() && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(());
        }
        if place.has_ended() {
            return Err(ServerError::Failed {
                what: "postgres".to_owned(),
                output: place.log(LOG),
            });
        }
        if start.elapsed() > START {
            let output = place.log(LOG);
            return Err(ServerError::Silent { what: "postgres", deadline: START, output });
        }
        std::thread::sleep(POLL);
    }
}

/// The programs of the newest version that is installed.
fn programs() -> Result<PathBuf, ServerError> {
    let missing =
        || ServerError::Missing { program: Path::new(VERSIONS).join("VERSION/bin/postgres") };
    let versions = std::fs::read_dir(VERSIONS).map_err(|_| missing())?;
    let newest = versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            programs.join("postgres").is_file().then_some((version, programs))
        })
        .max();
    newest.map(|(_, programs)| programs).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_committed_survives_a_kill_and_nothing_stays_after_the_end() {
        let server = PostgresServer::start().await.unwrap();
        let (one, two) = (server.database().await.unwrap(), server.database().await.unwrap());
        assert_ne!(one, two);
        server.query(&one, "CREATE TABLE t AS SELECT 42 AS n").await.unwrap();
        assert!(server.query(&two, "SELECT n FROM t").await.is_err(), "the databases are one");
        assert_eq!(server.query(&one, "SHOW fsync").await.unwrap(), "on");

        server.kill().await.unwrap();
        assert!(server.query(&one, "SELECT n FROM t").await.is_err(), "it still answers");
        server.restart().await.unwrap();
        assert_eq!(server.query(&one, "SELECT n FROM t").await.unwrap(), "42");

        let (path, pids) = {
            let place = server.inner.place.lock().unwrap();
            (place.path().to_owned(), place.processes())
        };
        assert!(pids.len() > 3, "the server's processes are found: {pids:?}");
        let state = std::fs::read_to_string(path.join("data/postmaster.pid")).unwrap();
        let key = state.lines().nth(6).unwrap().split_whitespace().next().unwrap().to_owned();
        let segments = || std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        let has =
            |key: &str| segments().lines().any(|line| line.split_whitespace().next() == Some(key));
        assert!(has(&key), "the server's shared memory is found: {key}");
        drop(server);
        assert!(!path.exists());
        assert!(!has(&key), "shared memory {key} is still there");
        for pid in pids {
            assert!(!crate::place::runs(pid), "process {pid} is still there");
        }
    }
}
