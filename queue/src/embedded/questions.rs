//! Questions for a reservation: answered within seconds, or not at all, and never written.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Mutex;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::lock;
use crate::message::{Reserve, Reserved};
use crate::{QueueError, RESERVE_ANSWER};

#[derive(Debug, Default)]
pub(super) struct Questions {
    waiting: Mutex<VecDeque<Question>>,
    changed: Notify,
}

type Question = (Reserve, oneshot::Sender<Reserved>);

impl Questions {
    pub(super) async fn ask(&self, question: &Reserve) -> Result<Reserved, QueueError> {
        let (sender, answer) = oneshot::channel();
        {
            let waiting = &mut *lock(&self.waiting);
            // Those who do not wait any more, so that the list is as long as there are askers.
            waiting.retain(|(_, sender)| !sender.is_closed());
            waiting.push_back((question.clone(), sender));
        }
        self.changed.notify_waiters();
        match timeout(RESERVE_ANSWER, answer).await {
            Ok(Ok(answer)) if answer.id == question.id => Ok(answer),
            // Late, dropped without an answer, or answered with that to another question.
            _ => Err(QueueError::NoAnswer { deadline: RESERVE_ANSWER }),
        }
    }

    /// The next question that somebody waits for. Safe to cancel.
    pub(super) async fn next(&self) -> Question {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(question) = self.take() {
                return question;
            }
            changed.await;
        }
    }

    fn take(&self) -> Option<Question> {
        let waiting = &mut *lock(&self.waiting);
        loop {
            let question = waiting.pop_front()?;
            if !question.1.is_closed() {
                return Some(question);
            }
        }
    }
}
