//! A throw-away RabbitMQ.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::place::{POLL, Place, blocking};
use crate::{ServerError, ports};

/// How long a broker may take until it answers. It takes six seconds on an idle machine.
const START: Duration = Duration::from_secs(60);

/// How long `epmd`, in which the nodes of Erlang find each other, may take until it listens.
const EPMD: Duration = Duration::from_secs(10);

/// How long a broker that accepted a connection may take for its first frame.
const GREETING: Duration = Duration::from_secs(5);

/// Attempts to start with other ports.
const ATTEMPTS: u32 = 3;

/// The programs themselves: those in the search path insist on the system's own broker.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// The protocol header of AMQP 0-9-1.
const HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

const LOG: &str = "log";

/// A RabbitMQ broker for tests, on which everything durable is as durable as in production.
/// Dropping it ends it and removes its data.
#[derive(Clone, Debug)]
pub struct RabbitServer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    place: Mutex<Place>,
    ports: Ports,
    prefixes: AtomicU32,
    /// The certificate in PEM form, of a broker that speaks TLS only.
    certificate: Option<String>,
}

/// Where a broker listens: for AMQP, for other nodes, its name service, and its management
/// command while that runs.
#[derive(Clone, Copy, Debug)]
struct Ports {
    amqp: u16,
    node: u16,
    epmd: u16,
    command: u16,
}

impl RabbitServer {
    /// Starts a broker of its own and waits until it answers.
    ///
    /// # Errors
    /// See [`ServerError`]; the broker has 60 s.
    pub async fn start() -> Result<Self, ServerError> {
        Self::start_with(false).await
    }

    /// Starts a broker of its own that takes nothing but TLS, with a certificate that it signed
    /// itself, for the address in [`RabbitServer::url`].
    ///
    /// # Errors
    /// As [`RabbitServer::start`].
    pub async fn start_tls() -> Result<Self, ServerError> {
        Self::start_with(true).await
    }

    async fn start_with(tls: bool) -> Result<Self, ServerError> {
        let inner = blocking(move || {
            let mut attempt = 1;
            loop {
                match Inner::start(tls) {
                    Err(ServerError::Failed { .. }) if attempt < ATTEMPTS => attempt += 1,
                    result => return result,
                }
            }
        });
        Ok(Self { inner: Arc::new(inner.await?) })
    }

    /// The one broker of this test process, which lives as long as it. Put a [`prefix`] before every
    /// name, and never kill it.
    ///
    /// [`prefix`]: RabbitServer::prefix
    ///
    /// # Errors
    /// As [`RabbitServer::start`]; the next call tries again.
    pub async fn shared() -> Result<&'static Self, ServerError> {
        static SHARED: OnceCell<RabbitServer> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// A prefix that nobody else on this broker has.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("test-{}", self.inner.prefixes.fetch_add(1, Ordering::Relaxed))
    }

    /// Its address, with user and password.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.inner.certificate.is_some() { "amqps" } else { "amqp" };
        format!("{scheme}://guest:guest@127.0.0.1:{}/%2f", self.inner.ports.amqp)
    }

    /// The certificate that a client must trust, in PEM form; absent without TLS.
    #[must_use]
    pub fn certificate(&self) -> Option<&str> {
        self.inner.certificate.as_deref()
    }

    /// Has the broker write down which quorum queues it has.
    ///
    /// RabbitMQ 3.10 registers a new quorum queue in a table that it writes up to three seconds
    /// later. Killed before that, it makes the queue anew when it starts, empty and without a leader:
    /// what is published to it is neither confirmed nor refused until the broker starts once more.
    /// A test that is not about this window calls this between declaring and
    /// [`RabbitServer::kill`].
    ///
    /// # Errors
    /// The broker does not run.
    pub async fn settle(&self) -> Result<(), ServerError> {
        let sync = "[ok = dets:sync(Table) || Table <- dets:all()], ok.";
        self.control(&["eval", sync]).await.map(drop)
    }

    /// Kills every process of the broker (SIGKILL), as a power cut would. Its data stays, except
    /// for what [`RabbitServer::settle`] tells.
    ///
    /// # Errors
    /// A process cannot be killed.
    pub async fn kill(&self) -> Result<(), ServerError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.place.lock().unwrap_or_else(PoisonError::into_inner).kill()).await
    }

    /// Starts it again with the same data and ports, killed before or not, and waits until it
    /// answers.
    ///
    /// # Errors
    /// As [`RabbitServer::start`].
    pub async fn restart(&self) -> Result<(), ServerError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let mut place = inner.place.lock().unwrap_or_else(PoisonError::into_inner);
            let start = Instant::now();
            loop {
                place.kill()?;
                match run(&mut place, inner.ports, inner.certificate.is_some()) {
                    // Somebody may have a port for a moment.
                    Err(ServerError::Failed { .. }) if start.elapsed() < START => {}
                    result => return result,
                }
            }
        })
        .await
    }

    /// Has the broker close every connection, as an administrator would.
    ///
    /// # Errors
    /// The broker does not run.
    pub async fn close_connections(&self) -> Result<(), ServerError> {
        self.control(&["close_all_connections", "test"]).await.map(drop)
    }

    /// Runs `rabbitmqctl` with these arguments and gives what it wrote.
    ///
    /// # Errors
    /// The broker does not run, or refuses.
    pub async fn control(&self, arguments: &[&str]) -> Result<String, ServerError> {
        let inner = Arc::clone(&self.inner);
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        blocking(move || {
            // Locked while it runs: it has one port.
            let place = inner.place.lock().unwrap_or_else(PoisonError::into_inner);
            let mut command = program(&place, "rabbitmqctl", inner.ports)?;
            command.arg("--quiet").args(arguments);
            place.run(command)
        })
        .await
    }
}

