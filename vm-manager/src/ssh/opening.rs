//! From a fresh channel to something that runs on it.

use std::collections::VecDeque;
use std::sync::Arc;

use russh::{ChannelMsg, ChannelReadHalf};

use super::connection::{Connection, Lease, SILENCE};
use super::error::within;
use super::{Outputs, Session, SshError, Stdin};

/// Messages that a server may send before it has answered our request; more break the protocol.
const EARLY_MESSAGES: usize = 64;

/// Channels that are opened for one request before it is given up.
const ATTEMPTS: u32 = 8;

/// Opens a channel and makes `requests` on it, of which the last one starts something. Returns once
/// the server has taken them all.
///
/// Dropbear closes a channel on which nothing was started yet when a process of any other channel
/// ends at that moment (seen with 2022.83). It starts nothing on it any more, so another channel is
/// tried.
pub(super) async fn start(
    connection: &Arc<Connection>,
    requests: &[Request<'_>],
) -> Result<Session, SshError> {
    let mut attempt = 1;
    loop {
        let mut opening = Opening::new(connection).await?;
        match opening.make(requests).await? {
            Answer::Taken => return Ok(opening.into_session()),
            Answer::Closed if attempt < ATTEMPTS => attempt += 1,
            Answer::Closed => {
                let text = format!("a channel, which it closed {ATTEMPTS} times");
                return Err(SshError::Rejected(text));
            }
        }
    }
}

/// A request on a fresh channel.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    Exec(&'a str),
    Subsystem(&'static str),
    Shell,
    Terminal { term: &'a str, columns: u16, rows: u16 },
}

impl Request<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Exec(_) => "a command",
            Self::Subsystem(_) => "a subsystem",
            Self::Shell => "a login shell",
            Self::Terminal { .. } => "a terminal",
        }
    }
}

/// What the server made of our requests.
enum Answer {
    Taken,
    /// It closed the channel before it answered.
    Closed,
}

/// A channel on which nothing was started yet.
struct Opening {
    read: ChannelReadHalf,
    early: VecDeque<ChannelMsg>,
    lease: Arc<Lease>,
}

impl Opening {
    async fn new(connection: &Arc<Connection>) -> Result<Self, SshError> {
        let (read, lease) = connection.channel().await?;
        Ok(Self { read, early: VecDeque::new(), lease })
    }

    async fn make(&mut self, requests: &[Request<'_>]) -> Result<Answer, SshError> {
        for request in requests {
            let what = || format!("the request for {}", request.name());
            let answer = within(SILENCE, what, self.request(*request)).await?;
            if matches!(answer, Answer::Closed) {
                return Ok(answer);
            }
        }
        Ok(Answer::Taken)
    }

    /// Sends a request and waits until the server has answered it.
    async fn request(&mut self, request: Request<'_>) -> Result<Answer, SshError> {
        let write = &self.lease.write;
        let sent = match request {
            Request::Exec(command) => write.exec(true, command).await,
            Request::Subsystem(name) => write.request_subsystem(true, name).await,
            Request::Shell => write.request_shell(true).await,
            Request::Terminal { term, columns, rows } => {
                let (columns, rows) = (u32::from(columns), u32::from(rows));
                write.request_pty(true, term, columns, rows, 0, 0, &[]).await
            }
        };
        sent.map_err(|_| self.lease.connection.lost())?;
        loop {
            match self.read.wait().await {
                Some(ChannelMsg::Success) => return Ok(Answer::Taken),
                Some(ChannelMsg::Failure) => {
                    return Err(SshError::Rejected(request.name().to_owned()));
                }
                Some(ChannelMsg::Close) => return Ok(Answer::Closed),
                Some(ChannelMsg::WindowAdjusted { .. }) => {}
                Some(message) if self.early.len() < EARLY_MESSAGES => {
                    self.early.push_back(message);
                }
                Some(_) => {
                    let name = request.name();
                    let text = format!("it sent output before it answered the request for {name}");
                    return Err(SshError::Protocol(text));
                }
                None => return Err(self.lease.connection.lost()),
            }
        }
    }

    fn into_session(self) -> Session {
        let Self { read, early, lease } = self;
        Session { stdin: Stdin::new(Arc::clone(&lease)), output: Outputs::new(read, early, lease) }
    }
}
