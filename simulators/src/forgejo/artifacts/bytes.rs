//! Complete files as answers: whole, or the part that was asked for.

use std::io::SeekFrom;

use axum::body::Body;
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE,
};
use http::{HeaderMap, Response, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::{Answered, BROKEN, Stored};
use crate::forgejo::runtime_token::Refusal;

/// Sends a file as it is on the disk.
pub(super) async fn send(stored: &Stored, headers: &HeaderMap) -> Answered {
    let length = stored.length;
    let wanted = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let mut response = Response::builder()
        .header(ACCEPT_RANGES, "bytes")
        .header(CONTENT_TYPE, "application/octet-stream");
    if let Some(encoding) = &stored.encoding {
        response = response.header(CONTENT_ENCODING, encoding);
    }
    let (first, count) = match wanted.map(|wanted| part(wanted, length)) {
        None | Some(Part::Whole) => (0, length),
        Some(Part::Of(first, last)) => {
            let range = format!("bytes {first}-{last}/{length}");
            response = response.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, range);
            (first, last + 1 - first)
        }
        Some(Part::None) => {
            response = response.status(StatusCode::RANGE_NOT_SATISFIABLE);
            response = response.header(CONTENT_RANGE, format!("bytes */{length}"));
            (0, 0)
        }
    };
    // It may have been replaced or deleted just now.
    let gone = |_| Refusal::innocent(BROKEN, "Error artifact could not be opened");
    let mut file = File::open(&stored.path).await.map_err(gone)?;
    file.seek(SeekFrom::Start(first)).await.map_err(gone)?;
    let body = Body::from_stream(ReaderStream::new(file.take(count)));
    Ok(response.header(CONTENT_LENGTH, count).body(body).expect("it is complete"))
}

/// What a header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// It is nonsense, or asks for several parts: all is sent.
    Whole,
    Of(u64, u64),
    /// Nothing that the file has.
    None,
}

fn part(header: &str, length: u64) -> Part {
    let range = header.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let Some((first, last)) = range else { return Part::Whole };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if last < first => Part::Whole,
        (Ok(first), last) if last.is_ok() || range.is_some_and(|(_, last)| last.is_empty()) => {
            if first < length {
                Part::Of(first, last.unwrap_or(u64::MAX).min(length - 1))
            } else {
                Part::None
            }
        }
        (Err(_), Ok(count)) if first.is_empty() => match length.saturating_sub(count) {
            first if first < length => Part::Of(first, length - 1),
            _ => Part::None,
        },
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found() {
        let cases = [
            ("bytes=0-3", Part::Of(0, 3)),
            ("bytes=4-", Part::Of(4, 9)),
            ("bytes=4-99", Part::Of(4, 9)),
            ("bytes=-3", Part::Of(7, 9)),
            ("bytes=-30", Part::Of(0, 9)),
            ("bytes=-0", Part::None),
            ("bytes=10-", Part::None),
            ("bytes=3-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=-", Part::Whole),
            ("lines=1-2", Part::Whole),
        ];
        for (header, expected) in cases {
            assert_eq!(part(header, 10), expected, "{header}");
        }
    }
}
