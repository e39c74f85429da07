//! What the user sees of a run.
//!
//! One thread owns standard output. It takes [`Item`]s in order, collects their text in a buffer,
//! and writes the buffer when it is full or when nothing else waits: a single line appears at once,
//! a flood of lines costs one system call for thousands of them.
//!
//! [`human`] makes text for people, [`json`] one object per line for programs.

mod clean;
mod human;
mod json;
mod output;
mod progress;
mod report;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;

use common::event::JobEvent;
use common::ids::JobId;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) use human::Human;
pub(crate) use json::Json;
pub(crate) use output::Output;
pub(crate) use report::{JobReport, Report, human_duration};

/// Cancels a token as soon as nobody reads standard output any more, also while nothing is written.
/// Where standard output is no pipe this cannot be seen, and the next write has to tell.
pub(crate) fn watch_readers(closed: CancellationToken) {
    tokio::spawn(async move {
        let Ok(output) = io::stdout().as_fd().try_clone_to_owned().map(File::from) else { return };
        if !output.metadata().is_ok_and(|found| found.file_type().is_fifo()) {
            return;
        }
        // Unchecked, because making it non-blocking would do so for all who share the pipe; nothing
        // is written through this end.
        let Ok(pipe) = Sender::from_file_unchecked(output) else { return };
        if pipe.ready(Interest::ERROR).await.is_ok() {
            closed.cancel();
        }
    });
}

/// Items that may wait for the thread. A batch of log lines has up to 64 KiB, so this bounds the
/// memory of a flood that the terminal cannot follow.
const WAITING_ITEMS: usize = 8;

/// Something to show.
#[derive(Debug)]
pub(crate) enum Item {
    /// A job is handed to the host; its events follow.
    Started(StartedJob),
    /// An event of a job.
    Event(JobEvent),
    /// A sentence of Solstice itself.
    Notice(String),
    /// Everything is over. Nothing follows.
    Report(Report),
}

/// A job that is handed to the host.
#[derive(Debug)]
pub(crate) struct StartedJob {
    /// The id that its events carry.
    pub(crate) id: JobId,
    /// Its name as people read it, with the values of its matrix.
    pub(crate) name: String,
}

/// Makes text of items.
pub(crate) trait Render: Send {
    /// Takes one item; the text may wait in a buffer.
    fn item(&mut self, item: Item) -> io::Result<()>;
    /// Writes what waits.
    fn flush(&mut self) -> io::Result<()>;
}

/// The thread that renders.
pub(crate) struct Screen {
    items: mpsc::Sender<Item>,
    /// Cancelled when nobody reads standard output any more.
    closed: CancellationToken,
    done: tokio::sync::oneshot::Receiver<()>,
}

impl Screen {
    /// Starts the thread. `closed` is cancelled when standard output cannot be written.
    pub(crate) fn start(render: Box<dyn Render>, closed: CancellationToken) -> io::Result<Self> {
        let (items, receiver) = mpsc::channel(WAITING_ITEMS);
        let (finished, done) = tokio::sync::oneshot::channel();
        let token = closed.clone();
        std::thread::Builder::new().name("render".to_owned()).spawn(move || {
            turn(render, receiver, &token);
            if finished.send(()).is_err() {
                tracing::debug!("the run did not wait for its last lines");
            }
        })?;
        Ok(Self { items, closed, done })
    }

    /// Shows an item, waiting for room; gives up when `give_up` is cancelled, so that a terminal
    /// that nobody reads cannot hold up the end of a run.
    pub(crate) async fn show(&self, item: Item, give_up: &CancellationToken) {
        if self.closed.is_cancelled() {
            return;
        }
        tokio::select! {
            biased;
            permit = self.items.reserve() => {
                if let Ok(permit) = permit {
                    permit.send(item);
                }
            }
            () = give_up.cancelled() => {}
            () = self.closed.cancelled() => {}
        }
    }

    /// Waits until nobody reads standard output any more.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Waits until everything is written, at most until `give_up` is cancelled.
    pub(crate) async fn finish(self, give_up: &CancellationToken) {
        drop(self.items);
        tokio::select! {
            biased;
            _ = self.done => {}
            () = give_up.cancelled() => {}
        }
    }
}

fn turn(mut render: Box<dyn Render>, mut items: mpsc::Receiver<Item>, closed: &CancellationToken) {
    if let Err(error) = render_all(render.as_mut(), &mut items) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            crate::message::warning(&format!("cannot write to standard output: {error}"));
        }
        closed.cancel();
        // Senders must not wait for a reader that does not exist any more.
        items.close();
        while items.blocking_recv().is_some() {}
    }
}

fn render_all(render: &mut dyn Render, items: &mut mpsc::Receiver<Item>) -> io::Result<()> {
    while let Some(item) = items.blocking_recv() {
        render.item(item)?;
        while let Ok(item) = items.try_recv() {
            render.item(item)?;
        }
        render.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
