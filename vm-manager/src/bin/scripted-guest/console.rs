//! The serial console.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The file behind the guest's serial port.
#[derive(Debug)]
pub(crate) struct Console {
    file: Mutex<File>,
    begun: Instant,
}

impl Console {
    /// Opens the file as QEMU does, which empties it.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let file = File::create(path)
            .map_err(|error| format!("could not open {}: {error}", path.display()))?;
        Ok(Self { file: Mutex::new(file), begun: Instant::now() })
    }

    /// Writes a line as a kernel does. A console that cannot be written loses it, as a real one does.
    pub(crate) fn kernel(&self, text: &str) {
        let time = self.begun.elapsed();
        let (seconds, micros) = (time.as_secs(), time.subsec_micros());
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        drop(file.write_all(format!("[{seconds:5}.{micros:06}] {text}\r\n").as_bytes()));
    }
}
