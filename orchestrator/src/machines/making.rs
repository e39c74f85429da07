//! What the log says while an image is fetched or built.

use std::time::Duration;

use common::size::ByteSize;
use tokio::time::Instant;
use vm_manager::image::Progress;

/// How often the log says how far a download is.
const DOWNLOAD_NEWS: Duration = Duration::from_secs(30);

/// Makes lines of the log from the steps of making one image. Of a download, which reports many
/// times a second, it tells the begin and then something now and then.
#[derive(Debug, Default)]
pub(super) struct MakingNews {
    /// When the log last said how far the download is.
    said: Option<Instant>,
}

impl MakingNews {
    /// The line for a step, if it is worth one.
    pub(super) fn line(&mut self, step: Progress, now: Instant) -> Option<String> {
        Some(match step {
            Progress::Waiting => "Waiting for another process that makes this image.".to_owned(),
            Progress::Downloading { done, total } => return self.download(done, total, now),
            Progress::Verifying => "Verifying the image.".to_owned(),
            Progress::Unpacking => "Unpacking the image.".to_owned(),
            Progress::Converting => "Converting the image.".to_owned(),
            Progress::Building { line } => line,
        })
    }

    fn download(&mut self, done: u64, total: Option<u64>, now: Instant) -> Option<String> {
        let first = self.said.is_none();
        if self.said.is_some_and(|said| now.duration_since(said) < DOWNLOAD_NEWS) {
            return None;
        }
        self.said = Some(now);
        let size = total.map(ByteSize);
        let come = ByteSize(done);
        Some(match (first, size) {
            (true, Some(size)) => format!("Downloading the image, {size}."),
            (true, None) => "Downloading the image.".to_owned(),
            (false, Some(size)) => {
                let percent = u128::from(done) * 100 / u128::from(size.0.max(1));
                format!("Downloading the image: {come} of {size}, {percent} %.")
            }
            (false, None) => format!("Downloading the image: {come}."),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The lines of a download of 10 MiB in every second.
    fn lines(seconds: u64, total: Option<u64>) -> Vec<String> {
        let mut news = MakingNews::default();
        let begun = Instant::now();
        let step = |second| Progress::Downloading { done: second * 10 * MIB, total };
        (0..=seconds)
            .filter_map(|second| news.line(step(second), begun + Duration::from_secs(second)))
            .collect()
    }

    #[test]
    fn a_download_says_now_and_then_how_far_it_is() {
        assert_eq!(
            lines(70, Some(700 * MIB)),
            [
                "Downloading the image, 700 MiB.",
                "Downloading the image: 300 MiB of 700 MiB, 42 %.",
                "Downloading the image: 600 MiB of 700 MiB, 85 %.",
            ]
        );
        assert_eq!(lines(30, None), ["Downloading the image.", "Downloading the image: 300 MiB."]);
    }

    #[test]
    fn a_server_that_lies_about_the_size_does_no_harm() {
        assert_eq!(lines(30, Some(0)).len(), 2);
        assert_eq!(lines(30, Some(u64::MAX)).len(), 2);
    }
}