impl Inner {
    fn start(tls: bool) -> Result<Self, ServerError> {
        let mut place = Place::make("rabbit", "rabbitmq")?;
        let [amqp, node, epmd, command] = ports::free()?;
        let ports = Ports { amqp, node, epmd, command };
        for name in ["data", "logs", "generated", "expanded"] {
            place.directory(name)?;
        }
        // Who has the cookie may do everything on the node.
        let cookie = place.file(".erlang.cookie", &uniqueness())?;
        drop(cookie);
        place.file("plugins", "[].")?;
        place.file("env.conf", "")?;
        // A test's messages are few; the machine's disk and memory belong to others.
        let certificate = if tls { Some(certificate(&place)?) } else { None };
        let listener = if tls {
            format!(
                "listeners.tcp = none\n\
                 listeners.ssl.1 = 127.0.0.1:{amqp}\n\
                 ssl_options.certfile = {path}/certificate\n\
                 ssl_options.keyfile = {path}/key\n",
                path = place.path().display()
            )
        } else {
            format!("listeners.tcp.1 = 127.0.0.1:{amqp}\n")
        };
        let settings = format!(
            "{listener}\
             vm_memory_high_watermark.absolute = 1GiB\n\
             disk_free_limit.absolute = 50MB\n\
             log.console = true\n\
             log.console.level = warning\n\
             log.file = false\n"
        );
        place.file("rabbitmq.conf", &settings)?;
        run(&mut place, ports, tls)?;
        Ok(Self { place: Mutex::new(place), ports, prefixes: AtomicU32::new(0), certificate })
    }
}

/// Starts the name service, then the broker, and waits until that answers.
fn run(place: &mut Place, ports: Ports, tls: bool) -> Result<(), ServerError> {
    // Started by the broker it would be a daemon that outlives it.
    let mut epmd = place.command(Path::new("/usr/bin/epmd"))?;
    epmd.args(["-address", "127.0.0.1", "-port", &ports.epmd.to_string()]);
    place.spawn(epmd, LOG)?;
    wait(place, "epmd", EPMD, || listens(ports.epmd))?;
    let server = program(place, "rabbitmq-server", ports)?;
    place.spawn(server, LOG)?;
    wait(place, "rabbitmq-server", START, || {
        // It listens when everything else of it has started; who speaks TLS only does not greet.
        if tls { listens(ports.amqp) } else { answers(ports.amqp) }
    })
}

