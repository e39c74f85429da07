//! The SFTP server: what an upload that replaces a file and a download need.

use std::collections::HashMap;
use std::sync::Arc;

use russh_sftp::protocol::{
    Attrs, Data, FileAttributes, Handle, OpenFlags, Packet, Status, StatusCode, Version,
};
use russh_sftp::server;

use crate::machine::Machine;

/// OpenSSH's rename that replaces (its PROTOCOL file, section 4.3).
const POSIX_RENAME: &str = "posix-rename@openssh.com";

/// One session. A handle is the path of its file.
pub(crate) struct Sftp {
    machine: Arc<Machine>,
}

impl Sftp {
    pub(crate) fn new(machine: Arc<Machine>) -> Self {
        Self { machine }
    }
}

impl server::Handler for Sftp {
    type Error = StatusCode;

    fn unimplemented(&self) -> StatusCode {
        StatusCode::OpUnsupported
    }

    async fn init(&mut self, _: u32, _: HashMap<String, String>) -> Result<Version, StatusCode> {
        let mut version = Version::new();
        version.extensions.insert(POSIX_RENAME.to_owned(), "1".to_owned());
        Ok(version)
    }

    async fn open(
        &mut self,
        id: u32,
        path: String,
        flags: OpenFlags,
        attributes: FileAttributes,
    ) -> Result<Handle, StatusCode> {
        let files = &self.machine.files;
        match (files.has(&path), flags.contains(OpenFlags::CREATE)) {
            (true, true) if flags.contains(OpenFlags::EXCLUDE) => return Err(StatusCode::Failure),
            (false, false) => return Err(StatusCode::NoSuchFile),
            (true, _) if !flags.contains(OpenFlags::TRUNCATE) => {}
            (true, false) | (_, true) => {
                files.create(&path, attributes.permissions.unwrap_or(0o644));
            }
        }
        Ok(Handle { id, handle: path })
    }

    async fn close(&mut self, id: u32, _: String) -> Result<Status, StatusCode> {
        Ok(ok(id))
    }

    async fn read(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        count: u32,
    ) -> Result<Data, StatusCode> {
        let read = |file: &mut crate::files::File| {
            file.read(offset, count as usize).map(<[u8]>::to_vec).map_err(|()| StatusCode::Failure)
        };
        let data = self.machine.files.with(&handle, read).ok_or(StatusCode::NoSuchFile)??;
        if data.is_empty() { Err(StatusCode::Eof) } else { Ok(Data { id, data }) }
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<Status, StatusCode> {
        let written = self.machine.files.with(&handle, |file| file.write(offset, &data));
        written.map(|()| ok(id)).ok_or(StatusCode::NoSuchFile)
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Result<Attrs, StatusCode> {
        let attrs = self.machine.files.with(&handle, |file| FileAttributes {
            size: Some(file.size),
            permissions: Some(file.mode),
            ..FileAttributes::empty()
        });
        attrs.map(|attrs| Attrs { id, attrs }).ok_or(StatusCode::NoSuchFile)
    }

    async fn fsetstat(
        &mut self,
        id: u32,
        handle: String,
        attributes: FileAttributes,
    ) -> Result<Status, StatusCode> {
        let set = self.machine.files.with(&handle, |file| {
            file.mode = attributes.permissions.unwrap_or(file.mode);
        });
        set.map(|()| ok(id)).ok_or(StatusCode::NoSuchFile)
    }

    async fn remove(&mut self, id: u32, path: String) -> Result<Status, StatusCode> {
        if self.machine.files.remove(&path) { Ok(ok(id)) } else { Err(StatusCode::NoSuchFile) }
    }

    async fn extended(
        &mut self,
        id: u32,
        request: String,
        data: Vec<u8>,
    ) -> Result<Packet, StatusCode> {
        if request != POSIX_RENAME {
            return Err(StatusCode::OpUnsupported);
        }
        let (from, rest) = text(&data).ok_or(StatusCode::BadMessage)?;
        let (to, _) = text(rest).ok_or(StatusCode::BadMessage)?;
        if self.machine.files.rename(from, to) {
            Ok(Packet::Status(ok(id)))
        } else {
            Err(StatusCode::NoSuchFile)
        }
    }
}

fn ok(id: u32) -> Status {
    Status {
        id,
        status_code: StatusCode::Ok,
        error_message: "Success".to_owned(),
        language_tag: "en".to_owned(),
    }
}

/// A text with its length in front, and what follows it.
fn text(data: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_strictly() {
        assert_eq!(text(b"\0\0\0\x02abc"), Some(("ab", &b"c"[..])));
        assert_eq!(text(b"\0\0\0\x04abc"), None);
        assert_eq!(text(b"\0\0"), None);
        assert_eq!(text(b"\0\0\0\x01\xff"), None);
    }
}
