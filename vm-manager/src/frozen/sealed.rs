//! Files that nobody can read without the installation's keys.
//!
//! A file is a row of pieces: the length of the sealed bytes (four bytes, the highest first) and
//! these. The name of the machine, that of the file, the piece's number and whether it is the last
//! are bound to it, so that pieces cannot be exchanged, left out or cut off.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use zeroize::Zeroizing;

/// The plain bytes of a piece, but the last.
const PIECE_BYTES: usize = 1024 * 1024;
/// What sealing may add to a piece.
const SEALED_BYTES: usize = PIECE_BYTES + 4096;

/// Seals and opens pieces of a frozen machine with the keys of the installation.
pub trait Cipher: Send + Sync {
    /// Seals a piece, to be opened only for the same `place`.
    fn seal(&self, place: &[u8], plain: &[u8]) -> Vec<u8>;

    /// Opens a piece; nothing if it was changed, or sealed for another place or with an unknown key.
    fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>>;
}

fn place(machine: &str, file: &str, number: u64, last: bool) -> Vec<u8> {
    format!("{machine}\0{file}\0{number}\0{last}").into_bytes()
}

/// Seals everything from `from` into a new file below `directory`.
pub(super) fn seal(
    cipher: &dyn Cipher,
    machine: &str,
    directory: &Path,
    file: &str,
    mut from: impl Read,
) -> io::Result<()> {
    let mut to = BufWriter::new(File::create_new(directory.join(file))?);
    let mut plain = Zeroizing::new(Vec::with_capacity(PIECE_BYTES));
    for number in 0.. {
        plain.clear();
        (&mut from).take(PIECE_BYTES as u64).read_to_end(&mut plain)?;
        // A full piece is followed by another, be it empty.
        let last = plain.len() < PIECE_BYTES;
        let sealed = cipher.seal(&place(machine, file, number, last), &plain);
        let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        to.write_all(&length.to_be_bytes())?;
        to.write_all(&sealed)?;
        if last {
            break;
        }
    }
    to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Opens a sealed file into `to`. An error of the kind `InvalidData` says that it was changed or
/// sealed with another key; what was written by then is not to be used.
pub(super) fn open(
    cipher: &dyn Cipher,
    machine: &str,
    directory: &Path,
    file: &str,
    mut to: impl Write,
) -> io::Result<()> {
    let mut from = BufReader::new(File::open(directory.join(file))?);
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    for number in 0.. {
        let mut length = [0; 4];
        from.read_exact(&mut length).map_err(|_| broken())?;
        let length = u32::from_be_bytes(length) as usize;
        if length > SEALED_BYTES {
            return Err(broken());
        }
        let mut sealed = vec![0; length];
        from.read_exact(&mut sealed).map_err(|_| broken())?;
        let open = |last| cipher.open(&place(machine, file, number, last), &sealed);
        if let Some(plain) = open(false) {
            to.write_all(&Zeroizing::new(plain))?;
            continue;
        }
        let plain = Zeroizing::new(open(true).ok_or_else(broken)?);
        to.write_all(&plain)?;
        return match from.read(&mut [0])? {
            0 => to.flush(),
            _ => Err(broken()),
        };
    }
    unreachable!("a row of pieces ends by the last of them");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Binds a piece to its place, and hides nothing.
    struct Plain;

    impl Cipher for Plain {
        fn seal(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
            [place, b"\n", plain].concat()
        }

        fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
            sealed.strip_prefix(place)?.strip_prefix(b"\n").map(<[u8]>::to_vec)
        }
    }

    #[test]
    fn what_was_sealed_comes_back_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for size in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 7] {
            let plain: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            seal(&Plain, "m", path, "disk", plain.as_slice()).unwrap();
            let mut found = Vec::new();
            open(&Plain, "m", path, "disk", &mut found).unwrap();
            assert!(found == plain, "{size}");
            let whole = std::fs::read(path.join("disk")).unwrap();
            let refused = |bytes: &[u8], machine: &str| {
                std::fs::write(path.join("disk"), bytes).unwrap();
                let error = open(&Plain, machine, path, "disk", io::sink()).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{size}");
            };
            refused(&whole, "other");
            refused(&whole[..whole.len() - 1], "m");
            refused(&[&whole[..], b"x"].concat(), "m");
            refused(&[], "m");
            std::fs::remove_file(path.join("disk")).unwrap();
        }
    }

    #[test]
    fn pieces_cannot_be_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        seal(&Plain, "m", path, "disk", vec![1; 2 * PIECE_BYTES].as_slice()).unwrap();
        let whole = std::fs::read(path.join("disk")).unwrap();
        let first = 4 + u32::from_be_bytes(whole[..4].try_into().unwrap()) as usize;
        for cut in [&whole[..first], &whole[first..]] {
            std::fs::write(path.join("disk"), cut).unwrap();
            assert!(open(&Plain, "m", path, "disk", io::sink()).is_err());
        }
    }
}
