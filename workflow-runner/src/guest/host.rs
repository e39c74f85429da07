//! What the engine asks of the orchestrator, by calls.

use std::io;
use std::path::PathBuf;

use common::call::{CallAnswer, CallError, CallErrorKind, ForwardWish, HostCall, TreeWish};
use lz4_flex::frame::FrameDecoder;
use tokio::task::spawn_blocking;
use tokio_util::io::SyncIoBridge;

use super::GuestError;
use super::calls::{Answer, Body, Calls};
use super::forwarder::Forwarder;
use super::unpack::unpack_for;
use crate::host::{Answered, ContainerNetwork, Fetched, Host, HostError};
use crate::system::{Owner, Pending, while_wanted};

/// How often an archive is asked for whose connection is lost before its end.
const ATTEMPTS: u32 = 5;

/// The orchestrator at the other end of the connection.
pub(super) struct Orchestrator {
    calls: Calls,
    /// What programs ask in its place, if there is something to ask for.
    forwarder: Option<Forwarder>,
}

impl Orchestrator {
    pub(super) fn new(calls: Calls) -> Self {
        Self { calls, forwarder: None }
    }

    /// The same, with the job's services for programs.
    pub(super) fn with(self, forwarder: Option<Forwarder>) -> Self {
        Self { forwarder, ..self }
    }

    /// Makes a call whose answer is an archive, and unpacks that.
    async fn fetch(
        &self,
        call: HostCall,
        what: String,
        to: &str,
        owner: Owner,
    ) -> Result<Fetched, HostError> {
        let cannot = |kind: Option<CallErrorKind>, why: String| {
            HostError::new(kind, format!("cannot fetch {what}: {why}"))
        };
        let refused = |error: CallError| cannot(Some(error.kind), error.message);
        let call = HostCall::Packed(Box::new(call));
        let mut attempt = 1;
        loop {
            let answer = self.calls.call(&call).await.map_err(refused)?;
            let (CallAnswer::Action { commit } | CallAnswer::Tree { commit }) = answer.head else {
                return Err(refused(another_question()));
            };
            let loss = answer.body.loss();
            match place(answer.body, PathBuf::from(to), owner).await {
                Ok(()) => return Ok(Fetched { commit }),
                Err(_) if loss.is_set() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => {
                    let kind = loss.is_set().then_some(CallErrorKind::Unavailable);
                    return Err(cannot(kind, error.to_string()));
                }
            }
        }
    }
}

impl Host for Orchestrator {
    fn fetch_action<'a>(
        &'a self,
        reference: &'a str,
        to: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>> {
        Box::pin(async move {
            let call = HostCall::Action { reference: reference.to_owned() };
            self.fetch(call, format!("the action {reference}"), to, owner).await
        })
    }

    fn fetch_tree<'a>(
        &'a self,
        wish: &'a TreeWish,
        to: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>> {
        Box::pin(async move {
            let call = HostCall::Tree(wish.clone());
            self.fetch(call, format!("the repository {}", wish.repository), to, owner).await
        })
    }

    fn ask<'a>(
        &'a self,
        wish: ForwardWish,
        body: &'a [u8],
    ) -> Pending<'a, Result<Answered, HostError>> {
        Box::pin(async move {
            let call = HostCall::Forward(wish);
            let refused = |error: CallError| HostError::new(error.kind, error.message);
            let answer = self.calls.call_with(&call, body).await;
            let Answer { head, body } = answer.map_err(refused)?;
            let CallAnswer::Forward { status, headers } = head else {
                return Err(refused(another_question()));
            };
            Ok(Answered { status, headers, body: Box::new(body) })
        })
    }

    fn address(&self) -> Option<&str> {
        self.forwarder.as_ref().map(Forwarder::address)
    }

    fn open_to(&self, network: ContainerNetwork) -> Pending<'_, Option<String>> {
        Box::pin(async move { self.forwarder.as_ref()?.open_to(network).await.ok() })
    }
}

fn another_question() -> CallError {
    CallError::new(CallErrorKind::Invalid, "the host answered another question")
}

/// Unpacks an archive as it comes, as long as somebody waits for it; what an attempt before it left
/// goes.
async fn place(body: Body, to: PathBuf, owner: Owner) -> Result<(), GuestError> {
    let (body, _waiting) = while_wanted(body);
    let unpacked = spawn_blocking(move || {
        match std::fs::remove_dir_all(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(GuestError::io("remove", &to)(error));
            }
            _ => {}
        }
        unpack_for(FrameDecoder::new(SyncIoBridge::new(body)), &to, Some(owner))
    });
    match unpacked.await {
        Ok(unpacked) => unpacked,
        Err(error) => Err(GuestError::io("unpack", "an archive")(io::Error::other(error))),
    }
}
