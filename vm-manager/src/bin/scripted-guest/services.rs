//! Lines of a script that make calls to the host: caches, the files of actions, and the ill-mannered
//! ones of [`crate::hostile`].
//!
//! What a cache has in it comes from its key and the place alone, so that no more than one part is in
//! memory and a part that is sent again is the same.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use common::call::{CACHE_PATH, CACHE_SERVICE, CallAnswer, ForwardWish, HostCall};
use common::event::Stream;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::calls::{Answer, Calls, Failure};
use crate::hostile;
use crate::job::Job;
use crate::machine::Machine;
use crate::script::{Ended, Output, meanwhile, number, time};

/// The bytes of a part of a cache, as the real guest program sends them.
const PART_BYTES: u64 = 4 * 1024 * 1024;
/// What of a cache is made at once.
const PIECE_BYTES: usize = 64 * 1024;
/// The version of all caches of scripted guests.
pub(crate) const VERSION: &str = "scripted";
/// How often a cache whose answer broke off is asked for.
const ATTEMPTS: u32 = 3;
/// An answer in JSON has no more bytes.
const JSON_BYTES: usize = 1024 * 1024;

/// Such a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Put { bytes: u64, key: String, every: Duration },
    Get { key: String },
    Fetch { reference: String },
    HostileCalls { upload: u64 },
    HostileBody,
}

impl Word {
    /// Reads a line; `None` if it is none of these.
    pub(crate) fn parse(word: &str, words: &[&str]) -> Result<Option<Self>, String> {
        Ok(Some(match (word, words) {
            ("cache-put", [bytes, key]) => {
                Self::Put { bytes: number(bytes)?, key: (*key).to_owned(), every: Duration::ZERO }
            }
            ("cache-put", [bytes, key, every]) => {
                Self::Put { bytes: number(bytes)?, key: (*key).to_owned(), every: time(every)? }
            }
            ("cache-get", [key]) => Self::Get { key: (*key).to_owned() },
            ("action-fetch", [reference]) => Self::Fetch { reference: (*reference).to_owned() },
            ("hostile-calls", [upload]) => Self::HostileCalls { upload: number(upload)? },
            ("hostile-body", []) => Self::HostileBody,
            _ => return Ok(None),
        }))
    }
}

/// Why a line was not done to its end.
pub(crate) enum Stop {
    /// It was cancelled.
    Cancelled,
    /// For this reason, in a sentence.
    Failed(String),
}

/// Does what a line says; `Some` ends the script.
pub(crate) async fn perform(
    word: Word,
    machine: &Arc<Machine>,
    output: &mut (impl Output + Send),
    cancel: &CancellationToken,
) -> Option<Ended> {
    let done = match machine.program.job() {
        Some(job) => {
            let mut caller = Caller { job: &job, machine, output, cancel };
            match word {
                Word::Put { bytes, key, every } => caller.put(bytes, &key, every).await,
                Word::Get { key } => caller.get(&key).await,
                Word::Fetch { reference } => caller.fetch(reference).await,
                Word::HostileCalls { upload } => hostile::calls(&mut caller, upload).await,
                Word::HostileBody => hostile::body(&mut caller).await,
            }
        }
        None => Err(Stop::Failed("there is no job whose host could be called".to_owned())),
    };
    match done {
        Ok(()) => None,
        Err(Stop::Cancelled) => Some(Ended::Cancelled),
        Err(Stop::Failed(text)) => {
            output.line(Stream::Stderr, text).await;
            Some(Ended::Exit(1))
        }
    }
}

/// Who makes calls.
pub(crate) struct Caller<'a, O> {
    job: &'a Job,
    machine: &'a Machine,
    output: &'a mut O,
    cancel: &'a CancellationToken,
}

