//! The job's services on the guest's own 127.0.0.1, for programs of steps: what they ask is asked of the
//! services by calls to the host. So they need no route to the forge and no certificates, and the host
//! opens no port for them.
//!
//! Which service is meant is told by the path: clients take only scheme, host and port of an address
//! that they are given.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::call::{CallAnswer, CallError, CallErrorKind, ForwardWish, HostCall};
use common::guest::GuestService;
use futures_util::TryStreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::io::{ReaderStream, StreamReader};

use super::calls::{Answer, Calls};
use crate::service;

/// Connections at the same time; further ones wait. Each may have a call open.
const CONNECTIONS: usize = 48;

/// How long a program may take to send the head of a request, also of the next one on a connection.
const HEAD: Duration = Duration::from_secs(60);

/// An answer in JSON in which addresses are looked for has no more bytes.
const JSON_BYTES: u64 = 1024 * 1024;

/// The bytes that are read of a body at once.
const READ_BYTES: usize = 32 * 1024;

type OutBody = UnsyncBoxBody<Bytes, io::Error>;

/// Answers programs of this machine, by asking the host.
pub(super) struct Forwarder {
    calls: Calls,
    services: Vec<GuestService>,
    /// `http://127.0.0.1:PORT`.
    address: String,
}

impl Forwarder {
    /// Listens, and serves until the program ends. Gives the address.
    ///
    /// # Errors
    /// The machine has no loopback network.
    pub(super) async fn start(calls: Calls, services: Vec<GuestService>) -> io::Result<String> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = format!("http://{}", listener.local_addr()?);
        let forwarder = Arc::new(Self { calls, services, address: address.clone() });
        tokio::spawn(forwarder.serve(listener));
        Ok(address)
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let open = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&open).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // There are too many open files; some of them will be closed.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let forwarder = Arc::clone(&self);
            tokio::spawn(async move {
                forwarder.converse(stream).await;
                drop(permit);
            });
        }
    }

    async fn converse(self: Arc<Self>, stream: TcpStream) {
        let answer = service_fn(move |request| {
            let forwarder = Arc::clone(&self);
            async move { Ok::<_, Infallible>(forwarder.answer(request).await) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD);
        // A program that breaks off is no concern of ours.
        drop(server.serve_connection(TokioIo::new(stream), answer).await);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<OutBody> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let Some(service) = self.services.iter().find(|service| service::serves(service, &path))
        else {
            let text = format!("{path} is no path of a service that this job has");
            return refuse(&CallError::new(CallErrorKind::NotFound, text));
        };
        let is_head = request.method() == Method::HEAD;
        match self.ask(service, path, request).await {
            Ok(answer) => self.pass_on(service, answer, is_head).await,
            Err(error) => refuse(&error),
        }
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
        let wish = ForwardWish {
            service: service.name.clone(),
            method: parts.method.as_str().to_owned(),
            path,
            headers: parts.headers.iter().filter_map(text).collect(),
            has_body: !body.is_end_stream(),
        };
        let stream = body.into_data_stream().map_err(io::Error::other);
        let call = HostCall::Forward(wish);
        self.calls.call_once(&call, &mut StreamReader::new(Box::pin(stream))).await
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
            let bytes = service::localize(service, &self.address, &bytes).unwrap_or(bytes);
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
    let said = serde_json::json!({ "error": error.message, "message": error.message });
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
    use tokio::io::AsyncWriteExt;

    use super::super::calls::{Switchboard, calls};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

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
        let address = Forwarder::start(calls, services).await.unwrap();
        let request = "POST /_apis/artifactcache/caches?a=b HTTP/1.1\r\nHost: here\r\n\
                       Content-Length: 4\r\nConnection: close\r\n\r\nbody";
        let served = serve(&mut switchboard, "text/plain", "made");
        let (answer, (wish, body)) = tokio::join!(ask(&address, request), served);
        assert_eq!((wish.service.as_str(), wish.method.as_str()), ("cache", "POST"));
        assert_eq!(wish.path, "/_apis/artifactcache/caches?a=b");
        assert!(wish.headers.contains(&("host".to_owned(), "here".to_owned())));
        assert_eq!(body, b"body");
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        assert!(answer.ends_with("made\r\n0\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn addresses_in_answers_of_the_forge_are_local() {
        let (calls, mut switchboard) = calls();
        switchboard.attach();
        let address = Forwarder::start(calls, vec![artifacts()]).await.unwrap();
        let request = "GET /twirp/a/List HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let text = r#"{"signedUrl":"https://forge.example/twirp/a/Up?sig=1"}"#;
        let served = serve(&mut switchboard, "application/json", text);
        let (answer, (wish, _)) = tokio::join!(ask(&address, request), served);
        assert!(!wish.has_body);
        let expected = format!("{{\"signedUrl\":\"{address}/twirp/a/Up?sig=1\"}}");
        assert!(answer.ends_with(&expected), "{answer}");
    }

    #[tokio::test]
    async fn what_no_service_has_is_refused_here() {
        let (calls, _switchboard) = calls();
        let address = Forwarder::start(calls, vec![artifacts()]).await.unwrap();
        for (request, expected) in [
            ("GET /api/v1/user HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"),
            ("GET http://other/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"),
            ("nonsense\r\n\r\n", "HTTP/1.1 400"),
        ] {
            let answer = ask(&address, request).await;
            assert!(answer.starts_with(expected), "{request}: {answer}");
        }
    }
}
