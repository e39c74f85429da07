//! The image store: what it fetches, what it refuses, and what it leaves behind.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_compression::tokio::bufread::{XzEncoder, ZstdEncoder};
use common::limits::{GIB, MIB};
use common::size::ByteSize;
use sha2::{Digest, Sha256, Sha512};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use vm_manager::image::{
    Catalogue, Confirm, Entry, FirstPull, Image, ImageError, ImageStore, Progress, StoreSettings,
};

use super::server::{Answer, Server};

/// How long anything in these tests may take that is not a deadline of the store's.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tells the test binary to be the process that is killed: `store directory`, `catalogue`.
const VICTIM: &str = "SOLSTICE_TEST_IMAGE_VICTIM";

/// A store in a directory of its own, and the disk that the tests fetch.
struct Fixture {
    directory: TempDir,
    disk: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        let mut disk = vec![0; 2 * MIB as usize];
        disk[..4].copy_from_slice(b"boot");
        disk[MIB as usize..][..4].copy_from_slice(b"root");
        Self { directory: tempfile::tempdir().unwrap(), disk }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("images")
    }

    fn store(&self) -> ImageStore {
        self.store_with(StoreSettings { reserve: ByteSize(0), ..StoreSettings::default() })
    }

    fn store_with(&self, settings: StoreSettings) -> ImageStore {
        ImageStore::open(&self.path(), settings).unwrap()
    }

    fn store_that_asks(&self, confirm: Confirm) -> ImageStore {
        let confirm = Some(confirm);
        let settings = StoreSettings { reserve: ByteSize(0), confirm, ..StoreSettings::default() };
        self.store_with(settings)
    }

    /// A store on which every first pull is confirmed and remembered.
    fn confirming_store(&self) -> (ImageStore, Arc<Mutex<Vec<FirstPull>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let confirm = {
            let asked = Arc::clone(&asked);
            Arc::new(move |first: &FirstPull| {
                asked.lock().unwrap().push(first.clone());
                true
            })
        };
        (self.store_that_asks(confirm), asked)
    }

    /// The files below a part of the store.
    fn files(&self, part: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.path().join(part)];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { directories.push(path) } else { files.push(path) }
            }
        }
        files
    }

    fn assert_nothing_stored(&self) {
        for part in ["content", "keys", "partial"] {
            assert_eq!(self.files(part), Vec::<PathBuf>::new(), "{part}");
        }
    }
}

fn catalogue(url: &str, digest: &str, more: &str) -> String {
    format!(
        "[box]\nsystem = \"Box\"\nversion = \"1\"\nrunner_os = \"Linux\"\nrunner_arch = \"X64\"\n\
         architecture = \"x86_64\"\nurl = \"{url}\"\ndigest = \"{digest}\"\n{more}\n\
         user = \"root\"\nshutdown = \"poweroff\"\ntool_cache = \"/opt/cache\"\n\
         work_directory = \"/var/solstice\"\ncpus = 1\nmemory = \"64M\"\ndisk = \"64M\"\n\
         boot_ceiling = \"2m\"\nverified = false\n\
         [box.hardware]\nmachine = \"q35\"\ndisk = \"virtio\"\nseed = \"virtio\"\nnetwork = \"virtio-net-pci\"\n"
    )
}

fn entry_with(url: &str, digest: &str, more: &str) -> Arc<Entry> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), catalogue(url, digest, more)).unwrap();
    Catalogue::load(Some(file.path())).unwrap().get("box").unwrap()
}

fn raw_entry(url: &str, digest: &str) -> Arc<Entry> {
    entry_with(url, digest, "format = \"raw\"")
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

async fn ensure(store: &ImageStore, entry: &Arc<Entry>) -> Result<Image, ImageError> {
    tokio::time::timeout(PATIENCE, store.ensure(entry, &|_| ())).await.expect("in time")
}

/// The content of an image's disk, by way of QEMU's tool.
fn content(image: &Image) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("raw");
    let status = std::process::Command::new("qemu-img")
        .args(["convert", "-f", "qcow2", "-O", "raw"])
        .args([&image.disk, &raw])
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(raw).unwrap()
}