impl<'a, O: Output + Send> Caller<'a, O> {
    pub(crate) fn calls(&self) -> &'a Calls {
        &self.job.calls
    }

    pub(crate) async fn say(&mut self, text: String) {
        self.output.line(Stream::Stdout, text).await;
    }

    /// Waits for something, while lines go their way and a cancel is heeded.
    async fn during<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Stop> {
        self.machine.clock.running().await;
        match meanwhile(work, self.machine, self.output, self.cancel).await {
            None => Err(Stop::Cancelled),
            Some(Err(failure)) => Err(Stop::Failed(failure.to_string())),
            Some(Ok(done)) => Ok(done),
        }
    }

    /// The same for what may fail only by a cancel.
    pub(crate) async fn wait<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        self.during(async { Ok(work.await) }).await
    }

    /// Asks the service for caches, which must do it; gives the status and the JSON.
    async fn ask(&mut self, wish: ForwardWish, body: &[u8]) -> Result<(u16, Json), Stop> {
        let what = format!("{} {}", wish.method, wish.path);
        let job = self.job;
        let (status, json) = self.during(exchange(&job.calls, wish, body)).await?;
        match status {
            200..300 => Ok((status, json)),
            _ => Err(Stop::Failed(format!("{what}: {status} {json}"))),
        }
    }

    /// Saves a cache.
    async fn put(&mut self, bytes: u64, key: &str, every: Duration) -> Result<(), Stop> {
        let wanted = json!({ "key": key, "version": VERSION }).to_string();
        let (_, reserved) = self.ask(cache_wish("POST", "caches"), wanted.as_bytes()).await?;
        let place = format!("caches/{}", reserved["cacheId"]);
        self.say(format!("saving {key} as {}", reserved["cacheId"])).await;
        let (mut hash, mut part, mut at) = (Sha256::new(), Vec::new(), 0);
        for number in 1.. {
            let end = bytes.min(at + PART_BYTES);
            if at == end {
                break;
            }
            let machine = self.machine;
            self.wait(machine.clock.sleep(every)).await?;
            part.clear();
            part.resize((end - at) as usize, 0);
            for (piece, from) in part.chunks_mut(PIECE_BYTES).zip((at..).step_by(PIECE_BYTES)) {
                fill(key, from, piece);
                hash.update(&*piece);
                // A large part takes long to make, and the connection has other things to do.
                tokio::task::yield_now().await;
            }
            let mut wish = cache_wish("PATCH", &place);
            let range = format!("bytes {at}-{}/*", end - 1);
            wish.headers.push(("content-range".to_owned(), range));
            self.ask(wish, &part).await?;
            self.say(format!("part {number} of {key}")).await;
            at = end;
        }
        let size = json!({ "size": bytes }).to_string();
        self.ask(cache_wish("POST", &place), size.as_bytes()).await?;
        self.say(format!("saved {key}: {bytes} bytes, sha256 {}", hex(hash))).await;
        Ok(())
    }

    /// Restores a cache.
    async fn get(&mut self, key: &str) -> Result<(), Stop> {
        let path = format!("cache?keys={key}&version={VERSION}");
        let (status, hit) = self.ask(cache_wish("GET", &path), &[]).await?;
        if status == 204 {
            self.say(format!("no cache {key}")).await;
            return Ok(());
        }
        let place = hit["archiveLocation"].as_str().unwrap_or_default();
        let path = place.find(CACHE_PATH).map_or("", |at| &place[at + CACHE_PATH.len()..]);
        let wish = HostCall::Forward(cache_wish("GET", path));
        let job = self.job;
        let (bytes, hash) = self.during(content(&job.calls, &wish)).await?;
        self.say(format!("restored {key}: {bytes} bytes, sha256 {}", hex(hash))).await;
        Ok(())
    }

    /// Fetches an action, and says how long that took.
    async fn fetch(&mut self, reference: String) -> Result<(), Stop> {
        let call = HostCall::Action { reference: reference.clone() };
        let job = self.job;
        let begun = Instant::now();
        let fetched = async {
            let mut answer = job.calls.call(&call, &[]).await?;
            let (head, mut bytes) = (begun.elapsed(), 0);
            while let Some(part) = answer.next().await? {
                bytes += part.len();
            }
            Ok((answer.head, bytes, head, begun.elapsed()))
        };
        let (head, bytes, first, whole) = self.during(fetched).await?;
        let CallAnswer::Action { commit } = head else {
            return Err(Stop::Failed(format!("the answer is no action: {head:?}")));
        };
        let (first, whole) = (first.as_micros(), whole.as_micros());
        self.say(format!(
            "action {reference} is {commit}: {bytes} bytes, head after {first} us, whole after \
             {whole} us"
        ))
        .await;
        Ok(())
    }
}

/// A request to the service for caches, whose path begins behind that of its protocol.
pub(crate) fn cache_wish(method: &str, path: &str) -> ForwardWish {
    ForwardWish {
        service: CACHE_SERVICE.to_owned(),
        method: method.to_owned(),
        path: format!("{CACHE_PATH}{path}"),
        headers: Vec::new(),
        has_body: false,
    }
}

/// Makes a request; gives the status and the JSON, which is null where there is none.
pub(crate) async fn exchange(
    calls: &Calls,
    mut wish: ForwardWish,
    body: &[u8],
) -> Result<(u16, Json), Failure> {
    wish.has_body = !body.is_empty();
    if wish.has_body {
        wish.headers.push(("content-length".to_owned(), body.len().to_string()));
    }
    let mut answer = calls.call(&HostCall::Forward(wish), body).await?;
    let mut text = Vec::new();
    while let Some(part) = answer.next().await? {
        text.extend(part);
        text.truncate(JSON_BYTES);
    }
    Ok((status(&answer), serde_json::from_slice(&text).unwrap_or_default()))
}

fn status(answer: &Answer) -> u16 {
    match answer.head {
        CallAnswer::Forward { status, .. } => status,
        _ => 0,
    }
}

/// Reads a cache, once more where that breaks off; gives its length and hash.
async fn content(calls: &Calls, wish: &HostCall) -> Result<(u64, Sha256), Failure> {
    let mut attempt = 1;
    loop {
        let (mut bytes, mut hash) = (0, Sha256::new());
        let mut answer = calls.call(wish, &[]).await?;
        let read = loop {
            match answer.next().await {
                Ok(Some(part)) => {
                    bytes += part.len() as u64;
                    hash.update(&part);
                }
                Ok(None) => break Ok((bytes, hash)),
                Err(failure) => break Err(failure),
            }
        };
        match read {
            Err(Failure::Lost) if attempt < ATTEMPTS => attempt += 1,
            read => return read,
        }
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes it");
        text
    })
}

/// Makes what a cache has at a place: numbers of the generator SplitMix64, which nobody can pack.
fn fill(key: &str, at: u64, piece: &mut [u8]) {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let seed = key.bytes().fold(STEP, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(STEP));
    let mut state = seed.wrapping_add((at / 8).wrapping_mul(STEP));
    for word in piece.chunks_mut(8) {
        state = state.wrapping_add(STEP);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bytes = (mixed ^ (mixed >> 31)).to_le_bytes();
        word.copy_from_slice(&bytes[..word.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_same_wherever_it_begins() {
        let mut whole = vec![0; 4096];
        fill("key", 0, &mut whole);
        let mut part = vec![0; 1001];
        fill("key", 2048, &mut part);
        assert_eq!(part, whole[2048..3049]);
        fill("kez", 2048, &mut part);
        assert_ne!(part, whole[2048..3049]);
    }
}
