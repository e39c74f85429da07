//! Calls over connections that come and go.

use std::io::Write;

use lz4_flex::frame::FrameEncoder;
use tokio::io::AsyncReadExt;

use super::super::host::Orchestrator;
use super::*;
use crate::host::{Host, HostError};
use crate::system::Owner;

const PATIENCE: Duration = Duration::from_secs(20);

fn wish() -> HostCall {
    HostCall::Action { reference: "own/name@v1".to_owned() }
}

fn head() -> Reply {
    Reply::Head(Ok(CallAnswer::Action { commit: "c0ffee".to_owned() }))
}

/// An archive with one large file.
fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let content: Vec<u8> = (0..3 * CALL_ROOM_BYTES).map(noise).collect();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "action.yml", &content[..]).unwrap();
    archive.into_inner().unwrap()
}

/// Bytes that cannot be packed.
fn noise(place: u32) -> u8 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one(place) as u8
}

/// The same bytes, packed.
fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = FrameEncoder::new(Vec::new());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// The next call that begins.
async fn begun(switchboard: &mut Switchboard) -> u32 {
    loop {
        let next = timeout(PATIENCE, switchboard.next()).await.expect("a call begins");
        let FromGuest::Call { call, ask } = next else { panic!("{next:?}") };
        let packed = HostCall::Packed(Box::new(wish()));
        if ask == Ask::Begin(wish()) || ask == Ask::Begin(packed) {
            return call;
        }
    }
}

/// Sends an answer as a host does that keeps to the room it has.
async fn send(switchboard: &mut Switchboard, call: u32, bytes: &[u8]) {
    switchboard.take(call, head());
    let mut room = CALL_ROOM_BYTES as usize;
    for part in bytes.chunks(common::call::CALL_DATA_BYTES) {
        while room < part.len() {
            let next = timeout(PATIENCE, switchboard.next()).await.expect("there will be room");
            if let FromGuest::Call { ask: Ask::Room(more), .. } = next {
                room += more as usize;
            }
        }
        room -= part.len();
        switchboard.take(call, Reply::Data(part.to_vec()));
    }
}

#[tokio::test]
async fn an_answer_is_read_as_it_comes_and_room_is_granted() {
    let (calls, mut switchboard) = calls();
    switchboard.attach();
    let wish = wish();
    let archive = archive();
    let read = async {
        let mut answer = calls.call(&wish).await.unwrap();
        let mut bytes = Vec::new();
        answer.body.read_to_end(&mut bytes).await.unwrap();
        bytes
    };
    let serve = async {
        let call = begun(&mut switchboard).await;
        send(&mut switchboard, call, &archive).await;
        switchboard.take(call, Reply::End);
    };
    let (bytes, ()) = tokio::join!(read, serve);
    assert!(bytes == archive);
    assert!(lock(&calls.shared).open.is_empty());
}

#[tokio::test]
async fn a_call_is_made_again_on_the_next_connection() {
    let (calls, mut switchboard) = calls();
    let wish = wish();
    let serve = async {
        // Lost before anything was sent, and before the answer began.
        switchboard.attach();
        switchboard.detach();
        switchboard.attach();
        let first = begun(&mut switchboard).await;
        switchboard.attach();
        let second = begun(&mut switchboard).await;
        assert!(second > first);
        // What belongs to the connection before is nobody's.
        switchboard.take(first, Reply::End);
        switchboard.take(second, head());
        switchboard.take(second, Reply::End);
    };
    let (answer, ()) = tokio::join!(calls.call(&wish), serve);
    assert_eq!(answer.unwrap().head, CallAnswer::Action { commit: "c0ffee".to_owned() });
}

#[tokio::test]
async fn an_archive_whose_connection_is_lost_is_asked_for_again_and_is_whole() {
    let (calls, mut switchboard) = calls();
    switchboard.attach();
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("action").to_str().unwrap().to_owned();
    let owner = Owner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() };
    let host = Orchestrator::new(calls);
    let archive = packed(&archive());
    assert!(archive.len() > 3 * CALL_ROOM_BYTES as usize);
    let serve = async {
        let call = begun(&mut switchboard).await;
        send(&mut switchboard, call, &archive[..archive.len() / 2]).await;
        switchboard.attach();
        let call = begun(&mut switchboard).await;
        send(&mut switchboard, call, &archive).await;
        switchboard.take(call, Reply::End);
    };
    let (fetched, ()) = tokio::join!(host.fetch_action("own/name@v1", &to, owner), serve);
    assert_eq!(fetched.unwrap().commit, "c0ffee");
    let bytes = std::fs::read(place.path().join("action/action.yml")).unwrap();
    assert_eq!(bytes.len(), 3 * CALL_ROOM_BYTES as usize);
}

