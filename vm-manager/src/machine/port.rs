//! The second serial port of a guest: lines of text, before anybody may use SSH.

use std::path::Path;
use std::time::Duration;

use common::personal::{Answer, GREETING, LINE_BYTES, Word, line, read};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::template::TemplateError;

/// How long the guest program may take until it listens.
const LISTENING: Duration = Duration::from_secs(60);

/// The host's end of a guest's second serial port.
#[derive(Debug)]
pub struct Port {
    stream: BufReader<UnixStream>,
    /// What came of a line whose end was not waited for.
    line: Vec<u8>,
}

impl Port {
    pub(super) async fn open(socket: &Path) -> Result<Self, TemplateError> {
        let stream = UnixStream::connect(socket).await.map_err(TemplateError::Port)?;
        Ok(Self { stream: BufReader::new(stream), line: Vec::new() })
    }

    /// Waits until the guest program says that it listens.
    ///
    /// # Errors
    /// It does not in time, or says something else.
    pub async fn greeted(mut self) -> Result<(), TemplateError> {
        let what = "the guest program's way to its serial port";
        let line = tokio::time::timeout(LISTENING, self.line())
            .await
            .map_err(|_| TemplateError::Timeout { what, deadline: LISTENING })??;
        let said = String::from_utf8_lossy(&line);
        if said.trim_end() == GREETING {
            return Ok(());
        }
        let said: String = said.chars().take(200).collect();
        Err(TemplateError::Personal { reason: format!("it said {said:?} on the serial port") })
    }

    /// Says something.
    pub(super) async fn say(&mut self, word: &Word) -> Result<(), TemplateError> {
        self.send(&line(word)).await
    }

    /// An empty line, which says nothing and is answered all the same.
    pub(super) async fn nudge(&mut self) -> Result<(), TemplateError> {
        self.send(b"\n").await
    }

    async fn send(&mut self, line: &[u8]) -> Result<(), TemplateError> {
        let sent = async {
            self.stream.write_all(line).await?;
            self.stream.flush().await
        };
        sent.await.map_err(TemplateError::Port)
    }

    /// The next thing that the guest program says; nothing if it arrived damaged.
    pub(super) async fn answer(&mut self) -> Result<Option<Answer>, TemplateError> {
        self.line().await.map(|line| read(&line))
    }

    /// The next line that the guest writes. What is there of it stays when nobody waits any more.
    async fn line(&mut self) -> Result<Vec<u8>, TemplateError> {
        let room = LINE_BYTES.saturating_sub(self.line.len());
        let mut bounded = (&mut self.stream).take(room as u64);
        bounded.read_until(b'\n', &mut self.line).await.map_err(TemplateError::Port)?;
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let reason = "the guest or its QEMU ended".to_owned();
            return Err(TemplateError::Personal { reason });
        }
        Ok(line)
    }
}
