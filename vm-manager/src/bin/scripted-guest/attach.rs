//! One attached host, as the real guest program serves it (`workflow-runner`, `guest::connection`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::frame::{self, Decoder};
use common::guest::{ATTACH_VERSION, FromGuest, ToGuest};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::calls::Attached;
use crate::command::{Input, Terminal};
use crate::job::{Hold, Job};

/// How long a new connection may take to say what it wants.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);

/// The bytes of frames that are gathered for one write.
const WRITE_BYTES: usize = 64 * 1024;

/// Serves a host until it is replaced, refused, gone, or has everything.
pub(crate) async fn serve(job: &Arc<Job>, input: &mut Input, terminal: &Terminal) {
    let mut decoder = Decoder::default();
    let Ok(Some(first)) = timeout(GREETING_DEADLINE, first_frame(input, &mut decoder)).await else {
        return;
    };
    let hold = match first.and_then(|from| job.attach(from)) {
        Ok(hold) => hold,
        Err(reason) => return refuse(terminal, reason).await,
    };
    let (calls, messages) = job.calls.attach();
    let host = Host {
        job,
        calls,
        sent: Mutex::new(Sent { next: hold.next, refusal: None }),
        refused: Notify::new(),
    };
    tokio::select! {
        () = host.hear(input, decoder) => {}
        () = host.tell(terminal, hold, messages) => {}
        () = job.until_let_go(hold) => {}
    }
}

/// Tells a host why it is not served.
pub(crate) async fn refuse(terminal: &Terminal, reason: String) {
    terminal.stdout(encode(&FromGuest::Refused { reason })).await;
}

fn encode(frame: &FromGuest) -> Vec<u8> {
    frame::encode(frame).expect("it fits in a frame")
}

/// From which event on a host wants them, or why it is refused; `None` if it is gone.
async fn first_frame(input: &mut Input, decoder: &mut Decoder) -> Option<Result<u64, String>> {
    loop {
        match decoder.next_frame::<ToGuest>() {
            Ok(None) => decoder.push(&input.next().await?),
            Ok(Some(ToGuest::Attach { version: ATTACH_VERSION, from: 0 })) => {
                return Some(Err("events are numbered from 1".to_owned()));
            }
            Ok(Some(ToGuest::Attach { version: ATTACH_VERSION, from })) => return Some(Ok(from)),
            Ok(Some(ToGuest::Attach { version, .. })) => {
                return Some(Err(format!(
                    "this guest program speaks version {ATTACH_VERSION} and the host version \
                     {version}"
                )));
            }
            Ok(Some(_)) => return Some(Err("the first frame must be an attach".to_owned())),
            Err(error) => return Some(Err(error.to_string())),
        }
    }
}

/// A host that was greeted.
struct Host<'a> {
    job: &'a Job,
    /// The calls on this connection.
    calls: Attached<'a>,
    sent: Mutex<Sent>,
    /// There is a refusal to send.
    refused: Notify,
}

struct Sent {
    /// The next event to send.
    next: u64,
    /// Why nothing more is sent.
    refusal: Option<String>,
}

impl Host<'_> {
    /// Acts on what the host says, until it hangs up.
    async fn hear(&self, input: &mut Input, mut decoder: Decoder) {
        loop {
            match decoder.next_frame::<ToGuest>() {
                Ok(None) => match input.next().await {
                    Some(bytes) => decoder.push(&bytes),
                    None => return,
                },
                Ok(Some(ToGuest::Ack { seq })) if seq < self.sent().next => {
                    self.job.acknowledge(seq);
                }
                Ok(Some(ToGuest::Ack { seq })) => {
                    self.refuse(format!("event {seq} was not sent yet")).await;
                }
                Ok(Some(ToGuest::Call { call, reply })) => self.calls.take(call, reply),
                Ok(Some(ToGuest::Cancel)) => self.job.cancel.cancel(),
                Ok(Some(ToGuest::Attach { .. })) => {
                    self.refuse("this connection is attached".to_owned()).await;
                }
                Err(error) => self.refuse(error.to_string()).await,
            }
        }
    }

    /// Sends what there is to send, until nobody takes it or there is a refusal to end with.
    async fn tell(&self, terminal: &Terminal, hold: Hold, mut said: mpsc::Receiver<FromGuest>) {
        let attached =
            FromGuest::Attached { version: ATTACH_VERSION, job: self.job.id, next: hold.next };
        if !terminal.stdout(encode(&attached)).await {
            return;
        }
        loop {
            let bytes = tokio::select! {
                biased;
                () = self.refused.notified() => {
                    let refusal = self.sent().refusal.take();
                    return refuse(terminal, refusal.unwrap_or_default()).await;
                }
                bytes = self.gather(&mut said) => bytes,
            };
            if !terminal.stdout(bytes).await {
                return;
            }
        }
    }

    /// Waits for events or for messages about calls, whichever come: neither keeps the other waiting.
    async fn gather(&self, said: &mut mpsc::Receiver<FromGuest>) -> Vec<u8> {
        let from = self.sent().next;
        tokio::select! {
            (bytes, next) = self.job.frames(from, WRITE_BYTES) => {
                self.sent().next = next;
                bytes
            }
            Some(message) = said.recv() => {
                let mut bytes = encode(&message);
                while bytes.len() < WRITE_BYTES
                    && let Ok(message) = said.try_recv()
                {
                    frame::encode_into(&mut bytes, &message).expect("parts of calls fit in a frame");
                }
                bytes
            }
        }
    }

    /// Ends the conversation behind the frames that are on their way; hears nothing more.
    async fn refuse(&self, reason: String) {
        self.sent().refusal = Some(reason);
        self.refused.notify_one();
        std::future::pending::<()>().await;
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
