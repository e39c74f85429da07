//! Calls that a script makes to its host.

use common::call::{
    Ask, CALL_DATA_BYTES, CALL_ROOM_BYTES, CallAnswer, CallError, CallErrorKind, ForwardWish,
    HostCall, Reply,
};
use common::guest::{FromGuest, GuestEvent, ToGuest};
use serde_json::{Value, json};
use vm_manager::ssh::Guest;

use crate::host::{Conversation, Host, lines};

/// A host that answers calls, over as many connections as it likes.
struct Answering<'a> {
    guest: &'a Guest,
    job: common::JobId,
    conversation: Conversation,
    events: Vec<GuestEvent>,
}

impl<'a> Answering<'a> {
    async fn new(guest: &'a Guest, job: common::JobId) -> Self {
        let conversation = Conversation::attach(guest, job, 1).await;
        Self { guest, job, conversation, events: Vec::new() }
    }

    /// Loses the connection and has another one.
    async fn attach_again(&mut self) {
        let from = self.events.len() as u64 + 1;
        self.conversation = Conversation::attach(self.guest, self.job, from).await;
    }

    /// The next message about a call.
    async fn ask(&mut self) -> (u32, Ask) {
        loop {
            match self.conversation.next().await {
                Some(FromGuest::Call { call, ask }) => return (call, ask),
                Some(FromGuest::Event { seq, event }) => {
                    assert_eq!(seq, self.events.len() as u64 + 1);
                    self.events.push(event);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn begun(&mut self) -> (u32, HostCall) {
        match self.ask().await {
            (call, Ask::Begin(wish)) => (call, wish),
            other => panic!("{other:?}"),
        }
    }

    /// A request, and so much of its body, or all of it.
    async fn request(&mut self, upto: usize) -> (u32, ForwardWish, Vec<u8>) {
        let (number, call) = self.begun().await;
        let HostCall::Forward(wish) = call else { panic!("{call:?}") };
        let (mut body, mut room) = (Vec::new(), CALL_ROOM_BYTES as usize);
        while body.len() < upto {
            match self.ask().await {
                (call, Ask::Data(bytes)) if call == number => {
                    assert!(bytes.len() <= CALL_DATA_BYTES.min(room), "more than there is room");
                    room -= bytes.len();
                    body.extend(bytes);
                    if room == 0 {
                        self.reply(number, Reply::Room(CALL_ROOM_BYTES)).await;
                        room = CALL_ROOM_BYTES as usize;
                    }
                }
                (call, Ask::End) if call == number => break,
                other => panic!("{other:?}"),
            }
        }
        (number, wish, body)
    }

    async fn reply(&mut self, call: u32, reply: Reply) {
        self.conversation.send(&ToGuest::Call { call, reply }).await;
    }

    async fn answer(&mut self, call: u32, status: u16, json: Value) {
        let head = CallAnswer::Forward { status, headers: Vec::new() };
        self.reply(call, Reply::Head(Ok(head))).await;
        self.reply(call, Reply::Data(json.to_string().into_bytes())).await;
        self.reply(call, Reply::End).await;
    }

    /// What steps have written, once the job is over.
    async fn finish(mut self) -> Vec<String> {
        if matches!(self.events.last(), Some(GuestEvent::Finished(_))) {
            // It came before what the guest said last of a call.
            self.conversation.ack(self.events.len() as u64).await;
            assert_eq!(self.conversation.next().await, None, "the guest closes the connection");
        } else {
            self.events.extend(self.conversation.finish().await);
        }
        lines(&self.events)
    }
}

#[tokio::test]
async fn a_cache_is_saved_in_parts_and_over_connections() {
    const PART: usize = 4 << 20;
    let host = Host::new();
    let (machine, guest, document) = host.job(&["cache-put 5000000 key", "cache-get key"]).await;
    let mut answering = Answering::new(&guest, document.job).await;
    let (call, wish, body) = answering.request(usize::MAX).await;
    assert_eq!((wish.method.as_str(), wish.service.as_str()), ("POST", "cache"));
    let wanted: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(wanted, json!({ "key": "key", "version": "scripted" }));
    answering.answer(call, 200, json!({ "cacheId": 7 })).await;

    let (_, lost, begin) = answering.request(1 << 20).await;
    answering.attach_again().await;
    let (call, wish, first) = answering.request(usize::MAX).await;
    assert_eq!(wish, lost, "the same call again");
    assert!(first.len() == PART && first[..begin.len()] == begin, "the same part again");
    assert!(wish.path.ends_with("/caches/7"), "{wish:?}");
    let header = |wish: &ForwardWish, wanted: &str| {
        wish.headers.iter().find(|(name, _)| name == wanted).unwrap().1.clone()
    };
    assert_eq!(header(&wish, "content-range"), format!("bytes 0-{}/*", PART - 1));
    assert_eq!(header(&wish, "content-length"), PART.to_string());
    answering.answer(call, 200, json!({})).await;
    let (call, wish, second) = answering.request(usize::MAX).await;
    assert_eq!(header(&wish, "content-range"), format!("bytes {PART}-4999999/*"));
    answering.answer(call, 200, json!({})).await;
    let (call, _, body) = answering.request(usize::MAX).await;
    assert_eq!(body, br#"{"size":5000000}"#);
    answering.answer(call, 200, json!({})).await;

    let (call, wish, _) = answering.request(usize::MAX).await;
    assert!(wish.path.ends_with("cache?keys=key&version=scripted"), "{wish:?}");
    let place = "http://127.0.0.1/_apis/artifactcache/artifacts/abc";
    answering.answer(call, 200, json!({ "archiveLocation": place })).await;
    let (call, wish, _) = answering.request(usize::MAX).await;
    assert_eq!(wish.path, "/_apis/artifactcache/artifacts/abc");
    let head = CallAnswer::Forward { status: 200, headers: Vec::new() };
    answering.reply(call, Reply::Head(Ok(head))).await;
    let content = [first, second].concat();
    let (mut room, mut granted) = (CALL_ROOM_BYTES as usize, 0);
    for part in content.chunks(CALL_DATA_BYTES) {
        while room < part.len() {
            match answering.ask().await {
                (_, Ask::Room(bytes)) => (room, granted) = (room + bytes as usize, granted + 1),
                other => panic!("{other:?}"),
            }
        }
        room -= part.len();
        answering.reply(call, Reply::Data(part.to_vec())).await;
    }
    assert!(granted > 0);
    answering.reply(call, Reply::End).await;
    // What room is granted for at the end is not waited for.
    let Answering { mut conversation, mut events, .. } = answering;
    while let Some(frame) = conversation.next().await {
        let FromGuest::Event { seq, event } = frame else { continue };
        let is_last = matches!(event, GuestEvent::Finished(_));
        events.push(event);
        if is_last {
            conversation.ack(seq).await;
        }
    }
    let said = lines(&events);
    let whole = said.last().unwrap().strip_prefix("restored ").unwrap().to_owned();
    assert!(whole.starts_with("key: 5000000 bytes, sha256 "), "{whole}");
    let saved = format!("saved {whole}");
    let expected = ["saving key as 7", "part 1 of key", "part 2 of key", &saved];
    assert_eq!(said[..said.len() - 1], expected);
    machine.destroy().await;
    host.assert_empty();
}

#[tokio::test]
async fn an_action_is_fetched_and_a_refusal_fails_the_step() {
    let host = Host::new();
    let scripts = ["action-fetch own/name@v1", "action-fetch own/none@v1"];
    let (machine, guest, document) = host.job(&scripts).await;
    let mut answering = Answering::new(&guest, document.job).await;
    let (call, wish) = answering.begun().await;
    assert_eq!(wish, HostCall::Action { reference: "own/name@v1".to_owned() });
    assert_eq!(answering.ask().await, (call, Ask::End));
    let head = CallAnswer::Action { commit: "abc".to_owned() };
    answering.reply(call, Reply::Head(Ok(head))).await;
    answering.reply(call, Reply::Data(vec![0; 1024])).await;
    answering.reply(call, Reply::End).await;
    let (call, _) = answering.begun().await;
    assert_eq!(answering.ask().await, (call, Ask::End));
    let error = CallError::new(CallErrorKind::NotFound, "there is none");
    answering.reply(call, Reply::Head(Err(error))).await;
    let said = answering.finish().await;
    let [line] = &said[..] else { panic!("{said:?}") };
    assert!(line.starts_with("action own/name@v1 is abc: 1024 bytes, head after "), "{line}");
    machine.destroy().await;
    host.assert_empty();
}

#[tokio::test]
async fn a_cancel_ends_a_call() {
    let host = Host::new();
    let (machine, guest, document) = host.job(&["cache-put 5000000 key"]).await;
    let mut answering = Answering::new(&guest, document.job).await;
    let (call, _, _) = answering.request(usize::MAX).await;
    answering.conversation.send(&ToGuest::Cancel).await;
    assert_eq!(answering.ask().await, (call, Ask::Drop));
    assert_eq!(answering.finish().await, Vec::<String>::new());
    machine.destroy().await;
    host.assert_empty();
}