#[tokio::test]
async fn a_good_image_is_fetched_once_and_kept() {
    let fixture = Fixture::new();
    let server = Server::start([("/disk", Answer::Bytes(fixture.disk.clone()))]).await;
    let store = fixture.store();
    let entry = raw_entry(&server.url("/disk"), &sha256(&fixture.disk));
    let seen = Mutex::new(Vec::new());
    let image =
        store.ensure(&entry, &|progress| seen.lock().unwrap().push(progress)).await.unwrap();
    assert_eq!(content(&image), fixture.disk);
    assert!(image.digest.starts_with("sha256:") && image.kernel.is_none(), "{image:?}");
    let mode = std::fs::metadata(&image.disk).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o444);
    let seen = seen.into_inner().unwrap();
    let done = fixture.disk.len() as u64;
    assert!(seen.contains(&Progress::Downloading { done, total: Some(done) }), "{seen:?}");
    assert_eq!(seen.last(), Some(&Progress::Verifying));
    assert!(fixture.files("partial").is_empty());

    drop(server); // the second time needs no network
    let again = ensure(&store, &entry).await.unwrap();
    assert_eq!((again.disk, again.digest), (image.disk, image.digest));
}

#[tokio::test]
async fn sha512_and_both_packings() {
    let fixture = Fixture::new();
    let (mut zstd, mut xz) = (Vec::new(), Vec::new());
    ZstdEncoder::new(&*fixture.disk).read_to_end(&mut zstd).await.unwrap();
    XzEncoder::new(&*fixture.disk).read_to_end(&mut xz).await.unwrap();
    let sha512 = |bytes: &[u8]| format!("sha512:{}", hex::encode(Sha512::digest(bytes)));
    let (zstd_digest, xz_digest) = (sha512(&zstd), sha512(&xz));
    let server = Server::start([("/zstd", Answer::Bytes(zstd)), ("/xz", Answer::Bytes(xz))]).await;
    let store = fixture.store();
    for (name, digest) in [("zstd", zstd_digest), ("xz", xz_digest)] {
        let more = format!("format = \"raw\"\ncompression = \"{name}\"");
        let entry = entry_with(&server.url(&format!("/{name}")), &digest, &more);
        assert_eq!(content(&ensure(&store, &entry).await.unwrap()), fixture.disk, "{name}");
    }
}

#[tokio::test]
async fn a_wrong_digest_deletes_the_file_and_names_both() {
    let fixture = Fixture::new();
    let server = Server::start([("/disk", Answer::Bytes(fixture.disk.clone()))]).await;
    let expected = sha256(b"something else");
    let error =
        ensure(&fixture.store(), &raw_entry(&server.url("/disk"), &expected)).await.unwrap_err();
    assert!(matches!(error, ImageError::WrongDigest { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&expected) && text.contains(&sha256(&fixture.disk)), "{text}");
    fixture.assert_nothing_stored();
}

#[tokio::test]
async fn a_first_pull_is_asked_about_and_recorded() {
    let fixture = Fixture::new();
    let server = Server::start([("/disk", Answer::Bytes(fixture.disk.clone()))]).await;
    let entry = raw_entry(&server.url("/disk"), "on-first-pull");
    let (store, asked) = fixture.confirming_store();
    ensure(&store, &entry).await.unwrap();
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].digest.to_string(), sha256(&fixture.disk));
    assert_eq!(asked[0].bytes, fixture.disk.len() as u64);
    let record = std::fs::read_to_string(fixture.path().join("images.lock")).unwrap();
    assert!(record.contains(&sha256(&fixture.disk)), "{record}");
    // A store that nobody can confirm on finds it by the record.
    ensure(&fixture.store(), &entry).await.unwrap();
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_first_pull_is_refused_before_it_begins_where_there_is_nobody_to_ask() {
    let fixture = Fixture::new();
    let server = Server::start([("/disk", Answer::Bytes(fixture.disk.clone()))]).await;
    let entry = raw_entry(&server.url("/disk"), "on-first-pull");
    let error = ensure(&fixture.store(), &entry).await.unwrap_err();
    assert!(matches!(error, ImageError::NobodyToAsk { .. }), "{error}");
    assert!(error.to_string().contains("run `solstice image pull box` once"), "{error}");
    assert_eq!(server.requests(), 0);
    fixture.assert_nothing_stored();
}

