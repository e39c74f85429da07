//! Files that hold secrets.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::request::Secret;

use super::IdentityError;

/// The longest token. A longer line is something else.
const TOKEN_BYTES: usize = 1024;

/// A file's text, and whether others may read it.
pub(super) fn read(path: &Path, most: u64) -> io::Result<(String, bool)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::other("it is a directory"));
    }
    // What comes through a pipe has no reader but this one.
    let shared = metadata.is_file() && metadata.permissions().mode() & 0o077 != 0;
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        return Err(io::Error::other(format!("it has over {most} bytes")));
    }
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok((text, shared))
}

/// The token in a file that nobody but its owner may read.
///
/// # Errors
/// The file cannot be read, others may read it, or it holds no token.
pub fn token(path: &Path) -> Result<Secret, IdentityError> {
    let shown = path.display();
    let cannot = |what: &dyn std::fmt::Display| {
        IdentityError::new(format!("cannot use the token file {shown}: {what}"))
    };
    let (text, shared) = read(path, 4 * TOKEN_BYTES as u64).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "write the token into it, and run chmod 600 on it",
            io::ErrorKind::PermissionDenied => "give the file to the user of this program",
            _ => "the file holds the token on its only line",
        };
        cannot(&error).hint(hint)
    })?;
    if shared {
        return Err(cannot(&"others may read it").hint(format!("chmod 600 {shown}")));
    }
    one_line(&text).map_err(|problem| cannot(&problem).hint("write the token alone into it"))
}

/// The only line of a text, as a secret.
///
/// # Errors
/// There is none, there are several, or it is too long.
pub fn one_line(text: &str) -> Result<Secret, String> {
    let text = text.trim();
    if text.is_empty() {
        Err("it is empty".to_owned())
    } else if text.len() > TOKEN_BYTES {
        Err(format!("a token has at most {TOKEN_BYTES} bytes"))
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("it holds more than a token".to_owned())
    } else {
        Ok(Secret::new(text))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_token_is_the_only_line_of_a_file_of_ones_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let with = |text: &str, mode: u32| {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
            token(&path).map(|secret| secret.expose().to_owned())
        };
        assert_eq!(with("hunter2\r\n", 0o600).as_deref(), Ok("hunter2"));
        assert_eq!(with("\u{feff}hunter2", 0o400).as_deref(), Ok("hunter2"));
        for (text, mode, expected) in [
            ("hunter2", 0o640, "others may read it"),
            ("hunter2", 0o604, "others may read it"),
            ("\n", 0o600, "it is empty"),
            ("hunter2\nhunter2", 0o600, "more than a token"),
            ("token: hunter2", 0o600, "more than a token"),
        ] {
            let error = with(text, mode).expect_err(text);
            let shown = error.to_string();
            assert!(shown.contains(expected) && !shown.contains("hunter2"), "{shown}");
            assert!(error.advice().is_some());
        }
        let missing = token(&directory.path().join("none")).expect_err("none");
        assert!(missing.to_string().contains("No such file"), "{missing}");
        let folder = token(directory.path()).expect_err("a folder");
        assert!(folder.to_string().contains("it is a directory"), "{folder}");
    }
}
