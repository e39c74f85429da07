//! Moving a process's output into the log while it runs.
//!
//! Speed matters here more than anywhere else in the engine: the program runs on emulated
//! processors, and a step may print without pause. Bytes are read in large chunks, the clock is
//! read once a chunk, and a line is copied once. The pump stops reading while the channel of events
//! is full, so that a job slows itself and nothing else.

use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use common::event::Stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::system::System;

use super::interpreter::Interpreter;
use super::lines::LineSplitter;

/// How much is read at once, in bytes: what a pipe holds.
const CHUNK: usize = 64 * 1024;

/// How long output is awaited after a process has ended: others that it started may still write to
/// its streams, or hold them open for ever.
pub(super) const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// How long one read may take once [`DRAIN_GRACE`] is over: what lies in the pipe is there at once.
const DRAIN_READ: Duration = Duration::from_millis(50);

/// The most that is read of a stream once [`DRAIN_GRACE`] is over, in bytes: the largest pipe.
const DRAIN_BYTES: usize = 1024 * 1024;

/// A process that writes each line by itself is read after so many reads of one stream in a row...
const COALESCE_AFTER: u32 = 32;

/// ...with this pause before each read, so that the emulated processor does not switch between
/// writer and reader for every line. It delays a line by no more than this.
const COALESCE_PAUSE: Duration = Duration::from_millis(5);

/// A chunk of this size comes from a stream that needs no pause to fill, in bytes.
const COALESCE_BYTES: usize = 16 * 1024;

/// Standard output is asked first, because a process that writes to both at once mostly ends with
/// what went wrong; but after so many reads standard error has its turn.
const STREAK: u32 = 16;

/// The streams of a process.
pub(super) struct Streams {
    sources: [Source; 2],
    /// Reads of standard output in a row.
    streak: u32,
}

struct Source {
    stream: Stream,
    reader: Option<Box<dyn AsyncRead + Send + Unpin>>,
    splitter: LineSplitter,
}

impl Streams {
    /// Takes the streams of a process that was just started.
    pub(super) fn new(
        stdout: Box<dyn AsyncRead + Send + Unpin>,
        stderr: Box<dyn AsyncRead + Send + Unpin>,
    ) -> Self {
        let source = |stream, reader| Source {
            stream,
            reader: Some(reader),
            splitter: LineSplitter::default(),
        };
        Self {
            sources: [source(Stream::Stdout, stdout), source(Stream::Stderr, stderr)],
            streak: 0,
        }
    }

    /// Reads and interprets until both streams have ended, or until the process has (`exited`) and
    /// [`DRAIN_GRACE`] after it.
    pub(super) async fn pump(
        &mut self,
        interpreter: &mut Interpreter<'_>,
        system: &dyn System,
        exited: &CancellationToken,
    ) {
        let mut buffer = vec![0; CHUNK];
        let mut pace = Pace::default();
        let mut grace = None;
        while self.is_open() {
            if pace.is_busy() && grace.is_none() {
                sleep(COALESCE_PAUSE).await;
            }
            let due = interpreter.events().due();
            if due.is_some_and(|due| due <= Instant::now()) {
                interpreter.events().flush().await;
                continue;
            }
            let read = tokio::select! {
                biased;
                () = exited.cancelled(), if grace.is_none() => {
                    grace = Some(Instant::now() + DRAIN_GRACE);
                    continue;
                }
                () = until(due) => continue,
                read = self.read(&mut buffer) => read,
                () = until(grace) => break,
            };
            pace.note(&read);
            self.interpret(&read, &buffer, interpreter, system).await;
            if grace.is_some_and(|grace| grace <= Instant::now()) {
                break;
            }
        }
        let mut left = 2 * DRAIN_BYTES;
        while self.is_open() && left > 0 {
            let Ok(read) = timeout(DRAIN_READ, self.read(&mut buffer)).await else { break };
            left = left.saturating_sub(read.bytes.max(1));
            self.interpret(&read, &buffer, interpreter, system).await;
        }
        for source in &mut self.sources {
            if let Some(line) = source.splitter.rest() {
                interpreter.line(system.now(), source.stream, line).await;
            }
        }
        interpreter.events().flush().await;
    }

