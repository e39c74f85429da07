//! Archives in the frame format of LZ4.
//!
//! They are packed while they are sent, a piece at a time and in the place of whoever sends them: a piece
//! takes a fraction of a millisecond, and a thread for each guest that takes its time would be more.

use std::io::{self, Write};

use axum::body::Bytes;
use futures_util::stream::try_unfold;
use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
use tokio::io::AsyncReadExt;
use tokio_util::io::StreamReader;

use super::body::OutBody;

/// What is packed at once.
const PIECE: usize = 64 * 1024;

/// A body on its way.
struct Packing {
    body: OutBody,
    packer: FrameEncoder<Vec<u8>>,
    piece: Vec<u8>,
    is_complete: bool,
}

/// The same body, packed.
pub(super) fn packed(body: OutBody) -> OutBody {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB);
    let packer = FrameEncoder::with_frame_info(info, Vec::new());
    let packing = Packing { body, packer, piece: vec![0; PIECE], is_complete: false };
    let parts = try_unfold(packing, |mut packing| async move {
        let part = packing.next().await?;
        Ok::<_, io::Error>(part.map(|part| (part, packing)))
    });
    Box::new(StreamReader::new(Box::pin(parts)))
}

impl Packing {
    /// The next part; nothing behind the last.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.is_complete {
            match self.body.read(&mut self.piece).await? {
                0 => {
                    self.packer.try_finish()?;
                    self.is_complete = true;
                }
                count => self.packer.write_all(&self.piece[..count])?,
            }
            let part = std::mem::take(self.packer.get_mut());
            if !part.is_empty() {
                return Ok(Some(part.into()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use lz4_flex::frame::FrameDecoder;

    use super::*;

    /// What comes out of it, and what that unpacks to.
    async fn through(content: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut packed_bytes, mut unpacked) = (Vec::new(), Vec::new());
        let body = packed(Box::new(io::Cursor::new(content.to_vec())));
        { body }.read_to_end(&mut packed_bytes).await.unwrap();
        FrameDecoder::new(packed_bytes.as_slice()).read_to_end(&mut unpacked).unwrap();
        (packed_bytes, unpacked)
    }

    #[tokio::test]
    async fn what_is_packed_unpacks_to_the_same() {
        let noise: Vec<u8> = (0..200_000).map(|n: u32| (n.wrapping_mul(n) >> 7) as u8).collect();
        for content in [&b""[..], b"x", &noise, &[7; 300_000]] {
            let (packed, unpacked) = through(content).await;
            assert!(unpacked == content, "{}", content.len());
            assert!(packed.len() < content.len() + content.len() / 50 + 100);
        }
        assert!(through(&[7; 300_000]).await.0.len() < 5_000);
    }

    #[tokio::test]
    async fn a_body_that_breaks_is_broken() {
        let broken = tokio_util::io::StreamReader::new(futures_util::stream::iter([
            Ok(Bytes::from_static(b"some")),
            Err(io::Error::other("gone")),
        ]));
        let read = { packed(Box::new(broken)) }.read_to_end(&mut Vec::new()).await;
        assert_eq!(read.unwrap_err().to_string(), "gone");
    }
}
