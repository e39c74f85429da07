//! Guests that keep to the rules of calls, and guests that do not.

use std::io::Cursor;

use common::size::ByteSize;

use super::*;
use crate::cache::{CacheSettings, CacheStore};
use crate::fetch::{ActionStore, FetchSettings, Origin, TreeStore};

fn wish(reference: &str) -> Ask {
    Ask::Begin(HostCall::Action { reference: reference.to_owned() })
}

/// The calls of a guest whose job has no forge that may be asked.
fn calls(directory: &std::path::Path) -> (Calls, mpsc::Receiver<ToGuest>) {
    let origin = Origin::parse("https://127.0.0.1").unwrap();
    let settings = FetchSettings {
        directory: directory.to_owned(),
        quota: ByteSize(1 << 20),
        github: Origin::parse("https://forge.invalid").unwrap(),
        forgejo: origin.clone(),
        gitea: origin,
        trusted: Vec::new(),
    };
    let quota = settings.quota;
    let keepers = Keepers {
        actions: ActionStore::new(settings.clone()),
        trees: TreeStore::new(settings),
        caches: CacheStore::new(CacheSettings { directory: directory.join("caches"), quota }),
        artifacts: directory.join("artifacts"),
    };
    let request = simulators::jobs::job("tiny", &["true"]);
    Calls::new(Some(Arc::new(JobServices::new(&request, keepers))))
}

