//! A guest program that is not ours: calls that break the rules or ask for what is not the job's.
//!
//! What the host refuses is a line of the log each. What it ends the job for is done last.

use std::time::Duration;

use common::call::{Ask, CALL_ROOM_BYTES, CallErrorKind, ForwardWish, HostCall, OPEN_CALLS, Reply};
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use crate::calls::{Calls, Failure};
use crate::script::Output;
use crate::services::{Caller, Stop, VERSION, cache_wish, exchange};

/// Calls that are made without waiting for an answer.
const MANY: usize = 10_000;
/// How long the host may take to answer one that it refuses.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for all that must be refused. `upload` is the number of what another job saves.
pub(crate) async fn calls<O: Output + Send>(
    caller: &mut Caller<'_, O>,
    upload: u64,
) -> Result<(), Stop> {
    let counted = many(caller).await?;
    caller.say(counted).await;
    let reserved = ask(caller, reservation("hostile")).await?;
    let own = format!("caches/{}", reserved.json["cacheId"]);
    let foreign = format!("caches/{upload}");
    let part = |place: &str, range: &str, bytes: usize| {
        let mut wish = cache_wish("PATCH", place);
        wish.headers.push(("content-range".to_owned(), range.to_owned()));
        (wish, vec![b'x'; bytes])
    };
    let size = |place: &str, bytes: u64| {
        (cache_wish("POST", place), json!({ "size": bytes }).to_string().into_bytes())
    };
    let get = |path: &str| (cache_wish("GET", path), Vec::new());
    let bare = |service: &str, path: &str| {
        let (service, path) = (service.to_owned(), path.to_owned());
        (ForwardWish { service, path, ..cache_wish("GET", "") }, Vec::new())
    };
    let table = [
        ("a part longer than its range", part(&own, "bytes 0-9/*", 1000)),
        ("a part shorter than its range", part(&own, "bytes 0-999/*", 10)),
        ("a range without end", part(&own, "bytes 0-18446744073709551615/*", 10)),
        ("a range that ends before it begins", part(&own, "bytes 9-0/*", 10)),
        (
            "a range beyond every cache",
            part(&own, "bytes 9000000000000000000-9000000000000000009/*", 10),
        ),
        ("a commit of more than came", size(&own, 1 << 60)),
        ("a part of another job's upload", part(&foreign, "bytes 0-9/*", 10)),
        ("a commit of another job's upload", size(&foreign, 10)),
        ("a path with dots", get("artifacts/../../../../etc/passwd")),
        ("a path with hidden dots", get("artifacts/%2e%2e%2f%2e%2e%2fabout")),
        ("a path without a slash", bare("cache", "../etc/passwd")),
        ("a path beside the service's", bare("cache", "/etc/passwd")),
        ("a service that the job does not have", bare("secrets", "/")),
        ("a service with dots", bare("../cache", "/")),
    ];
    for (what, asked) in table {
        let answered = ask(caller, asked).await?.outcome;
        caller.say(format!("{what}: {answered}")).await;
    }
    for reference in ["../../etc@v1", "file:///etc/passwd@v1", "http://169.254.169.254/a/b@v1"] {
        let call = HostCall::Action { reference: reference.to_owned() };
        let answered = attempt(caller, |calls| async move { calls.call(&call, &[]).await }).await?;
        let answered = answered.map_or_else(|kind| kind, |head| format!("{:?}", head.head));
        caller.say(format!("{reference}: {answered}")).await;
    }
    Ok(())
}

/// Sends more of a body than there is room for, and goes on as if nothing had happened.
pub(crate) async fn body<O: Output + Send>(caller: &mut Caller<'_, O>) -> Result<(), Stop> {
    let reserved = ask(caller, reservation("overfull")).await?;
    let mut wish = cache_wish("PATCH", &format!("caches/{}", reserved.json["cacheId"]));
    wish.headers.push(("content-range".to_owned(), "bytes 0-999999/*".to_owned()));
    wish.has_body = true;
    let begun = attempt(caller, |calls| async move {
        let line = calls.begin(&HostCall::Forward(wish)).await?;
        // In one message, so that the host cannot have granted more meanwhile.
        line.say(Ask::Data(vec![0; 2 * CALL_ROOM_BYTES as usize])).await;
        Ok(line)
    });
    let _line = begun.await?;
    caller.say("more than there is room for was sent".to_owned()).await;
    caller.wait(std::future::pending()).await
}

/// Opens calls whose body never comes; says how many of them were refused.
async fn many<O: Output + Send>(caller: &mut Caller<'_, O>) -> Result<String, Stop> {
    let (mut wish, _) = reservation("never");
    wish.has_body = true;
    let call = HostCall::Forward(wish);
    let opened = attempt(caller, |calls| async move {
        let mut lines = Vec::new();
        for _ in 0..MANY {
            lines.push(calls.begin(&call).await?);
        }
        let mut busy = 0;
        for line in &mut lines[OPEN_CALLS..] {
            let reply = timeout(PATIENCE, line.replies.recv()).await;
            let is_busy = |reply| matches!(reply, Some(Reply::Head(Err(error))) if is_busy(&error));
            busy += usize::from(reply.is_ok_and(is_busy));
        }
        Ok(busy)
    });
    Ok(match opened.await? {
        Ok(busy) => format!("{MANY} calls: {busy} were too many"),
        Err(error) => error,
    })
}

fn is_busy(error: &common::call::CallError) -> bool {
    error.kind == CallErrorKind::Busy
}

fn reservation(key: &str) -> (ForwardWish, Vec<u8>) {
    let wanted = json!({ "key": key, "version": VERSION }).to_string();
    (cache_wish("POST", "caches"), wanted.into_bytes())
}

struct Answered {
    /// The status, or the kind of the error.
    outcome: String,
    json: Json,
}

async fn ask<O: Output + Send>(
    caller: &mut Caller<'_, O>,
    (wish, body): (ForwardWish, Vec<u8>),
) -> Result<Answered, Stop> {
    let answered =
        attempt(caller, |calls| async move { exchange(calls, wish, &body).await }).await?;
    Ok(match answered {
        Ok((status, json)) => Answered { outcome: status.to_string(), json },
        Err(outcome) => Answered { outcome, json: Json::Null },
    })
}

/// Does something with calls; what goes wrong is a word, by its kind.
async fn attempt<'a, T, O: Output + Send, F: Future<Output = Result<T, Failure>>>(
    caller: &mut Caller<'a, O>,
    work: impl FnOnce(&'a Calls) -> F,
) -> Result<Result<T, String>, Stop> {
    let done = work(caller.calls());
    Ok(caller.wait(done).await?.map_err(|failure| match failure {
        Failure::Lost => "lost".to_owned(),
        Failure::Error(error) => format!("{:?}", error.kind).to_lowercase(),
    }))
}