#[tokio::test]
async fn a_first_pull_that_is_not_confirmed_is_refused() {
    let fixture = Fixture::new();
    let server = Server::start([("/disk", Answer::Bytes(fixture.disk.clone()))]).await;
    let entry = raw_entry(&server.url("/disk"), "on-first-pull");
    let store = fixture.store_that_asks(Arc::new(|_| false));
    let error = ensure(&store, &entry).await.unwrap_err();
    assert!(matches!(error, ImageError::NotConfirmed { .. }), "{error}");
    fixture.assert_nothing_stored();
    assert!(!fixture.path().join("images.lock").exists());
}

#[tokio::test]
async fn a_change_after_the_first_pull_is_refused() {
    let fixture = Fixture::new();
    let server = Server::start([("/disk", Answer::Bytes(fixture.disk.clone()))]).await;
    let (store, asked) = fixture.confirming_store();
    let entry = raw_entry(&server.url("/disk"), "on-first-pull");
    ensure(&store, &entry).await.unwrap();
    store.remove("box").unwrap();
    // The server's bytes stay; what was recorded was another image.
    let path = fixture.path().join("images.lock");
    let record = std::fs::read_to_string(&path).unwrap();
    let other = sha256(b"the image of last month");
    std::fs::write(&path, record.replace(&sha256(&fixture.disk), &other)).unwrap();
    let error = ensure(&store, &entry).await.unwrap_err();
    assert!(matches!(error, ImageError::Changed { .. }), "{error}");
    assert!(error.to_string().contains(&other), "{error}");
    assert_eq!(asked.lock().unwrap().len(), 1, "nobody is asked to accept a change");
    fixture.assert_nothing_stored();
}

#[tokio::test]
async fn failures_of_the_server_leave_nothing() {
    let fixture = Fixture::new();
    let server = Server::start([
        ("/half", Answer::Half(fixture.disk.clone())),
        ("/a", Answer::Redirect("/b".to_owned())),
        ("/b", Answer::Redirect("/a".to_owned())),
        ("/broken", Answer::Status(500)),
    ])
    .await;
    let store = fixture.store();
    for (path, expected) in
        [("/half", "box"), ("/a", "too many redirects"), ("/broken", "500"), ("/none", "404")]
    {
        let error = ensure(&store, &raw_entry(&server.url(path), &sha256(&fixture.disk)))
            .await
            .unwrap_err();
        assert!(matches!(error, ImageError::Download { .. }), "{path}: {error}");
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains(path), "{path}: {text}");
        fixture.assert_nothing_stored();
    }
}

#[tokio::test]
async fn a_redirect_is_followed() {
    let fixture = Fixture::new();
    let server = Server::start([
        ("/old", Answer::Redirect("/disk".to_owned())),
        ("/disk", Answer::Bytes(fixture.disk.clone())),
    ])
    .await;
    let entry = raw_entry(&server.url("/old"), &sha256(&fixture.disk));
    ensure(&fixture.store(), &entry).await.unwrap();
}

