//! The server's side of the wire: connections, the record of calls, and what goes wrong on purpose.

use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::routing::any;
use bytes::Bytes;
use connectrpc::compression::{CompressionProvider as _, GzipProvider};
use connectrpc::{ConnectError, Limits};
use futures_util::stream;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING,
};
use http::{Method, Request, Response, StatusCode};
use hyper::service::Service as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::artifacts::Store;
use super::calls::{Answer, Call, Rpc};
use super::faults::{Fault, Taken};
use super::state::State;
use super::{artifacts, id_token, rest, service};
use crate::git::Repositories;

/// Bytes of a request that is read at all.
const REQUEST: usize = 256 * 1024 * 1024;

/// The state, and the news that it changed.
pub(super) struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    connections: Mutex<JoinSet<()>>,
    pub(super) git: Repositories,
    /// The bytes of artifacts.
    pub(super) store: Store,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        let connections = Mutex::new(JoinSet::new());
        let (git, store) = (Repositories::new(), Store::new());
        Self { state: Mutex::new(state), changes: watch::Sender::new(0), connections, git, store }
    }

    /// The state, to be looked at or to be changed in a way that nobody waits for.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes who waits for a change.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
        result
    }

    /// Ends with every change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Ends every connection and waits until they are gone.
    pub(super) async fn cut(&self) {
        let mut connections = std::mem::take(&mut *self.connections());
        connections.shutdown().await;
    }

    fn connections(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is going on.
pub(super) struct Exchange {
    pub(super) shared: Arc<Shared>,
    pub(super) rpc: Rpc,
    /// Its place in the record.
    pub(super) call: usize,
    fault: Mutex<Option<Taken>>,
    ended: AtomicBool,
}

impl Exchange {
    /// The fault that is to be played on it.
    pub(super) fn fault(&self) -> Option<Fault> {
        let taken = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        taken.as_ref().map(|taken| taken.fault.clone())
    }

    pub(super) fn is(&self, fault: impl FnOnce(&Fault) -> bool) -> bool {
        self.fault().as_ref().is_some_and(fault)
    }

    /// Takes a fault away that did not apply.
    pub(super) fn give_fault_back(&self) -> Option<Taken> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn end(&self, delivered: bool) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.shared.change(|state| state.end_of_call(self.call, delivered));
        }
    }
}

/// Ends a call that nobody answers any more, because the client hung up or the server was restarted.
struct Ending(Arc<Exchange>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(false);
    }
}

/// The connection ends here.
#[derive(Debug)]
pub(super) struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the connection is dropped on purpose")
    }
}

impl std::error::Error for Dropped {}

/// The task that accepts connections. It and they end with the server.
#[derive(Debug)]
pub(super) struct Accepting {
    task: AbortHandle,
    shared: Arc<Shared>,
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.connections().abort_all();
    }
}

/// Where a server will be.
pub(super) async fn bind() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves below a path, which is empty or begins with a slash.
pub(super) fn serve(listener: TcpListener, shared: &Arc<Shared>, sub_path: &str) -> Accepting {
    let limits = Limits::unlimited();
    let calls = connectrpc::ConnectRpcService::new(service::router()).with_limits(limits);
    let api = axum::Router::new()
        .nest_service("/api/actions", calls)
        .route(id_token::PATH, any(id_token::answer))
        .route(artifacts::NEWER, any(artifacts::newer))
        .route(artifacts::OLDER, any(artifacts::older))
        .fallback(rest::answer)
        .with_state(Arc::clone(shared));
    let app = if sub_path.is_empty() { api } else { axum::Router::new().nest(sub_path, api) };
    let app = App {
        shared: Arc::clone(shared),
        router: TowerToHyperService::new(app),
        base: format!("{sub_path}/api/actions"),
    };
    let accepted = Arc::clone(shared);
    let accepting = tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let mut connections = accepted.connections();
            while connections.try_join_next().is_some() {}
            if !accepted.lock().down {
                connections.spawn(connection(stream, app.clone()));
            }
        }
    });
    Accepting { task: accepting.abort_handle(), shared: Arc::clone(shared) }
}