    /// Reads what is still written, by processes that outlive their step, into nothing: a server
    /// that a step started must not die because nobody reads what it prints.
    pub(super) async fn discard(mut self) {
        let mut buffer = vec![0; 4096];
        while self.is_open() {
            self.read(&mut buffer).await;
        }
    }

    /// Whether a stream has not ended.
    pub(super) fn is_open(&self) -> bool {
        self.sources.iter().any(|source| source.reader.is_some())
    }

    /// Reads from whichever stream has something; an end or error closes the stream.
    async fn read(&mut self, buffer: &mut [u8]) -> Read {
        let order = if self.streak < STREAK { [0, 1] } else { [1, 0] };
        let read = std::future::poll_fn(|context| {
            for index in order {
                let source = &mut self.sources[index];
                let Some(reader) = &mut source.reader else { continue };
                let mut target = ReadBuf::new(buffer);
                match Pin::new(reader).poll_read(context, &mut target) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) if !target.filled().is_empty() => {
                        return Poll::Ready(Read { index, bytes: target.filled().len() });
                    }
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {
                        context.waker().wake_by_ref();
                    }
                    Poll::Ready(_) => {
                        source.reader = None;
                        return Poll::Ready(Read { index, bytes: 0 });
                    }
                }
            }
            Poll::Pending
        })
        .await;
        self.streak = if read.index == 0 && self.streak < STREAK { self.streak + 1 } else { 0 };
        read
    }

    async fn interpret(
        &mut self,
        read: &Read,
        buffer: &[u8],
        interpreter: &mut Interpreter<'_>,
        system: &dyn System,
    ) {
        let source = &mut self.sources[read.index];
        let mut chunk = &buffer[..read.bytes];
        let time = system.now();
        while let Some(line) = source.splitter.next(&mut chunk) {
            interpreter.line(time, source.stream, line).await;
        }
    }
}

/// What was read.
struct Read {
    /// From which source.
    index: usize,
    /// How much; nothing at the end of a stream.
    bytes: usize,
}

/// Recognises a process that writes many small pieces to one stream.
#[derive(Default)]
struct Pace {
    window: Option<Instant>,
    index: usize,
    reads: u32,
    small: bool,
}

impl Pace {
    fn note(&mut self, read: &Read) {
        let now = Instant::now();
        let over = self
            .window
            .is_none_or(|start| now.duration_since(start) > COALESCE_PAUSE * COALESCE_AFTER);
        // Pausing would lose the order of two streams that are written in turns.
        if over || read.index != self.index {
            // A pace that was kept up through a window goes on in the next.
            let keep = read.index == self.index && self.reads >= COALESCE_AFTER / 2;
            self.reads = if keep { self.reads / 2 } else { 0 };
            self.window = Some(now);
            self.index = read.index;
        }
        self.reads += 1;
        self.small = read.bytes < COALESCE_BYTES;
    }

    fn is_busy(&self) -> bool {
        self.small && self.reads >= COALESCE_AFTER
    }
}

