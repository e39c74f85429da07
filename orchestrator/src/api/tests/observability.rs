//! `/metrics` and `/health`, on the socket and on their own address.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::backend::TestBackend;
use super::http::{Answer, get, request};
use super::{service, within};
use crate::api::{Observability, serve_observability};

async fn ask(address: SocketAddr, target: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&request("GET", target, "", b"")).await.unwrap();
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.unwrap();
    Answer::parse(&bytes)
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

#[tokio::test]
async fn an_address_of_its_own_shows_nothing_else() {
    let backend = Arc::new(TestBackend::new());
    let stop = CancellationToken::new();
    let address =
        serve_observability(Arc::clone(&backend), loopback(), stop.clone()).await.unwrap();
    let metrics = ask(address, "/metrics").await;
    assert_eq!((metrics.status, metrics.body.as_slice()), (200, &b"solstice_machines 3\n"[..]));
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4\r\n"));
    let health = ask(address, "/health").await;
    assert_eq!((health.status, &health.json()["name"]), (200, &"builder-1".into()));
    backend.change(|state| state.problems.push("the database is away".to_owned()));
    let health = ask(address, "/health").await;
    assert_eq!(
        (health.status, &health.json()["problems"][0]),
        (503, &"the database is away".into())
    );
    for target in ["/v1/jobs", "/v1/hosts", "/"] {
        assert_eq!(ask(address, target).await.status, 404, "{target}");
    }
    stop.cancel();
}

#[tokio::test]
async fn the_socket_shows_both_as_well() {
    let service = service();
    assert_eq!(get(&service.socket(), "/metrics").await.body, b"solstice_machines 3\n");
    let health = get(&service.socket(), "/health").await.json();
    assert_eq!((&health["draining"], &health["problems"]), (&false.into(), &serde_json::json!([])));
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn connections_that_do_nothing_do_not_shut_out_others() {
    let stop = CancellationToken::new();
    let observability = Observability::bind(loopback()).await.unwrap();
    let address = observability.address();
    let serving = tokio::spawn(observability.serve(Arc::new(TestBackend::new()), stop.clone()));
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    // Those before it are cut when their time is over.
    assert_eq!(ask(address, "/metrics").await.status, 200);
    drop(idle);
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let listener = std::net::TcpListener::bind(taken).unwrap();
    let error = Observability::bind(taken).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {taken}: ")), "{error}");
    drop(listener);
}
