//! The job's services on the guest's own 127.0.0.1, for programs of steps: what they ask is asked of the
//! services by calls to the host. So they need no route to the forge and no certificates, and the host
//! opens no port for them.
//!
//! Which service is meant is told by the path: clients take only scheme, host and port of an address
//! that they are given.
//!
//! ```text
//!  program of a step ──────▶ 127.0.0.1:PORT ───────┐
//!                                                  ├──▶ service of the path ──▶ host
//!  program in a container ─▶ GATEWAY:OTHER PORT ───┘
//!                            (from its subnet only)
//! ```
//!
//! Programs in containers have a 127.0.0.1 of their own, and reach the machine by the gateway of their
//! network. That address comes and goes: podman makes the bridge that has it with the first container
//! of the network and removes it behind the last. So the second port is opened on all addresses, and a
//! connection is admitted by its two ends: it comes to the gateway, from the network's subnet. All
//! others are closed unread. That needs no interface to be there and nothing that only Linux has.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::call::{CallAnswer, CallError, CallErrorKind, ForwardWish, HostCall};
use common::guest::GuestService;
use futures_util::TryStreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::io::{ReaderStream, StreamReader};
use tokio_util::sync::CancellationToken;

use super::calls::{Answer, Calls};
use crate::host::ContainerNetwork;
use crate::service;

/// Connections at the same time, wherever they come from; further ones wait. Each may have a call open.
const CONNECTIONS: usize = 48;

/// How long a program may take to send the head of a request, also of the next one on a connection.
const HEAD: Duration = Duration::from_secs(60);

/// An answer in JSON in which addresses are looked for has no more bytes.
const JSON_BYTES: u64 = 16 * 1024 * 1024;

/// The bytes that are read of a body at once.
const READ_BYTES: usize = 32 * 1024;

type OutBody = UnsyncBoxBody<Bytes, io::Error>;

/// Answers programs of this machine and of its containers, by asking the host; until it is dropped.
pub(super) struct Forwarder {
    shared: Arc<Shared>,
    address: String,
}

/// What all doors have in common.
struct Shared {
    calls: Calls,
    services: Vec<GuestService>,
    /// As many as there may be connections.
    room: Arc<Semaphore>,
    /// Cancelled when the forwarder is dropped.
    end: CancellationToken,
}

/// An address at which programs ask.
struct Door {
    shared: Arc<Shared>,
    /// `HOST:PORT`, as those know it who ask there.
    authority: String,
    /// Whose programs ask there; nobody but this machine reaches its loopback address.
    network: Option<ContainerNetwork>,
}

impl Forwarder {
    /// Listens on the loopback address.
    ///
    /// # Errors
    /// The machine has no loopback network.
    pub(super) async fn start(calls: Calls, services: Vec<GuestService>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let authority = listener.local_addr()?.to_string();
        let address = format!("http://{authority}");
        let (room, end) = (Arc::new(Semaphore::new(CONNECTIONS)), CancellationToken::new());
        let shared = Arc::new(Shared { calls, services, room, end });
        Door { shared: Arc::clone(&shared), authority, network: None }.open(listener);
        Ok(Self { shared, address })
    }

    /// Where programs of this machine ask: `http://127.0.0.1:PORT`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Listens for the containers of a network as well. Gives where their programs ask.
    ///
    /// # Errors
    /// The machine has no port left.
    pub(super) async fn open_to(&self, network: ContainerNetwork) -> io::Result<String> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        let authority = format!("{}:{}", network.gateway(), listener.local_addr()?.port());
        let address = format!("http://{authority}");
        let shared = Arc::clone(&self.shared);
        Door { shared, authority, network: Some(network) }.open(listener);
        Ok(address)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.end.cancel();
    }
}

