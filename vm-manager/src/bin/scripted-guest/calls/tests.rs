//! Calls to a host that grants room as it likes, and that goes.

use common::call::ForwardWish;

use super::*;

fn forward(has_body: bool) -> HostCall {
    HostCall::Forward(ForwardWish {
        service: "cache".to_owned(),
        method: "PATCH".to_owned(),
        path: "/x".to_owned(),
        headers: Vec::new(),
        has_body,
    })
}

async fn heard(messages: &mut mpsc::Receiver<FromGuest>) -> (u32, Ask) {
    match timeout(Duration::from_secs(30), messages.recv()).await.expect("something is said") {
        Some(FromGuest::Call { call, ask }) => (call, ask),
        other => panic!("{other:?}"),
    }
}

/// Takes the begin of a call and so many bytes of its body.
async fn take(messages: &mut mpsc::Receiver<FromGuest>, upto: usize) -> (u32, Vec<u8>) {
    let (number, begin) = heard(messages).await;
    assert!(matches!(begin, Ask::Begin(_)), "{begin:?}");
    let mut body = Vec::new();
    while body.len() < upto {
        let (_, ask) = heard(messages).await;
        let Ask::Data(bytes) = ask else { panic!("{ask:?}") };
        assert!(bytes.len() <= CALL_DATA_BYTES);
        body.extend(bytes);
    }
    (number, body)
}

fn answer() -> Reply {
    Reply::Head(Ok(CallAnswer::Forward { status: 200, headers: Vec::new() }))
}

#[tokio::test]
async fn a_body_waits_for_room() {
    const ROOM: usize = CALL_ROOM_BYTES as usize;
    let calls = Calls::default();
    let body: Vec<u8> = (0..ROOM + 1000).map(|at| at as u8).collect();
    let (attached, mut messages) = calls.attach();
    let wish = forward(true);
    let host = async {
        let (number, mut came) = take(&mut messages, ROOM).await;
        tokio::task::yield_now().await;
        assert!(messages.try_recv().is_err(), "no more than there is room for");
        attached.take(number, Reply::Room(5000));
        let (_, ask) = heard(&mut messages).await;
        let Ask::Data(rest) = ask else { panic!("{ask:?}") };
        came.extend(rest);
        assert_eq!(heard(&mut messages).await.1, Ask::End);
        assert!(came == body, "it came as it was");
        attached.take(number, answer());
        attached.take(number, Reply::Data(vec![1; GRANT_BYTES as usize]));
        assert_eq!(heard(&mut messages).await.1, Ask::Room(GRANT_BYTES));
        attached.take(number, Reply::End);
    };
    let guest = async {
        let mut answer = calls.call(&wish, &body).await.unwrap();
        assert_eq!(answer.next().await.unwrap().unwrap().len(), GRANT_BYTES as usize);
        assert_eq!(answer.next().await.unwrap(), None);
        assert_eq!(answer.next().await.unwrap(), None);
    };
    tokio::join!(host, guest);
}

#[tokio::test]
async fn a_lost_call_is_made_again_on_the_next_connection() {
    let calls = Calls::default();
    let body = vec![7; 100_000];
    let wish = forward(true);
    let host = async {
        let (first, mut messages) = calls.attach();
        assert_eq!(take(&mut messages, CALL_DATA_BYTES).await.0, 1);
        drop((first, messages));
        tokio::task::yield_now().await;
        // One that is replaced is lost before it has heard of it.
        let (second, mut messages) = calls.attach();
        take(&mut messages, CALL_DATA_BYTES).await;
        let (third, mut messages) = calls.attach();
        second.take(1, answer());
        drop(second);
        let (number, came) = take(&mut messages, body.len()).await;
        assert!(came == body);
        assert_eq!(heard(&mut messages).await.1, Ask::End);
        third.take(number, answer());
        third.take(number, Reply::Broken(CallError::new(CallErrorKind::Unavailable, "gone")));
    };
    let guest = async {
        let mut answer = calls.call(&wish, &body).await.unwrap();
        assert!(matches!(answer.next().await, Err(Failure::Error(_))));
    };
    tokio::join!(host, guest);
}

#[tokio::test]
async fn what_is_dropped_is_said() {
    let calls = Calls::default();
    let (attached, mut messages) = calls.attach();
    let line = calls.begin(&forward(false)).await.unwrap();
    assert!(matches!(heard(&mut messages).await.1, Ask::Begin(_)));
    drop(line);
    assert_eq!(heard(&mut messages).await, (1, Ask::Drop));
    attached.take(1, answer());
    let line = calls.begin(&forward(false)).await.unwrap();
    assert_eq!(heard(&mut messages).await.0, 2);
    drop(attached);
    drop(line);
    assert!(messages.try_recv().is_err());
}