fn wait(
    place: &mut Place,
    what: &'static str,
    deadline: Duration,
    ready: impl Fn() -> bool,
) -> Result<(), ServerError> {
    let start = Instant::now();
    loop {
        if place.has_ended() {
            return Err(ServerError::Failed { what: what.to_owned(), output: place.log(LOG) });
        }
        if ready() {
            return Ok(());
        }
        if start.elapsed() > deadline {
            return Err(ServerError::Silent { what, deadline, output: place.log(LOG) });
        }
        std::thread::sleep(POLL);
    }
}

/// Makes a key and a certificate that it signs itself, and gives the certificate.
fn certificate(place: &Place) -> Result<String, ServerError> {
    let mut command = place.command(Path::new("/usr/bin/openssl"))?;
    command.args(["req", "-x509", "-noenc", "-days", "2", "-subj", "/CN=throw-away"]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
    // By default it would be an authority, which a server may not be.
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    command.args(["-keyout", "key", "-out", "certificate"]);
    place.run(command)?;
    std::fs::read_to_string(place.path().join("certificate"))
        .map_err(ServerError::system("read a certificate"))
}

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Whether a broker greets: the answer to the protocol header is a frame of type 1, a method.
fn answers(port: u16) -> bool {
    let greet = || -> std::io::Result<u8> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(GREETING))?;
        stream.write_all(&HEADER)?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first[0])
    };
    greet().is_ok_and(|first| first == 1)
}

/// A program of RabbitMQ with everything in the place and on these ports.
fn program(place: &Place, name: &str, ports: Ports) -> Result<Command, ServerError> {
    let mut command = place.command(&Path::new(PROGRAMS).join(name))?;
    let path = place.path();
    command
        .env("RABBITMQ_NODENAME", format!("solstice-{}@localhost", ports.amqp))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", ports.amqp.to_string())
        .env("RABBITMQ_DIST_PORT", ports.node.to_string())
        .env("RABBITMQ_CTL_DIST_PORT_MIN", ports.command.to_string())
        .env("RABBITMQ_CTL_DIST_PORT_MAX", ports.command.to_string())
        .env("RABBITMQ_MNESIA_BASE", path.join("data"))
        .env("RABBITMQ_LOG_BASE", path.join("logs"))
        .env("RABBITMQ_GENERATED_CONFIG_DIR", path.join("generated"))
        .env("RABBITMQ_PLUGINS_EXPAND_DIR", path.join("expanded"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", path.join("plugins"))
        .env("RABBITMQ_CONFIG_FILE", path.join("rabbitmq.conf"))
        .env("RABBITMQ_CONF_ENV_FILE", path.join("env.conf"))
        .env("RABBITMQ_PID_FILE", path.join("pid"))
        // Bytes that nobody may read go into no core file.
        .env("ERL_CRASH_DUMP", "/dev/null")
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", ports.epmd.to_string())
        // No node starts an epmd of its own, none listens to the world.
        .env("ERL_FLAGS", "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}");
    Ok(command)
}

fn uniqueness() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_broker_comes_back_with_its_data_and_leaves_nothing() {
        let server = RabbitServer::start().await.unwrap();
        server.control(&["add_vhost", "kept"]).await.unwrap();
        server.kill().await.unwrap();
        assert!(!answers(server.inner.ports.amqp), "it still answers");
        server.restart().await.unwrap();
        let hosts = server.control(&["list_vhosts"]).await.unwrap();
        assert!(hosts.lines().any(|line| line == "kept"), "{hosts}");

        let mut stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, server.inner.ports.amqp)).unwrap();
        stream.write_all(&HEADER).unwrap();
        assert_ne!(server.prefix(), server.prefix());

        let (path, pids) = {
            let place = server.inner.place.lock().unwrap();
            (place.path().to_owned(), place.processes())
        };
        assert!(pids.len() > 2, "the broker's processes are found: {pids:?}");
        drop(server);
        assert!(!path.exists());
        for pid in pids {
            assert!(!crate::place::runs(pid), "process {pid} is still there");
        }
    }
}