async fn reply(replies: &mut mpsc::Receiver<ToGuest>) -> (u32, Reply) {
    match timeout(Duration::from_secs(30), replies.recv()).await.expect("an answer comes") {
        Some(ToGuest::Call { call, reply }) => (call, reply),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let (mut calls, mut replies) = calls(directory.path());
    for (number, (reference, kind)) in [
        ("own/name", CallErrorKind::Invalid),
        ("own@v1", CallErrorKind::Invalid),
        ("../name@v1", CallErrorKind::Invalid),
        ("file:///etc/passwd@v1", CallErrorKind::Invalid),
        ("https://127.0.0.2/own/name@v1", CallErrorKind::Refused),
        ("http://forge.invalid/own/name@v1", CallErrorKind::Refused),
        ("https://me:secret@127.0.0.1/own/name@v1", CallErrorKind::Invalid),
        ("https://169.254.169.254/latest/meta-data@v1", CallErrorKind::Refused),
    ]
    .into_iter()
    .enumerate()
    {
        let number = u32::try_from(number).unwrap() + 1;
        calls.take(number, wish(reference)).await.unwrap();
        let (call, reply) = reply(&mut replies).await;
        let Reply::Head(Err(error)) = reply else { panic!("{reference}: {reply:?}") };
        assert_eq!((call, error.kind), (number, kind), "{reference}: {error}");
    }
}

#[tokio::test]
async fn a_guest_that_breaks_the_rules_is_told_which() {
    let directory = tempfile::tempdir().unwrap();
    let (mut calls, _replies) = calls(directory.path());
    calls.take(5, wish("own/name@v1")).await.unwrap();
    for (call, ask, expected) in [
        (5, wish("own/name@v1"), "call 5 came after call 5"),
        (4, wish("own/name@v1"), "call 4 came after call 5"),
        (5, Ask::Data(vec![0]), "call 5 has no body"),
        (5, Ask::Room(u32::MAX), "grants more room"),
    ] {
        let error = calls.take(call, ask).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    // What was on its way when a call ended is no fault.
    for ask in [Ask::End, Ask::Room(1), Ask::Drop] {
        calls.take(77, ask).await.unwrap();
    }
}

#[tokio::test]
async fn ten_thousand_calls_are_answered_and_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (mut calls, mut replies) = calls(directory.path());
    let answered = tokio::spawn(async move {
        let mut busy = 0;
        for _ in 0..10_000 {
            let (_, reply) = reply(&mut replies).await;
            let Reply::Head(Err(error)) = reply else { panic!("{reply:?}") };
            busy += usize::from(error.kind == CallErrorKind::Busy);
        }
        busy
    });
    for number in 1..=10_000 {
        calls.take(number, wish("https://127.0.0.2/own/name@v1")).await.unwrap();
        assert!(calls.open.len() <= OPEN_CALLS);
    }
    assert!(answered.await.unwrap() <= 10_000 - OPEN_CALLS);
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_room_and_not_for_ever() {
    let (messages, mut receiver) = mpsc::channel(1000);
    let room = Arc::new(Semaphore::new(CALL_ROOM_BYTES as usize));
    let mut line = Line { call: 1, messages, room: Arc::clone(&room) };
    let body = vec![7; 3 * CALL_ROOM_BYTES as usize];
    let head = CallAnswer::Action { commit: "c".to_owned() };
    let answer = Answer { head, body: Box::new(Cursor::new(body)), turn: None };
    let sending = tokio::spawn(async move { line.answer(answer).await });
    let mut bytes = 0;
    let mut count = async |upto: usize| {
        while bytes < upto {
            if let Some(ToGuest::Call { reply: Reply::Data(data), .. }) = receiver.recv().await {
                assert!(data.len() <= CALL_DATA_BYTES);
                bytes += data.len();
            }
        }
        tokio::task::yield_now().await;
        assert!(receiver.try_recv().is_err(), "no more than there is room for");
        bytes
    };
    assert_eq!(count(CALL_ROOM_BYTES as usize).await, CALL_ROOM_BYTES as usize);
    room.add_permits(CALL_DATA_BYTES);
    count(CALL_ROOM_BYTES as usize + CALL_DATA_BYTES).await;
    // Nobody grants more: the clock goes on by itself, because nothing else does.
    let end = sending.await.unwrap();
    assert!(matches!(end, Reply::Broken(error) if error.message.contains("was not read")));
}

/// Asks the cache.
fn forward(method: &str, path: &str, headers: &[(&str, &str)], has_body: bool) -> Ask {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Ask::Begin(HostCall::Forward(common::call::ForwardWish {
        service: "cache".to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
        headers: headers.iter().map(pair).collect(),
        has_body,
    }))
}

/// The status and the body of an answer.
async fn answer(replies: &mut mpsc::Receiver<ToGuest>, wanted: u32) -> (u16, Vec<u8>) {
    let (mut found, mut bytes) = (0, Vec::new());
    loop {
        let (call, reply) = reply(replies).await;
        assert_eq!(call, wanted);
        match reply {
            Reply::Head(Ok(CallAnswer::Forward { status, .. })) => found = status,
            Reply::Data(part) => bytes.extend(part),
            Reply::End => return (found, bytes),
            Reply::Room(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_body_comes_in_parts_and_room_is_granted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut calls, mut replies) = calls(directory.path());
    let reserve = r#"{"key":"k","version":"v"}"#;
    calls.take(1, forward("POST", "/_apis/artifactcache/caches", &[], true)).await.unwrap();
    calls.take(1, Ask::Data(reserve.into())).await.unwrap();
    calls.take(1, Ask::End).await.unwrap();
    let (status, reserved) = answer(&mut replies, 1).await;
    assert_eq!(status, 200);
    let reserved: serde_json::Value = serde_json::from_slice(&reserved).unwrap();
    let place = format!("/_apis/artifactcache/caches/{}", reserved["cacheId"]);
    // The quota is a mebibyte, and one cache may have half of it.
    let size = 500_000;
    let range = format!("bytes 0-{}/*", size - 1);
    let part = forward("PATCH", &place, &[("content-range", &range)], true);
    calls.take(2, part).await.unwrap();
    let (mut left, mut room) = (size, CALL_ROOM_BYTES as usize);
    while left > 0 {
        if room < CALL_DATA_BYTES {
            let (call, Reply::Room(more)) = reply(&mut replies).await else { panic!("no room") };
            assert_eq!(call, 2);
            room += more as usize;
            continue;
        }
        let count = left.min(CALL_DATA_BYTES);
        calls.take(2, Ask::Data(vec![7; count])).await.unwrap();
        (left, room) = (left - count, room - count);
    }
    calls.take(2, Ask::End).await.unwrap();
    assert_eq!(answer(&mut replies, 2).await.0, 200);
    calls.take(3, forward("POST", &place, &[], true)).await.unwrap();
    calls.take(3, Ask::Data(format!("{{\"size\":{size}}}").into())).await.unwrap();
    calls.take(3, Ask::End).await.unwrap();
    assert_eq!(answer(&mut replies, 3).await.0, 200);
}

#[tokio::test]
async fn more_than_there_is_room_for_breaks_the_rules() {
    let directory = tempfile::tempdir().unwrap();
    let (mut calls, _replies) = calls(directory.path());
    let place = "/_apis/artifactcache/caches/1";
    calls
        .take(1, forward("PATCH", place, &[("content-range", "bytes 0-9/*")], true))
        .await
        .unwrap();
    let mut sent = Ok(());
    for _ in 0..=2 * most_room() / CALL_DATA_BYTES {
        sent = calls.take(1, Ask::Data(vec![0; CALL_DATA_BYTES])).await;
        if sent.is_err() {
            break;
        }
    }
    assert!(sent.unwrap_err().contains("than there was room for"));
    // However many parts it comes in, no more is kept than there is room for.
    calls
        .take(2, forward("PATCH", place, &[("content-range", "bytes 0-9/*")], true))
        .await
        .unwrap();
    for _ in 0..100_000 {
        calls.take(2, Ask::Data(Vec::new())).await.unwrap();
    }
    let error = calls.take(9, Ask::Data(Vec::new())).await.unwrap_err();
    assert!(error.contains("before the call"), "{error}");
}

#[tokio::test]
async fn what_a_guest_must_not_ask_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (mut calls, mut replies) = calls(directory.path());
    let long = "x".repeat(70_000);
    for (number, (ask, kind)) in [
        (forward("TRACE", "/", &[], false), CallErrorKind::Invalid),
        (forward("GET", "no slash", &[], false), CallErrorKind::Invalid),
        (forward("GET", "/ /", &[], false), CallErrorKind::Invalid),
        (forward("GET", "/", &[("a b", "c")], false), CallErrorKind::Invalid),
        (forward("GET", "/", &[("a", "b\r\nc: d")], false), CallErrorKind::Invalid),
        (forward("GET", "/", &[("a", &long)], false), CallErrorKind::Invalid),
        (
            Ask::Begin(HostCall::Forward(common::call::ForwardWish {
                service: "oidc".to_owned(),
                method: "GET".to_owned(),
                path: "/".to_owned(),
                headers: Vec::new(),
                has_body: false,
            })),
            CallErrorKind::Refused,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let number = u32::try_from(number).unwrap() + 1;
        calls.take(number, ask).await.unwrap();
        let (call, reply) = reply(&mut replies).await;
        let Reply::Head(Err(error)) = reply else { panic!("{number}: {reply:?}") };
        assert_eq!((call, error.kind), (number, kind), "{error}");
    }
}