/// Waits until a moment, or for ever.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use common::guest::GuestEvent;
    use common::limits::LOG_BATCH_DELAY;
    use common::plan::Dialect;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::mpsc;

    use super::*;
    use crate::engine::dialect::DialectRules;
    use crate::engine::events::{Events, LogLimits};
    use crate::engine::matcher::Matchers;
    use crate::system::Local;

    /// The ends of a pump that runs: both streams, what it reports, and the process's end.
    struct Ends {
        stdout: DuplexStream,
        stderr: DuplexStream,
        events: mpsc::Receiver<GuestEvent>,
        exited: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    fn start() -> Ends {
        let (stdout, out) = duplex(CHUNK);
        let (stderr, err) = duplex(CHUNK);
        let (sender, events) = mpsc::channel(1024);
        let exited = CancellationToken::new();
        let done = exited.clone();
        let task = tokio::spawn(async move {
            let system = Arc::new(Local::new());
            let mut events = Events::new(sender, LogLimits::JOB, []);
            let rules = DialectRules::of(Dialect::Github);
            let mut matchers = Matchers::default();
            let mut interpreter =
                Interpreter::new(rules, &*system, &mut events, &mut matchers, 0, false, |_| None);
            Streams::new(Box::new(out), Box::new(err))
                .pump(&mut interpreter, &*system, &done)
                .await;
        });
        Ends { stdout, stderr, events, exited, task }
    }

    impl Ends {
        async fn batch(&mut self) -> Option<Vec<String>> {
            match self.events.recv().await? {
                GuestEvent::Log(batch) => {
                    Some(batch.lines.iter().map(|line| line.text.to_text().into_owned()).collect())
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_after_silence_is_sent_at_once_and_later_ones_in_company() {
        let mut ends = start();
        for _ in 0..2 {
            sleep(Duration::from_secs(1)).await;
            let start = Instant::now();
            ends.stdout.write_all(b"first\n").await.unwrap();
            assert_eq!(ends.batch().await.unwrap(), ["first"]);
            assert_eq!(start.elapsed(), Duration::ZERO);
            ends.stdout.write_all(b"second\n").await.unwrap();
            sleep(Duration::from_millis(1)).await;
            ends.stderr.write_all(b"third\n").await.unwrap();
            assert_eq!(ends.batch().await.unwrap(), ["second", "third"]);
            assert!(start.elapsed() <= LOG_BATCH_DELAY, "{:?}", start.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_line_of_a_busy_writer_waits_too_long() {
        let mut ends = start();
        let start = Instant::now();
        let mut written = 0;
        let mut seen = 0;
        while start.elapsed() < Duration::from_secs(2) {
            ends.stdout
                .write_all(format!("{}\n", start.elapsed().as_millis()).as_bytes())
                .await
                .unwrap();
            written += 1;
            sleep(Duration::from_millis(1)).await;
            while let Ok(GuestEvent::Log(batch)) = ends.events.try_recv() {
                for line in batch.lines {
                    let at: u128 = line.text.to_text().parse().unwrap();
                    let waited = start.elapsed().as_millis() - at;
                    assert!(waited <= LOG_BATCH_DELAY.as_millis() + 1, "{waited}");
                    seen += 1;
                }
            }
        }
        assert!(seen > written / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_that_stay_open_are_awaited_for_the_grace_only() {
        let mut ends = start();
        ends.stdout.write_all(b"a\npartial").await.unwrap();
        assert_eq!(ends.batch().await.unwrap(), ["a"]);
        let start = Instant::now();
        ends.exited.cancel();
        assert_eq!(ends.batch().await.unwrap(), ["partial"]);
        assert!(start.elapsed() < DRAIN_GRACE + 2 * DRAIN_READ, "{:?}", start.elapsed());
        ends.task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_without_end_holds_nothing_up_after_the_exit() {
        let mut ends = start();
        ends.exited.cancel();
        let flood = async {
            let block = [b'\n'; 4096];
            while ends.stdout.write_all(&block).await.is_ok() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let drain = async { while ends.events.recv().await.is_some() {} };
        tokio::select! {
            () = flood => {}
            () = drain => {}
        }
        ends.task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_streams() {
        let mut ends = start();
        ends.stdout.write_all(b"a").await.unwrap();
        ends.stderr.write_all(b"b\n").await.unwrap();
        drop((ends.stdout, ends.stderr));
        ends.task.await.unwrap();
        let mut lines = Vec::new();
        while let Some(GuestEvent::Log(batch)) = ends.events.recv().await {
            lines.extend(batch.lines.into_iter().map(|line| line.text.to_text().into_owned()));
        }
        assert_eq!(lines, ["b", "a"]);
    }
}