#[tokio::test]
async fn what_the_host_refuses_is_a_sentence_and_is_not_asked_for_again() {
    let (calls, mut switchboard) = calls();
    switchboard.attach();
    let owner = Owner { uid: 0, gid: 0 };
    let host = Orchestrator::new(calls);
    for kind in [CallErrorKind::NotFound, CallErrorKind::Unavailable] {
        let serve = async {
            let call = begun(&mut switchboard).await;
            let error = CallError::new(kind, "there is none");
            switchboard.take(call, Reply::Head(Err(error)));
        };
        let (fetched, ()) =
            tokio::join!(host.fetch_action("own/name@v1", "/nonexistent", owner), serve);
        let expected = "cannot fetch the action own/name@v1: there is none";
        assert_eq!(fetched.unwrap_err(), HostError::new(kind, expected));
        assert!(
            switchboard
                .try_next()
                .is_none_or(|left| matches!(left, FromGuest::Call { ask: Ask::End, .. }))
        );
    }
}

#[tokio::test]
async fn an_answer_that_nobody_wants_any_more_is_dropped() {
    let (calls, mut switchboard) = calls();
    switchboard.attach();
    let wish = wish();
    let serve = async {
        let call = begun(&mut switchboard).await;
        switchboard.take(call, head());
    };
    let (answer, ()) = tokio::join!(calls.call(&wish), serve);
    drop(answer.unwrap());
    let dropped = async {
        while !matches!(switchboard.next().await, FromGuest::Call { ask: Ask::Drop, .. }) {}
    };
    timeout(PATIENCE, dropped).await.unwrap();
}

/// A request with a body.
fn forward() -> HostCall {
    HostCall::Forward(common::call::ForwardWish {
        service: "cache".to_owned(),
        method: "PATCH".to_owned(),
        path: "/x".to_owned(),
        headers: Vec::new(),
        has_body: true,
    })
}

fn answered(status: u16) -> Reply {
    Reply::Head(Ok(CallAnswer::Forward { status, headers: Vec::new() }))
}

/// Takes the body of a call as a host does; grants room when there is none.
async fn body(switchboard: &mut Switchboard) -> (u32, Vec<u8>) {
    let (mut bytes, mut room) = (Vec::new(), CALL_ROOM_BYTES as usize);
    loop {
        let next = timeout(PATIENCE, switchboard.next()).await.expect("the body goes on");
        let FromGuest::Call { call, ask } = next else { panic!("{next:?}") };
        match ask {
            Ask::Begin(_) => {}
            Ask::Data(part) => {
                assert!(part.len() <= room, "no more is sent than there is room for");
                room -= part.len();
                bytes.extend(part);
                if room == 0 {
                    room = CALL_ROOM_BYTES as usize;
                    switchboard.take(call, Reply::Room(CALL_ROOM_BYTES));
                }
            }
            Ask::End => return (call, bytes),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_body_is_sent_as_far_as_there_is_room() {
    let (calls, mut switchboard) = calls();
    switchboard.attach();
    let content = vec![7; 5 * CALL_ROOM_BYTES as usize + 1];
    let call = forward();
    let serve = async {
        let (call, bytes) = body(&mut switchboard).await;
        switchboard.take(call, answered(200));
        switchboard.take(call, Reply::End);
        bytes
    };
    let (answer, bytes) = tokio::join!(calls.call_with(&call, &content), serve);
    assert_eq!(answer.unwrap().head, CallAnswer::Forward { status: 200, headers: Vec::new() });
    assert!(bytes == content);
}

#[tokio::test]
async fn a_body_at_hand_is_sent_again_and_one_that_is_read_once_is_not() {
    let (calls, mut switchboard) = calls();
    switchboard.attach();
    let (call, content) = (forward(), vec![7; 100_000]);
    let serve = async {
        body(&mut switchboard).await;
        switchboard.attach();
        let (call, bytes) = body(&mut switchboard).await;
        switchboard.take(call, answered(201));
        switchboard.take(call, Reply::End);
        bytes
    };
    let (answer, bytes) = tokio::join!(calls.call_with(&call, &content), serve);
    assert!(answer.is_ok() && bytes == content);
    let serve = async {
        body(&mut switchboard).await;
        switchboard.attach();
    };
    let mut once = &content[..];
    let (answer, ()) = tokio::join!(calls.call_once(&call, &mut once), serve);
    assert_eq!(answer.err().map(|error| error.kind), Some(CallErrorKind::Unavailable));
}

#[tokio::test]
async fn an_answer_may_come_before_the_body_is_complete() {
    let (calls, mut switchboard) = calls();
    switchboard.attach();
    let (call, content) = (forward(), vec![7; 3 * CALL_ROOM_BYTES as usize]);
    let serve = async {
        let next = timeout(PATIENCE, switchboard.next()).await.unwrap();
        let FromGuest::Call { call, .. } = next else { panic!("{next:?}") };
        switchboard.take(call, answered(413));
        switchboard.take(call, Reply::End);
    };
    let (answer, ()) = tokio::join!(calls.call_with(&call, &content), serve);
    assert_eq!(answer.unwrap().head, CallAnswer::Forward { status: 413, headers: Vec::new() });
}
