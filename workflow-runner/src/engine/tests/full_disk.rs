//! Jobs on a machine whose disk is full.

use std::io;
use std::time::Duration;

use common::Timestamp;
use common::event::{Conclusion, JobResult};
use common::guest::GuestEvent;
use common::size::ByteSize;
use tokio::io::AsyncRead;

use super::story::{Story, job, run};
use crate::system::{
    Command, Facts, Found, Kind, Local, Opened, Owner, Packed, Packing, Pending, Placement,
    Process, Room, StorePlace, System, SystemError, ZipWish,
};

use Conclusion::{Failure, Skipped, Success};

/// This machine, with another disk.
struct Disk {
    local: Local,
    /// What a look at it finds.
    free: ByteSize,
    /// The ends of the paths that it has no room for.
    refused: &'static [&'static str],
}

/// A disk with so much room, and none for files and directories whose paths end so.
fn disk(free: u64, refused: &'static [&'static str]) -> Disk {
    Disk { local: Local::new(), free: ByteSize(free), refused }
}

impl Disk {
    fn check(&self, operation: &'static str, path: &str) -> Result<(), SystemError> {
        if self.refused.iter().any(|end| path.ends_with(end)) {
            let full = io::Error::from_raw_os_error(nix::libc::ENOSPC);
            return Err(SystemError::new(operation, path, full));
        }
        Ok(())
    }
}

impl System for Disk {
    fn now(&self) -> Timestamp {
        self.local.now()
    }

    fn facts<'a>(&'a self, run_as: Option<&'a str>) -> Pending<'a, Result<Facts, SystemError>> {
        self.local.facts(run_as)
    }

    fn start(&self, command: Command) -> Pending<'_, Result<Process, SystemError>> {
        self.local.start(command)
    }

    fn kind<'a>(&'a self, path: &'a str) -> Pending<'a, Result<Option<Kind>, SystemError>> {
        self.local.kind(path)
    }

    fn read<'a>(&'a self, path: &'a str, limit: u64) -> Pending<'a, Result<Vec<u8>, SystemError>> {
        self.local.read(path, limit)
    }

    fn create_file<'a>(
        &'a self,
        path: &'a str,
        contents: &'a [u8],
        mode: u32,
        owner: Owner,
    ) -> Pending<'a, Result<(), SystemError>> {
        Box::pin(async move {
            self.check("write", path)?;
            self.local.create_file(path, contents, mode, owner).await
        })
    }

    fn create_directory<'a>(
        &'a self,
        path: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<(), SystemError>> {
        Box::pin(async move {
            self.check("make directory", path)?;
            self.local.create_directory(path, owner).await
        })
    }

    fn remove<'a>(&'a self, path: &'a str) -> Pending<'a, Result<(), SystemError>> {
        self.local.remove(path)
    }

    fn list<'a>(
        &'a self,
        path: &'a str,
        limit: usize,
    ) -> Pending<'a, Result<Vec<String>, SystemError>> {
        self.local.list(path, limit)
    }

    fn room<'a>(&'a self, _: &'a str, _: Owner) -> Pending<'a, Result<Room, SystemError>> {
        let room = Room { size: ByteSize(2 << 30), free: self.free, files: 0, files_free: 0 };
        Box::pin(std::future::ready(Ok(room)))
    }

    fn place_tree<'a>(
        &'a self,
        from: &'a str,
        to: &'a str,
        how: Placement,
        owner: Owner,
    ) -> Pending<'a, Result<(), SystemError>> {
        Box::pin(async move {
            self.check("place", to)?;
            self.local.place_tree(from, to, how, owner).await
        })
    }

    fn find_program<'a>(
        &'a self,
        name: &'a str,
        search_path: &'a str,
    ) -> Pending<'a, Option<String>> {
        self.local.find_program(name, search_path)
    }

    fn zip(&self, wish: ZipWish) -> Packing {
        self.local.zip(wish)
    }

    fn find(&self, wish: ZipWish) -> Pending<'_, Result<Vec<Found>, SystemError>> {
        self.local.find(wish)
    }

    fn open<'a>(&'a self, path: &'a std::path::Path) -> Pending<'a, Result<Opened, SystemError>> {
        self.local.open(path)
    }

    fn store<'a>(
        &'a self,
        contents: Box<dyn AsyncRead + Send + Unpin>,
        place: StorePlace,
    ) -> Pending<'a, Result<u64, SystemError>> {
        self.local.store(contents, place)
    }

    fn unzip<'a>(
        &'a self,
        archive: Box<dyn AsyncRead + Send + Unpin>,
        temporary: &'a str,
        to: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<Packed, SystemError>> {
        self.local.unzip(archive, temporary, to, owner)
    }

    fn pack(&self, base: &str, patterns: &[String]) -> Packing {
        self.local.pack(base, patterns)
    }

    fn unpack<'a>(
        &'a self,
        archive: Box<dyn AsyncRead + Send + Unpin>,
        base: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<(), SystemError>> {
        Box::pin(async move {
            self.check("unpack", base)?;
            self.local.unpack(archive, base, owner).await
        })
    }

    fn hash_files<'a>(
        &'a self,
        root: &'a str,
        patterns: &'a [String],
        limit: Duration,
    ) -> Pending<'a, Result<String, SystemError>> {
        self.local.hash_files(root, patterns, limit)
    }
}