#[tokio::test]
async fn two_stores_fetch_an_image_once() {
    let fixture = Fixture::new();
    let server = Server::start([("/disk", Answer::Stall(fixture.disk.clone()))]).await;
    let entry = raw_entry(&server.url("/disk"), &sha256(&fixture.disk));
    let (one, two) = (fixture.store(), fixture.store());
    let waits = tokio::sync::Notify::new();
    let notice = |progress| {
        if progress == Progress::Waiting {
            waits.notify_one();
        }
    };
    let story = async {
        server.stalled().await;
        waits.notified().await;
        server.go_on();
    };
    let (first, second, ()) = tokio::time::timeout(PATIENCE, async {
        tokio::join!(one.ensure(&entry, &notice), two.ensure(&entry, &notice), story)
    })
    .await
    .expect("in time");
    assert_eq!(first.unwrap().disk, second.unwrap().disk);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn whoever_waited_fetches_when_the_first_gave_up() {
    let fixture = Fixture::new();
    let server = Server::start([("/disk", Answer::Stall(fixture.disk.clone()))]).await;
    let entry = raw_entry(&server.url("/disk"), &sha256(&fixture.disk));
    let downloading = Arc::new(tokio::sync::Notify::new());
    let first = tokio::spawn({
        let (store, entry) = (fixture.store(), Arc::clone(&entry));
        let downloading = Arc::clone(&downloading);
        async move { store.ensure(&entry, &|_| downloading.notify_one()).await.map(drop) }
    });
    tokio::time::timeout(PATIENCE, downloading.notified()).await.expect("in time");
    server.stalled().await;
    assert_eq!(fixture.files("partial").len(), 2, "a lock and half a file");
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    fixture.assert_nothing_stored();

    let store = fixture.store();
    let story = async {
        server.stalled().await;
        server.go_on();
    };
    let (image, ()) = tokio::join!(ensure(&store, &entry), story);
    assert_eq!(content(&image.unwrap()), fixture.disk);
}

/// Is the process that [`a_killed_process_leaves_nothing_half_made`] kills; else does nothing.
#[test]
fn victim() {
    let Ok(arguments) = std::env::var(VICTIM) else { return };
    let (directory, catalogue) = arguments.split_once(':').unwrap();
    let settings = StoreSettings { reserve: ByteSize(0), ..StoreSettings::default() };
    let store = ImageStore::open(Path::new(directory), settings).unwrap();
    let entry = Catalogue::load(Some(Path::new(catalogue))).unwrap().get("box").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(store.ensure(&entry, &|progress| println!("{progress:?}"))).unwrap();
}

#[tokio::test]
async fn a_killed_process_leaves_nothing_half_made() {
    let fixture = Fixture::new();
    let server = Server::start([("/disk", Answer::Stall(fixture.disk.clone()))]).await;
    let (url, digest) = (server.url("/disk"), sha256(&fixture.disk));
    let file = fixture.directory.path().join("catalogue.toml");
    std::fs::write(&file, catalogue(&url, &digest, "format = \"raw\"")).unwrap();
    let mut victim = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::victim", "--nocapture"])
        .env(VICTIM, format!("{}:{}", fixture.path().display(), file.display()))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    tokio::time::timeout(PATIENCE, async {
        server.stalled().await;
        while !lines.next_line().await.unwrap().expect("it runs").contains("Downloading") {}
    })
    .await
    .expect("in time");
    victim.kill().await.unwrap();
    assert_eq!(fixture.files("partial").len(), 2, "a lock and half a file");
    assert!(fixture.files("content").is_empty() && fixture.files("keys").is_empty());

    let store = fixture.store();
    fixture.assert_nothing_stored();
    let entry = raw_entry(&url, &digest);
    let story = async {
        server.stalled().await;
        server.go_on();
    };
    let (image, ()) = tokio::join!(ensure(&store, &entry), story);
    assert_eq!(content(&image.unwrap()), fixture.disk);
}

#[tokio::test]
async fn no_room_is_said_before_and_during_a_download() {
    let fixture = Fixture::new();
    let large = vec![7; 80 * MIB as usize];
    let server = Server::start([("/disk", Answer::Bytes(large.clone()))]).await;
    let entry = raw_entry(&server.url("/disk"), &sha256(&large));
    let free = Arc::new(AtomicU64::new(0));
    let settings = StoreSettings {
        reserve: ByteSize(GIB),
        free_space: {
            let free = Arc::clone(&free);
            // Another program fills the disk meanwhile.
            Arc::new(move |_| {
                let now = free.load(Ordering::SeqCst);
                free.store(now.saturating_sub(70 * MIB), Ordering::SeqCst);
                Ok(now)
            })
        },
        ..StoreSettings::default()
    };
    let store = fixture.store_with(settings);
    for (start, needed) in [(GIB + 79 * MIB, "1.1 GiB needed"), (GIB + 100 * MIB, "needed")] {
        free.store(start, Ordering::SeqCst);
        let error = ensure(&store, &entry).await.unwrap_err();
        assert!(matches!(error, ImageError::NoRoom { .. }), "{error}");
        let text = error.to_string();
        let place = fixture.path().display().to_string();
        assert!(text.contains(needed) && text.contains("free") && text.contains(&place), "{text}");
        fixture.assert_nothing_stored();
    }
}

#[tokio::test]
async fn an_image_that_names_another_file_is_refused() {
    let fixture = Fixture::new();
    let secret = fixture.directory.path().join("secret");
    let evil = fixture.directory.path().join("evil.qcow2");
    std::fs::write(&secret, vec![1; MIB as usize]).unwrap();
    let status = std::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([&secret, &evil])
        .status()
        .unwrap();
    assert!(status.success());
    let bytes = std::fs::read(&evil).unwrap();
    let server = Server::start([("/disk", Answer::Bytes(bytes.clone()))]).await;
    let (url, digest, store) = (server.url("/disk"), sha256(&bytes), fixture.store());
    let error = ensure(&store, &entry_with(&url, &digest, "format = \"qcow2\"")).await.unwrap_err();
    assert!(error.to_string().contains("another file"), "{error}");
    fixture.assert_nothing_stored();
    // Called raw it is a disk with odd first bytes, whatever they say.
    let image = ensure(&store, &raw_entry(&url, &digest)).await.unwrap();
    assert_eq!(&content(&image)[..4], b"QFI\xfb");
}

#[tokio::test]
async fn a_disk_larger_than_the_machines_is_refused() {
    let fixture = Fixture::new();
    let large = vec![0; 65 * MIB as usize];
    let server = Server::start([("/disk", Answer::Bytes(large.clone()))]).await;
    let entry = raw_entry(&server.url("/disk"), &sha256(&large));
    let error = ensure(&fixture.store(), &entry).await.unwrap_err();
    assert!(error.to_string().contains("65 MiB"), "{error}");
    fixture.assert_nothing_stored();
}

#[tokio::test]
async fn images_are_listed_and_removed() {
    let fixture = Fixture::new();
    let server = Server::start([("/disk", Answer::Bytes(fixture.disk.clone()))]).await;
    let store = fixture.store();
    let entry = raw_entry(&server.url("/disk"), &sha256(&fixture.disk));
    let image = ensure(&store, &entry).await.unwrap();
    let listed = store.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].label.as_str(), &listed[0].digest), ("box", &image.digest));
    assert!(listed[0].bytes > 0 && image.disk.starts_with(&listed[0].path));

    assert_eq!(store.remove("other").unwrap(), []);
    assert_eq!(store.remove("BOX").unwrap(), listed);
    assert_eq!(store.list().unwrap(), []);
    fixture.assert_nothing_stored();
    ensure(&store, &entry).await.unwrap();
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_damaged_record_is_named() {
    let fixture = Fixture::new();
    let server = Server::start([("/disk", Answer::Bytes(fixture.disk.clone()))]).await;
    let store = fixture.store();
    let entry = raw_entry(&server.url("/disk"), &sha256(&fixture.disk));
    ensure(&store, &entry).await.unwrap();
    let key = fixture.files("keys").pop().unwrap();
    std::fs::write(&key, "digest = 1").unwrap();
    let error = ensure(&store, &entry).await.unwrap_err();
    assert!(error.to_string().contains(&key.display().to_string()), "{error}");
}

#[test]
fn only_the_owner_of_a_store_sets_its_mode() {
    let fixture = Fixture::new();
    fixture.store();
    let mode = |mode| std::fs::set_permissions(fixture.path(), PermissionsExt::from_mode(mode));
    let is = || std::fs::metadata(fixture.path()).unwrap().permissions().mode() & 0o7777;
    mode(0o700).unwrap();
    fixture.store();
    assert_eq!(is(), 0o755);
    // Only root can make it somebody else's.
    if std::os::unix::fs::chown(fixture.path(), Some(65_534), None).is_ok() {
        mode(0o750).unwrap();
        fixture.store();
        assert_eq!(is(), 0o750);
    }
}