/// Whether a connection between these addresses is that of a container of the network.
fn admits(network: &ContainerNetwork, here: SocketAddr, there: SocketAddr) -> bool {
    match (here.ip(), there.ip()) {
        (IpAddr::V4(here), IpAddr::V4(there)) => here == network.gateway() && network.has(there),
        _ => false,
    }
}

impl Door {
    /// Serves until the forwarder is dropped.
    fn open(self, listener: TcpListener) {
        let door = Arc::new(self);
        let end = door.shared.end.clone();
        tokio::spawn(end.run_until_cancelled_owned(door.serve(listener)));
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let room = Arc::clone(&self.shared.room);
            let Ok(permit) = room.acquire_owned().await else { return };
            let Ok((stream, there)) = listener.accept().await else {
                // There are too many open files; some of them will be closed.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if !self.is_for(&stream, there) {
                continue;
            }
            let door = Arc::clone(&self);
            tokio::spawn(async move {
                let end = door.shared.end.clone();
                end.run_until_cancelled_owned(door.converse(stream)).await;
                drop(permit);
            });
        }
    }

    /// Whether a connection is from somebody who asks here.
    fn is_for(&self, stream: &TcpStream, there: SocketAddr) -> bool {
        let Some(network) = &self.network else { return true };
        stream.local_addr().is_ok_and(|here| admits(network, here, there))
    }

    async fn converse(self: Arc<Self>, stream: TcpStream) {
        let answer = service_fn(move |request| {
            let door = Arc::clone(&self);
            async move { Ok::<_, Infallible>(door.answer(request).await) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD);
        // A program that breaks off is no concern of ours.
        drop(server.serve_connection(TokioIo::new(stream), answer).await);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<OutBody> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let services = &self.shared.services;
        let Some(service) = services.iter().find(|service| service::serves(service, &path)) else {
            let text = format!("{path} is no path of a service that this job has");
            return refuse(&CallError::new(CallErrorKind::NotFound, text));
        };
        if !self.admits(service, &request) {
            let text = "a program in a container must send the token of the job's service";
            return refuse_as(StatusCode::UNAUTHORIZED, text);
        }
        let is_head = request.method() == Method::HEAD;
        match self.ask(service, path, request).await {
            Ok(answer) => self.pass_on(service, answer, is_head).await,
            Err(error) => refuse(&error),
        }
    }

    /// Whether a request may go to a service. The host adds the service's token where none comes, but
    /// containers may be of anybody, and not all of them were given it.
    fn admits(&self, service: &GuestService, request: &Request<Incoming>) -> bool {
        let Some(token) = service.token.as_ref().filter(|_| self.network.is_some()) else {
            return true;
        };
        let sent = request.headers().get(AUTHORIZATION).and_then(|sent| sent.to_str().ok());
        let sent = sent.and_then(|sent| sent.split_once(' ')).map(|(_, sent)| sent.trim());
        sent == Some(token.expose()) || service::is_signed(request.uri().path())
    }

    async fn ask(
        &self,
        service: &GuestService,
        path: String,
        request: Request<Incoming>,
    ) -> Result<Answer, CallError> {
        let (parts, body) = request.into_parts();
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        };
        // The host's own services make addresses of this one, and a program may say anything there.
        let host = (HOST.as_str().to_owned(), self.authority.clone());
        let others = parts.headers.iter().filter(|(name, _)| **name != HOST).filter_map(text);
        let wish = ForwardWish {
            service: service.name.clone(),
            method: parts.method.as_str().to_owned(),
            path,
            headers: std::iter::once(host).chain(others).collect(),
            has_body: !body.is_end_stream(),
        };
        let stream = body.into_data_stream().map_err(io::Error::other);
        let call = HostCall::Forward(wish);
        self.shared.calls.call_once(&call, &mut StreamReader::new(Box::pin(stream))).await
    }

    async fn pass_on(
        &self,
        service: &GuestService,
        answer: Answer,
        is_head: bool,
    ) -> Response<OutBody> {
        let Answer { head, mut body } = answer;
        let CallAnswer::Forward { status, headers } = head else {
            let text = "the host answered another question";
            return refuse(&CallError::new(CallErrorKind::Unavailable, text));
        };
        let mut response = Response::new(full(Vec::new()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        let fields = response.headers_mut();
        for (name, value) in headers {
            let name = HeaderName::try_from(name);
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                fields.append(name, value);
            }
        }
        let kind = fields.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_json = kind.is_some_and(|kind| kind.starts_with("application/json"));
        if is_head {
            return response;
        }
        if is_json && !service.base_url.is_empty() {
            let mut bytes = Vec::new();
            if let Err(error) = (&mut body).take(JSON_BYTES).read_to_end(&mut bytes).await {
                return refuse(&CallError::new(CallErrorKind::Unavailable, error.to_string()));
            }
            if bytes.len() as u64 == JSON_BYTES {
                // Whatever this is, it is none of the answers in which addresses stand.
                *response.body_mut() = streamed(io::Cursor::new(bytes).chain(body));
                return response;
            }
            let address = format!("http://{}", self.authority);
            let bytes = service::localize(service, &address, &bytes).unwrap_or(bytes);
            fields.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            *response.body_mut() = full(bytes);
        } else {
            *response.body_mut() = streamed(body);
        }
        response
    }
}

fn full(bytes: Vec<u8>) -> OutBody {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync()
}

fn streamed(body: impl AsyncRead + Send + 'static) -> OutBody {
    let parts = ReaderStream::with_capacity(body, READ_BYTES).map_ok(Frame::data);
    StreamBody::new(parts).boxed_unsync()
}

/// What a program gets that asked for what cannot be. Clients ask again after some of these.
fn refuse(error: &CallError) -> Response<OutBody> {
    let status = match error.kind {
        CallErrorKind::NotFound => StatusCode::NOT_FOUND,
        CallErrorKind::Refused => StatusCode::FORBIDDEN,
        CallErrorKind::Invalid => StatusCode::BAD_REQUEST,
        // Clients of the blob service ask again after this one, and not after 502.
        CallErrorKind::Busy | CallErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    refuse_as(status, &error.message)
}

fn refuse_as(status: StatusCode, message: &str) -> Response<OutBody> {
    let said = serde_json::json!({ "error": message, "message": message });
    let mut response = Response::new(full(said.to_string().into_bytes()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use common::call::{Ask, Reply, cache_service};
    use common::guest::FromGuest;
    use common::request::Secret;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpSocket;

    use super::super::calls::{Switchboard, calls};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A question, and what the forge answers.
    const LIST: &str = "GET /twirp/a/List HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    const LISTED: &str = r#"{"signedUrl":"https://forge.example/twirp/a/Up?sig=1"}"#;

    fn artifacts() -> GuestService {
        GuestService {
            name: "artifacts".to_owned(),
            base_url: "https://forge.example".to_owned(),
            token: None,
            paths: vec!["/twirp/a/".to_owned()],
        }
    }

    /// Sends a request and gives the whole answer.
    async fn ask(address: &str, request: &str) -> String {
        let mut stream =
            TcpStream::connect(address.strip_prefix("http://").unwrap()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(PATIENCE, read).await.expect("an answer comes").unwrap();
        answer
    }

    /// Answers the next call as a host does; gives what was asked, and the body.
    async fn serve(
        switchboard: &mut Switchboard,
        kind: &str,
        text: &str,
    ) -> (ForwardWish, Vec<u8>) {
        let (mut asked, mut bytes) = (None, Vec::new());
        loop {
            let next = tokio::time::timeout(PATIENCE, switchboard.next()).await.expect("a call");
            let FromGuest::Call { call, ask } = next else { panic!("{next:?}") };
            match ask {
                Ask::Begin(HostCall::Forward(wish)) => asked = Some(wish),
                Ask::Data(part) => bytes.extend(part),
                Ask::End => {
                    let headers = vec![("content-type".to_owned(), kind.to_owned())];
                    let head = CallAnswer::Forward { status: 201, headers };
                    switchboard.take(call, Reply::Head(Ok(head)));
                    switchboard.take(call, Reply::Data(text.as_bytes().to_vec()));
                    switchboard.take(call, Reply::End);
                    return (asked.expect("a request"), bytes);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_request_is_asked_of_the_service_that_its_path_names() {
        let (calls, mut switchboard) = calls();
        switchboard.attach();
        let services = vec![cache_service(), artifacts()];
        let forwarder = Forwarder::start(calls, services).await.unwrap();
        let address = forwarder.address();
        let request = "POST /_apis/artifactcache/caches?a=b HTTP/1.1\r\nHost: here\r\n\
                       Content-Length: 4\r\nConnection: close\r\n\r\nbody";
        let served = serve(&mut switchboard, "text/plain", "made");
        let (answer, (wish, body)) = tokio::join!(ask(address, request), served);
        assert_eq!((wish.service.as_str(), wish.method.as_str()), ("cache", "POST"));
        assert_eq!(wish.path, "/_apis/artifactcache/caches?a=b");
        // The host makes addresses of it, and the program says what it likes.
        let hosts: Vec<_> = wish.headers.iter().filter(|(name, _)| name == "host").collect();
        let authority = address.strip_prefix("http://").unwrap();
        assert_eq!(hosts, [&("host".to_owned(), authority.to_owned())]);
        assert_eq!(body, b"body");
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        assert!(answer.ends_with("made\r\n0\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn addresses_in_answers_of_the_forge_are_local() {
        let (calls, mut switchboard) = calls();
        switchboard.attach();
        let forwarder = Forwarder::start(calls, vec![artifacts()]).await.unwrap();
        let address = forwarder.address();
        let served = serve(&mut switchboard, "application/json", LISTED);
        let (answer, (wish, _)) = tokio::join!(ask(address, LIST), served);
        assert!(!wish.has_body);
        let expected = format!("{{\"signedUrl\":\"{address}/twirp/a/Up?sig=1\"}}");
        assert!(answer.ends_with(&expected), "{answer}");
    }

    #[tokio::test]
    async fn what_no_service_has_is_refused_here() {
        let (calls, _switchboard) = calls();
        let forwarder = Forwarder::start(calls, vec![artifacts()]).await.unwrap();
        for (request, expected) in [
            ("GET /api/v1/user HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"),
            ("GET http://other/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"),
            ("nonsense\r\n\r\n", "HTTP/1.1 400"),
        ] {
            let answer = ask(forwarder.address(), request).await;
            assert!(answer.starts_with(expected), "{request}: {answer}");
        }
    }

    /// A network of four addresses that every Linux has.
    fn network() -> ContainerNetwork {
        ContainerNetwork::read("127.0.0.2", "127.0.0.0/30").unwrap()
    }

    /// Sends a request from an address; gives the whole answer, which is empty where nobody heard it.
    async fn ask_from(from: &str, to: &str, request: &str) -> String {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let mut stream = socket.connect(to.parse().unwrap()).await.unwrap();
        // Whoever closes at once may have done so before.
        drop(stream.write_all(request.as_bytes()).await);
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        drop(read.expect("the connection ends"));
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn containers_are_answered_by_the_address_at_which_they_ask() {
        let (calls, mut switchboard) = calls();
        switchboard.attach();
        let forwarder = Forwarder::start(calls, vec![artifacts()]).await.unwrap();
        let address = forwarder.open_to(network()).await.unwrap();
        let authority = address.strip_prefix("http://").unwrap();
        assert!(authority.starts_with("127.0.0.2:"), "{address}");
        let served = serve(&mut switchboard, "application/json", LISTED);
        let asked = ask_from("127.0.0.3", authority, LIST);
        let (answer, (wish, _)) = tokio::join!(asked, served);
        let expected = format!("{{\"signedUrl\":\"{address}/twirp/a/Up?sig=1\"}}");
        assert!(answer.ends_with(&expected), "{answer}");
        assert!(wish.headers.contains(&("host".to_owned(), authority.to_owned())));
        // Paths of no service are refused there as well.
        let request = "GET /api/v1/user HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = ask_from("127.0.0.3", authority, request).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }

    #[tokio::test]
    async fn containers_send_the_token_themselves() {
        let (calls, mut switchboard) = calls();
        switchboard.attach();
        let service = GuestService { token: Some(Secret::new("secret")), ..artifacts() };
        let forwarder = Forwarder::start(calls, vec![service]).await.unwrap();
        let address = forwarder.open_to(network()).await.unwrap();
        let authority = address.strip_prefix("http://").unwrap();
        for wrong in ["", "Authorization: Bearer other\r\n", "Authorization: secret\r\n"] {
            let request = LIST.replace("Connection", &format!("{wrong}Connection"));
            let answer = ask_from("127.0.0.3", authority, &request).await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{wrong}: {answer}");
        }
        let request = LIST.replace("Connection", "Authorization: bearer secret\r\nConnection");
        for (from, to, request) in
            [("127.0.0.3", authority, &*request), ("127.0.0.1", &forwarder.address()[7..], LIST)]
        {
            let served = serve(&mut switchboard, "application/json", LISTED);
            let (answer, _) = tokio::join!(ask_from(from, to, request), served);
            assert!(answer.starts_with("HTTP/1.1 201"), "{from}: {answer}");
        }
    }

    #[tokio::test]
    async fn nobody_else_is_heard_at_the_port_of_containers() {
        let (calls, _switchboard) = calls();
        let forwarder = Forwarder::start(calls, vec![artifacts()]).await.unwrap();
        let address = forwarder.open_to(network()).await.unwrap();
        let port = address.rsplit(':').next().unwrap();
        // More often than there may be connections.
        for _ in 0..CONNECTIONS {
            for (from, to) in [("127.0.0.9", "127.0.0.2"), ("127.0.0.3", "127.0.0.1")] {
                let answer = ask_from(from, &format!("{to}:{port}"), LIST).await;
                assert_eq!(answer, "", "{from} {to}");
            }
        }
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = ask_from("127.0.0.1", &format!("127.0.0.2:{port}"), request).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }

    #[test]
    fn a_connection_is_admitted_by_its_two_ends() {
        let network = ContainerNetwork::read("10.89.0.1", "10.89.0.0/24").unwrap();
        for (here, there, expected) in [
            ("10.89.0.1:80", "10.89.0.7:1", true),
            ("10.89.0.1:80", "10.89.0.1:1", true),
            ("10.89.0.1:80", "10.89.1.7:1", false),
            ("10.89.0.1:80", "127.0.0.1:1", false),
            ("10.0.2.15:80", "10.89.0.7:1", false),
            ("10.0.2.15:80", "10.0.2.2:1", false),
            ("[::ffff:10.89.0.1]:80", "[::ffff:10.89.0.7]:1", false),
        ] {
            let admitted = admits(&network, here.parse().unwrap(), there.parse().unwrap());
            assert_eq!(admitted, expected, "{here} {there}");
        }
    }

    #[tokio::test]
    async fn nothing_listens_when_the_job_is_over() {
        let (calls, _switchboard) = calls();
        let forwarder = Forwarder::start(calls, vec![artifacts()]).await.unwrap();
        let address = forwarder.open_to(network()).await.unwrap();
        let places = [forwarder.address(), &address].map(str::to_owned);
        drop(forwarder);
        for place in places {
            let place = place.strip_prefix("http://").unwrap();
            let refused = async {
                while TcpStream::connect(place).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, refused).await.expect("the port is closed");
        }
    }
}