async fn connection(stream: TcpStream, app: App) {
    let service = hyper::service::service_fn(move |request| {
        let app = app.clone();
        async move { app.answer(request).await }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // How a connection ends is the client's business, or was asked for.
    connection.await.unwrap_or_default();
}

#[derive(Clone)]
struct App {
    shared: Arc<Shared>,
    router: TowerToHyperService<axum::Router>,
    /// The path of the protocol.
    base: String,
}

impl App {
    async fn answer(
        &self,
        request: Request<hyper::body::Incoming>,
    ) -> Result<Response<Body>, Dropped> {
        let path = request.uri().path().strip_prefix(&self.base);
        let rpc = path.and_then(Rpc::of).filter(|_| request.method() == Method::POST);
        let request = request.map(Body::new);
        let Some(rpc) = rpc else {
            return Ok(infallible(self.router.call(request).await));
        };
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, REQUEST).await.map_err(|_| Dropped)?;
        let mut request = Request::from_parts(parts, body);
        let (exchange, page) = self.begin(rpc, &request);
        let _ending = Ending(Arc::clone(&exchange));
        if let Some(status) = page {
            return self.page(&exchange, status);
        }
        match exchange.fault() {
            Some(Fault::DropRequest) => return Err(Dropped),
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Page(status)) => return self.page(&exchange, status),
            Some(Fault::Error(code)) => {
                let error = ConnectError::new(code, "a fault was asked for");
                self.note(&exchange, Answer::Error(code.as_str().to_owned()));
                let profile = self.shared.lock().profile;
                let response = Response::builder().status(profile.http_status(&error));
                let response = response.header(CONTENT_TYPE, "application/json");
                exchange.end(true);
                return Ok(response.body(Body::from(error.to_json())).expect("it is complete"));
            }
            _ => {}
        }
        let profile = self.shared.lock().profile;
        if rpc == Rpc::FetchSingleTask
            && !profile.has_single_task()
            && profile.unknown_method_is_bare()
        {
            return self.page(&exchange, 404);
        }
        request.extensions_mut().insert(Arc::clone(&exchange));
        let accepts_gzip = request
            .headers()
            .get(ACCEPT_ENCODING)
            .is_some_and(|value| value.to_str().is_ok_and(|value| value.contains("gzip")));
        let response = infallible(self.router.call(request.map(Body::from)).await);
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.map_err(|_| Dropped)?;
        self.note(&exchange, answer(parts.status, &body));
        let response = Response::from_parts(parts, body);
        match exchange.fault() {
            Some(Fault::DropResponse) => return Err(Dropped),
            Some(Fault::SlowAnswer(time)) => tokio::time::sleep(time).await,
            Some(Fault::Hold(hold)) => hold.pass().await,
            Some(Fault::ResetInBody) => return Ok(reset_in_body(response)),
            Some(Fault::TruncateBody) => return Ok(truncated(response, accepts_gzip)),
            _ => {}
        }
        exchange.end(true);
        Ok(response.map(Body::from))
    }

    /// Writes a call down; gives the status of a page if a proxy would not let it through.
    fn begin(&self, rpc: Rpc, request: &Request<Bytes>) -> (Arc<Exchange>, Option<u16>) {
        let header = |name: &str| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        self.shared.change(|state| {
            let taken = state.faults.take(rpc);
            let mut call = Call::new(rpc, state.clock.now());
            call.runner = header("x-runner-uuid");
            call.request_key = header("x-runner-request-key");
            call.json = header("content-type").is_some_and(|kind| kind.contains("json"));
            call.size = request.body().len();
            call.fault = taken.as_ref().map(|taken| format!("{:?}", taken.fault));
            let size = call.size;
            let index = state.calls.len();
            state.calls.push(call);
            state.judge_size(index, size);
            let page = state.body_limit.is_some_and(|limit| size > limit).then_some(413);
            let exchange = Exchange {
                shared: Arc::clone(&self.shared),
                rpc,
                call: index,
                fault: Mutex::new(taken),
                ended: AtomicBool::new(false),
            };
            (Arc::new(exchange), page)
        })
    }

    fn note(&self, exchange: &Exchange, answer: Answer) {
        self.shared.change(|state| state.calls[exchange.call].answer = answer);
    }

    /// The page of a proxy.
    fn page(&self, exchange: &Exchange, status: u16) -> Result<Response<Body>, Dropped> {
        self.note(exchange, Answer::Page(status));
        exchange.end(true);
        let status = StatusCode::from_u16(status).expect("a status of a test");
        let (kind, text) = if status == StatusCode::NOT_FOUND {
            ("text/plain; charset=utf-8", "404 page not found\n".to_owned())
        } else {
            (
                "text/html",
                format!("<html><head><title>{status}</title></head><body>{status}</body></html>\n"),
            )
        };
        let mut response = Response::builder().status(status).header(CONTENT_TYPE, kind);
        if status == StatusCode::TOO_MANY_REQUESTS {
            response = response.header(http::header::RETRY_AFTER, "1");
        }
        Ok(response.body(Body::from(text)).expect("it is complete"))
    }
}

fn infallible<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

/// What a response is, for the record.
fn answer(status: StatusCode, body: &Bytes) -> Answer {
    if status == StatusCode::OK {
        return Answer::Ok;
    }
    let error: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    match error.as_ref().and_then(|error| error.get("code")?.as_str()) {
        Some(code) => Answer::Error(code.to_owned()),
        None => Answer::Page(status.as_u16()),
    }
}

/// Half of the body, then the end of the connection.
fn reset_in_body(response: Response<Bytes>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    // Something is missing even where the message is empty.
    let length = body.len().max(1);
    parts.headers.insert(CONTENT_LENGTH, length.into());
    parts.headers.remove(TRANSFER_ENCODING);
    let half = body.slice(..body.len() / 2);
    let pieces = stream::unfold(Some(half), |half| async move {
        match half {
            Some(half) => Some((Ok(half), None)),
            None => {
                // The connection writes out what it has when it has to wait.
                tokio::task::yield_now().await;
                Some((Err(Dropped), None))
            }
        }
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

/// Half of the compressed body, as a response that is whole for HTTP.
fn truncated(response: Response<Bytes>, accepts_gzip: bool) -> Response<Body> {
    let (mut parts, mut body) = response.into_parts();
    if accepts_gzip && !parts.headers.contains_key(CONTENT_ENCODING) {
        body = GzipProvider::new().compress(&body).expect("memory takes it");
        parts.headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
    }
    let half = body.slice(..body.len() / 2);
    parts.headers.insert(CONTENT_LENGTH, half.len().into());
    Response::from_parts(parts, Body::from(half))
}