const CODE: &str = "SOL-GUEST-DISK-FULL";

/// More than what counts as full.
const ENOUGH: u64 = 1 << 20;

/// What the engine says of itself about the job: that its disk was full.
fn disk_full(story: &Story) -> Option<&str> {
    story.events.iter().find_map(|event| match event {
        GuestEvent::DiskFull(message) => Some(message.as_str()),
        _ => None,
    })
}

#[tokio::test]
async fn a_step_that_fails_on_a_full_disk_says_so_at_its_end() {
    let story = job()
        .run("exit 3")
        .step(run("kill -9 $$").when("always()"))
        .play_on(disk(ENOUGH - 1024, &[]), |_, _| {})
        .await;
    let log = story.log();
    let workspace = story.path("work/repo/repo");
    let said = format!(
        "##[error]{CODE}: the disk of the machine is full at {}: 1023 KiB of 2 GiB are free. Give \
         the image a larger `disk` in the catalogue, or remove what the job does not need.",
        workspace.display()
    );
    let expected = format!("##[error]Process completed with exit code 3.\n{said}\n");
    assert!(log.contains(&expected), "{log}");
    let expected = format!("##[error]Process ended by signal 9 (KILL).\n{said}");
    assert!(log.ends_with(&expected), "{log}");
    let annotations = story.annotations();
    let about = annotations.iter().filter(|annotation| annotation.message.starts_with(CODE));
    assert_eq!(about.map(|annotation| annotation.step).collect::<Vec<_>>(), [0, 1]);
    // It is the user's failure.
    assert_eq!(story.result, JobResult::Failure);
    assert_eq!(disk_full(&story), None);
}

#[tokio::test]
async fn nothing_is_said_where_the_disk_is_not_the_cause() {
    let story = job().run("exit 3").play_on(disk(ENOUGH, &[]), |_, _| {}).await;
    assert!(!story.log().contains(CODE), "{}", story.log());
    let story = job().run("echo fine").play_on(disk(0, &[]), |_, _| {}).await;
    assert_eq!(story.log().matches(CODE).count(), 0, "{}", story.log());
    let cancel = |event: &GuestEvent, cancel: &tokio_util::sync::CancellationToken| {
        if let GuestEvent::Log(batch) = event
            && batch.lines.iter().any(|line| line.text.to_text() == "ready")
        {
            cancel.cancel();
        }
    };
    let story = job().run("echo ready; sleep 600").play_on(disk(0, &[]), cancel).await;
    assert_eq!(story.result, JobResult::Cancelled);
    assert!(!story.log().contains(CODE), "{}", story.log());
}

#[tokio::test]
async fn a_step_that_cannot_be_written_makes_the_machine_to_blame() {
    // The script, and the files for what the step leaves.
    let ends: [&[&str]; 2] = [&["_1.sh"], &["_1"]];
    for end in ends {
        let story = job()
            .run("echo one")
            .run("echo two")
            .run("echo three")
            .play_on(disk(0, end), |_, _| {})
            .await;
        assert_eq!(story.output(), "one");
        let expected = [(Success, Success), (Failure, Failure), (Skipped, Skipped)];
        assert_eq!(story.outcomes(), expected);
        assert_eq!(story.result, JobResult::Failure);
        let message = disk_full(&story).unwrap();
        assert!(message.starts_with("cannot write /"), "{message}");
        assert!(message.ends_with(": No space left on device (os error 28)"), "{message}");
        assert!(message.contains("/_temp/"), "{message}");
        let expected = format!("##[error]{CODE}: {message}.");
        assert!(story.log().ends_with(&expected), "{}", story.log());
    }
}

#[tokio::test]
async fn what_failed_first_decides() {
    // A test failed before the disk was full.
    let story = job()
        .run("exit 1")
        .step(run("echo late").when("always()"))
        .play_on(disk(0, &["_1.sh"]), |_, _| {})
        .await;
    assert_eq!(story.result, JobResult::Failure);
    assert_eq!(disk_full(&story), None);
    // The job did not mind.
    let story = job()
        .step(run("echo no").continue_on_error("true"))
        .run("echo on")
        .play_on(disk(0, &["_0.sh"]), |_, _| {})
        .await;
    assert_eq!(story.output(), "on");
    assert_eq!(story.result, JobResult::Success);
    assert_eq!(disk_full(&story), None);
}

#[tokio::test]
async fn a_checkout_that_does_not_fit_makes_the_machine_to_blame() {
    let story = job()
        .tree(&[("a", "1")])
        .uses("actions/checkout@v4", &[("path", "copy")])
        .play_on(disk(0, &["/copy"]), |_, _| {})
        .await;
    assert_eq!(story.result, JobResult::Failure);
    assert!(disk_full(&story).unwrap().contains("/copy: No space left"), "{}", story.log());
}

#[tokio::test]
async fn directories_that_cannot_be_made_make_the_machine_to_blame() {
    let story = job().run("echo no").play_on(disk(0, &["/repo/repo"]), |_, _| {}).await;
    assert_eq!(story.result, JobResult::Failure);
    assert_eq!(story.outcomes(), [(Skipped, Skipped)]);
    let message = disk_full(&story).unwrap();
    assert!(message.starts_with("cannot make directory /"), "{message}");
    let at = story.events.iter().position(|event| matches!(event, GuestEvent::DiskFull(_)));
    assert_eq!(at, Some(story.events.len() - 2));
}
