//! Decompresses a downloaded file.

use std::path::Path;
use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, XzDecoder, ZstdDecoder};
use common::limits::{GIB, MIB};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufReader};

use super::entry::Compression;
use super::error::ImageError;
use super::space::Room;

/// Bytes that are read at once, and the smallest hole that is left in the file.
const BLOCK_BYTES: usize = MIB as usize;
/// Memory that an xz file may ask for.
const XZ_MEMORY_BYTES: u64 = GIB;
/// The longest time for one file.
const UNPACK_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Writes the content of the compressed file `from` to `to`. Zeros become holes.
pub(super) async fn unpack(
    compression: Compression,
    from: &Path,
    to: &Path,
    room: &Room,
) -> Result<(), ImageError> {
    let file = File::open(from).await.map_err(ImageError::store("open", from))?;
    let packed = BufReader::with_capacity(BLOCK_BYTES, file);
    let copy = async {
        match compression {
            Compression::None => copy(packed, to, room).await,
            Compression::Gzip => {
                let mut decoder = GzipDecoder::new(packed);
                decoder.multiple_members(true);
                copy(decoder, to, room).await
            }
            Compression::Xz => {
                let mut decoder = XzDecoder::with_mem_limit(packed, XZ_MEMORY_BYTES);
                decoder.multiple_members(true);
                copy(decoder, to, room).await
            }
            Compression::Zstd => {
                let mut decoder = ZstdDecoder::new(packed);
                decoder.multiple_members(true);
                copy(decoder, to, room).await
            }
        }
    };
    match tokio::time::timeout(UNPACK_DEADLINE, copy).await {
        Ok(result) => result,
        Err(_) => Err(ImageError::Deadline {
            label: room.label.clone(),
            what: "the decompression",
            limit: UNPACK_DEADLINE,
        }),
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, to: &Path, room: &Room) -> Result<(), ImageError> {
    let write_error = || ImageError::store("write", to);
    let mut file = File::create(to).await.map_err(ImageError::store("create", to))?;
    let mut meter = room.meter();
    let mut block = vec![0; BLOCK_BYTES];
    let mut length = 0;
    loop {
        let filled = fill(&mut from, &mut block).await.map_err(|error| ImageError::Unusable {
            label: room.label.clone(),
            reason: format!("the downloaded file does not unpack: {error}"),
        })?;
        if filled == 0 {
            break;
        }
        let bytes = &block[..filled];
        length += filled as u64;
        if bytes.iter().all(|byte| *byte == 0) {
            file.seek(std::io::SeekFrom::Current(filled as i64)).await.map_err(write_error())?;
        } else {
            meter.add(filled)?;
            file.write_all(bytes).await.map_err(write_error())?;
        }
    }
    file.flush().await.map_err(write_error())?;
    file.set_len(length).await.map_err(write_error())
}

/// Reads until the block is full or the stream ends.
async fn fill(from: &mut (impl AsyncRead + Unpin), block: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match from.read(&mut block[filled..]).await? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::space;
    use async_compression::tokio::bufread::{GzipEncoder, XzEncoder, ZstdEncoder};
    use common::size::ByteSize;
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;

    fn room(path: &Path, free: u64) -> Room {
        Room {
            label: "x".to_owned(),
            path: path.to_owned(),
            reserve: ByteSize(0),
            free_space: match free {
                u64::MAX => Arc::new(space::free_space),
                free => Arc::new(move |_| Ok(free)),
            },
        }
    }

    async fn pack(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let done = match compression {
            Compression::None => unreachable!("it needs no packing"),
            Compression::Gzip => GzipEncoder::new(bytes).read_to_end(&mut packed).await,
            Compression::Xz => XzEncoder::new(bytes).read_to_end(&mut packed).await,
            Compression::Zstd => ZstdEncoder::new(bytes).read_to_end(&mut packed).await,
        };
        assert_eq!(done.unwrap(), packed.len());
        packed
    }

    const ALL: [Compression; 3] = [Compression::Gzip, Compression::Xz, Compression::Zstd];

    #[tokio::test]
    async fn content_survives_and_zeros_become_holes() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let mut bytes = b"boot".to_vec();
        bytes.resize(8 * BLOCK_BYTES, 0);
        bytes.extend_from_slice(b"end");
        bytes.resize(12 * BLOCK_BYTES + 5, 0);
        for compression in ALL {
            std::fs::write(&from, pack(compression, &bytes).await).unwrap();
            unpack(compression, &from, &to, &room(directory.path(), u64::MAX)).await.unwrap();
            assert_eq!(std::fs::read(&to).unwrap(), bytes, "{compression:?}");
            let written = std::fs::metadata(&to).unwrap().blocks() * 512;
            assert!(written < 4 * BLOCK_BYTES as u64, "{compression:?} wrote {written}");
        }
    }

    #[tokio::test]
    async fn damaged_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for compression in ALL {
            let packed = pack(compression, &bytes).await;
            for bad in [&packed[..packed.len() / 2], b"not packed at all"] {
                std::fs::write(&from, bad).unwrap();
                let error = unpack(compression, &from, &to, &room(directory.path(), u64::MAX))
                    .await
                    .unwrap_err();
                assert!(matches!(error, ImageError::Unusable { .. }), "{compression:?}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn a_small_file_that_unpacks_to_a_large_one_stops_at_the_room() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        std::fs::write(&from, pack(Compression::Zstd, &vec![1; 40 * BLOCK_BYTES]).await).unwrap();
        let error =
            unpack(Compression::Zstd, &from, &to, &room(directory.path(), 1024)).await.unwrap_err();
        assert!(matches!(error, ImageError::NoRoom { .. }), "{error}");
    }
}
