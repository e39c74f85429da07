//! The images of this host.
//!
//! ```text
//! images/
//!   images.lock             the digests of first pulls
//!   content/<sha256>/       disk.qcow2, and vmlinuz and initrd of a recipe: never changed
//!   keys/<key>.toml         which content belongs to a source; the key is a digest of the source
//!   locks/<key>.lock        held by whoever fetches or builds that source
//!   partial/<id>/           files in the making; partial/<id>.lock is held by their owner
//! ```
//!
//! A source becomes an image in one step, the renaming of its file in `keys`: before it there is
//! nothing that another process could take for an image, after it everything.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::limits::GIB;
use common::size::ByteSize;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::build::{DISK, INITRD, KERNEL, PRODUCTS, build};
use super::convert::convert;
use super::digest::{Digest, DigestAlgorithm, Hasher, digest_of};
use super::entry::{Compression, DiskFormat, Entry, Image, Source, SourceDigest};
use super::error::ImageError;
use super::fetch::Fetch;
use super::first_pull::{FirstPull, LockFile, write_durably};
use super::lock::{ImageLock, WorkDirectory, remove_stale};
use super::progress::Progress;
use super::recipe;
use super::space::{FreeSpace, Room, free_space};
use super::unpack::unpack;

/// The space that stays free on the store's file system unless a setting says otherwise.
const RESERVE: ByteSize = ByteSize(2 * GIB);

/// Says whether the bytes of a first pull are the right ones.
pub type Confirm = Arc<dyn Fn(&FirstPull) -> bool + Send + Sync>;

/// What a store is told when it is opened.
#[derive(Clone)]
pub struct StoreSettings {
    /// Disk space that stays free whatever the store does.
    pub reserve: ByteSize,
    /// Asks whether the bytes of a first pull are the right ones. It may block, on a person for
    /// example; it runs on a thread of its own. Absent means that there is nobody to ask, and a first
    /// pull is refused before it begins.
    pub confirm: Option<Confirm>,
    /// Who is asked for the free space.
    pub free_space: FreeSpace,
}

impl Default for StoreSettings {
    /// A reserve of 2 GiB, and nobody who could confirm a first pull.
    fn default() -> Self {
        Self { reserve: RESERVE, confirm: None, free_space: Arc::new(free_space) }
    }
}

/// The images of this host. Any number of processes may have it open.
pub struct ImageStore {
    directory: PathBuf,
    settings: StoreSettings,
    first_pulls: LockFile,
}

/// An image that is on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// The label under which it was fetched or built.
    pub label: String,
    /// `sha256:...` of the content.
    pub digest: String,
    /// The size of its files in bytes.
    pub bytes: u64,
    /// The directory with its files.
    pub path: PathBuf,
}

/// A file in `keys`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    label: String,
    digest: String,
}

impl ImageStore {
    /// Opens the store in a directory, which is made if it is not there, and removes what dead
    /// processes left. A store that somebody else owns and that can only be read gives the images that
    /// it has.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or read.
    pub fn open(directory: &Path, settings: StoreSettings) -> Result<Self, ImageError> {
        for name in ["content", "keys", "locks", "partial"] {
            let path = directory.join(name);
            if !path.is_dir() {
                // Never writable for others, whatever the user's mask is: the directory above may be
                // that of the instances, which is refused then.
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(&path)
                    .map_err(ImageError::store("create", &path))?;
            }
        }
        let directory =
            fs::canonicalize(directory).map_err(ImageError::store("find", directory))?;
        // Machines run as users of their own and read the images.
        for path in [directory.clone(), directory.join("content")] {
            let found = fs::metadata(&path).map_err(ImageError::store("look at", &path))?;
            // A store of somebody else has the mode that its owner gave it.
            if found.mode() & 0o7777 != 0o755 && found.uid() == geteuid().as_raw() {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                    .map_err(ImageError::store("set the mode of", &path))?;
            }
        }
        match remove_stale(&directory.join("partial")) {
            Err(ImageError::Store { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
        let first_pulls = LockFile::new(&directory);
        Ok(Self { directory, settings, first_pulls })
    }

    /// The image of an entry: at once and without the network if it is here, else fetched or built,
    /// by one process of all that ask for it at the same time.
    ///
    /// Dropping the future ends the work and removes what was made so far. A recipe's programs take
    /// a moment to end; what they still write then is removed when the store is next used.
    ///
    /// # Errors
    ///
    /// See [`ImageError`]; after any error the store is as it was before.
    pub async fn ensure(
        &self,
        entry: &Arc<Entry>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Image, ImageError> {
        if let Some(image) = self.find(entry)? {
            return Ok(image);
        }
        let lock = self.directory.join("locks").join(format!("{}.lock", source_name(entry).hex()));
        let _lock = ImageLock::acquire(&lock, &entry.label, progress).await?;
        if let Some(image) = self.find(entry)? {
            return Ok(image); // whoever held the lock made it
        }
        remove_stale(&self.directory.join("partial"))?;
        let work = WorkDirectory::create(&self.directory.join("partial"))?;
        let out = work.path().join("out");
        fs::create_dir(&out).map_err(ImageError::store("create", &out))?;
        let room = Room {
            label: entry.label.clone(),
            path: self.directory.clone(),
            reserve: self.settings.reserve,
            free_space: FreeSpace::clone(&self.settings.free_space),
        };
        let key = match &entry.source {
            Source::Recipe(name) => {
                let recipe = recipe::find(name).ok_or_else(|| ImageError::Unusable {
                    label: entry.label.clone(),
                    reason: format!("there is no recipe {name}"),
                })?;
                build(recipe, entry.disk, work.path(), &out, &room, progress).await?;
                recipe.key(entry.disk)
            }
            Source::Download { url, digest, format, compression } => {
                let fetched =
                    Downloaded { url, digest, format: *format, compression: *compression };
                let found =
                    self.download(entry, &fetched, work.path(), &out, &room, progress).await?;
                download_key(&found, *format, *compression)
            }
        };
        progress(Progress::Verifying);
        self.publish(&entry.label, &key, out).await?;
        self.find(entry)?.ok_or_else(|| ImageError::Damaged {
            path: self.directory.clone(),
            message: format!("the image {} is gone as soon as made", entry.label),
        })
    }

    /// The image of an entry if it is on this host. Uses no network.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub fn find(&self, entry: &Arc<Entry>) -> Result<Option<Image>, ImageError> {
        let Some(key) = self.key(entry)? else { return Ok(None) };
        let Some(found) = read_key(&self.key_path(&key))? else { return Ok(None) };
        let path = self.content(&found.digest);
        let product = |name: &str| Some(path.join(name)).filter(|path| path.is_file());
        let Some(disk) = product(DISK) else { return Ok(None) };
        let (kernel, initrd) = (product(KERNEL), product(INITRD));
        if matches!(entry.source, Source::Recipe(_)) && (kernel.is_none() || initrd.is_none()) {
            return Ok(None);
        }
        let digest = found.digest.to_string();
        Ok(Some(Image { entry: Arc::clone(entry), digest, disk, kernel, initrd }))
    }

    /// The images on this host, by label.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub fn list(&self) -> Result<Vec<StoredImage>, ImageError> {
        let mut images = Vec::new();
        for (_, found) in self.keys()? {
            let path = self.content(&found.digest);
            let mut bytes = 0;
            for name in PRODUCTS {
                bytes += fs::metadata(path.join(name)).map_or(0, |file| file.len());
            }
            if bytes > 0 {
                let digest = found.digest.to_string();
                images.push(StoredImage { label: found.label, digest, bytes, path });
            }
        }
        images.sort_by(|a, b| (&a.label, &a.digest).cmp(&(&b.label, &b.digest)));
        Ok(images)
    }

    /// Removes all images that were fetched or built under a label (in any case), those of former
    /// recipes and sources included, and says which. Machines that run go on; files that another
    /// label uses stay.
    ///
    /// # Errors
    ///
    /// The store cannot be read or written.
    pub fn remove(&self, label: &str) -> Result<Vec<StoredImage>, ImageError> {
        let images: Vec<_> = self
            .list()?
            .into_iter()
            .filter(|image| image.label.eq_ignore_ascii_case(label))
            .collect();
        for (path, found) in self.keys()? {
            if found.label.eq_ignore_ascii_case(label) {
                fs::remove_file(&path).map_err(ImageError::store("remove", &path))?;
            }
        }
        for image in &images {
            let used = self.keys()?.iter().any(|(_, key)| self.content(&key.digest) == image.path);
            if !used && image.path.exists() {
                // Out of sight in one step; the working directory then removes it.
                let work = WorkDirectory::create(&self.directory.join("partial"))?;
                fs::rename(&image.path, work.path().join("removed"))
                    .map_err(ImageError::store("remove", &image.path))?;
            }
        }
        Ok(images)
    }

    async fn download(
        &self,
        entry: &Arc<Entry>,
        source: &Downloaded<'_>,
        work: &Path,
        out: &Path,
        room: &Room,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Digest, ImageError> {
        let algorithm = match source.digest {
            SourceDigest::Known(digest) => digest.algorithm(),
            SourceDigest::OnFirstPull => {
                if self.first_pulls.recorded(source.url)?.is_none() {
                    self.somebody_to_ask(&entry.label, source.url)?;
                }
                DigestAlgorithm::Sha256
            }
        };
        let packed = work.join("download");
        let fetch = Fetch { label: &entry.label, url: source.url, algorithm, room, progress };
        let fetched = fetch.run(&packed).await?;
        progress(Progress::Verifying);
        let found = fetched.digest;
        self.verify(entry, source, &found, fetched.bytes).await?;
        let disk = match source.compression {
            Compression::None => packed,
            compression => {
                progress(Progress::Unpacking);
                let disk = work.join("disk");
                unpack(compression, &packed, &disk, room).await?;
                fs::remove_file(&packed).map_err(ImageError::store("remove", &packed))?;
                disk
            }
        };
        progress(Progress::Converting);
        convert(entry, source.format, &disk, &out.join(DISK), room).await?;
        Ok(found)
    }

    /// Compares what came with the catalogue or with the first pull, or makes it the first pull.
    async fn verify(
        &self,
        entry: &Arc<Entry>,
        source: &Downloaded<'_>,
        found: &Digest,
        bytes: u64,
    ) -> Result<(), ImageError> {
        let (label, url) = (entry.label.clone(), source.url.to_owned());
        let found = found.clone();
        if let SourceDigest::Known(expected) = source.digest {
            if *expected == found {
                return Ok(());
            }
            let expected = expected.clone();
            return Err(ImageError::WrongDigest { label, url, expected, found });
        }
        match self.first_pulls.recorded(&url)? {
            Some(expected) if expected == found => Ok(()),
            Some(expected) => {
                let lock_file = self.first_pulls.path().into();
                Err(ImageError::Changed { label, url, expected, found, lock_file })
            }
            None => {
                let confirm = self.somebody_to_ask(&label, &url)?;
                let first = FirstPull { label, url, digest: found, bytes };
                let (first, confirmed) = tokio::task::spawn_blocking(move || {
                    let confirmed = confirm(&first);
                    (first, confirmed)
                })
                .await
                .expect("the caller's question does not panic and is not cancelled");
                if confirmed {
                    return self.first_pulls.record(&first.url, &first.digest);
                }
                let FirstPull { label, url, digest: found, .. } = first;
                Err(ImageError::NotConfirmed { label, url, found })
            }
        }
    }

    /// Who says whether a first pull is right.
    fn somebody_to_ask(&self, label: &str, url: &str) -> Result<Confirm, ImageError> {
        self.settings
            .confirm
            .clone()
            .ok_or_else(|| ImageError::NobodyToAsk { label: label.to_owned(), url: url.to_owned() })
    }

    /// Makes the files in `out` an image.
    async fn publish(&self, label: &str, key: &Digest, out: PathBuf) -> Result<(), ImageError> {
        let (digest, out) = tokio::task::spawn_blocking(move || seal(&out).map(|d| (d, out)))
            .await
            .expect("reading files does not panic and is not cancelled")?;
        let content = self.content(&digest);
        match fs::rename(&out, &content) {
            Ok(()) => {}
            // Another source gave the same files, or the key file alone was lost.
            Err(_) if content.join(DISK).is_file() => {}
            Err(error) => return Err(ImageError::store("create", &content)(error)),
        }
        sync_directory(&self.directory.join("content"))?;
        let key_file = KeyFile { label: label.to_owned(), digest: digest.to_string() };
        let text = toml::to_string(&key_file).expect("two texts are TOML");
        write_durably(&self.key_path(key), text.as_bytes())
    }

    /// The key of an entry's source, or `None` if that is known only after its first pull.
    fn key(&self, entry: &Entry) -> Result<Option<Digest>, ImageError> {
        match &entry.source {
            Source::Recipe(name) => Ok(recipe::find(name).map(|recipe| recipe.key(entry.disk))),
            Source::Download { url, digest, format, compression } => {
                let digest = match digest {
                    SourceDigest::Known(digest) => Some(digest.clone()),
                    SourceDigest::OnFirstPull => self.first_pulls.recorded(url)?,
                };
                Ok(digest.map(|digest| download_key(&digest, *format, *compression)))
            }
        }
    }

    fn keys(&self) -> Result<Vec<(PathBuf, FoundKey)>, ImageError> {
        let directory = self.directory.join("keys");
        let mut keys = Vec::new();
        for file in fs::read_dir(&directory).map_err(ImageError::store("read", &directory))? {
            let path = file.map_err(ImageError::store("read", &directory))?.path();
            if path.extension().is_some_and(|extension| extension == "toml")
                && let Some(found) = read_key(&path)?
            {
                keys.push((path, found));
            }
        }
        Ok(keys)
    }

    fn key_path(&self, key: &Digest) -> PathBuf {
        self.directory.join("keys").join(format!("{}.toml", key.hex()))
    }

    fn content(&self, digest: &Digest) -> PathBuf {
        self.directory.join("content").join(digest.hex())
    }
}

/// The parts of [`Source::Download`].
struct Downloaded<'a> {
    url: &'a str,
    digest: &'a SourceDigest,
    format: DiskFormat,
    compression: Compression,
}

struct FoundKey {
    label: String,
    digest: Digest,
}

fn read_key(path: &Path) -> Result<Option<FoundKey>, ImageError> {
    let damaged = |message: String| ImageError::Damaged { path: path.to_owned(), message };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ImageError::store("read", path)(error)),
    };
    let file: KeyFile =
        toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
    let digest: Digest = file.digest.parse().map_err(|error| damaged(format!("{error}")))?;
    Ok(Some(FoundKey { label: file.label, digest }))
}

/// Names a source whose digest may not be known yet: what two processes must not do at once.
fn source_name(entry: &Entry) -> Digest {
    match &entry.source {
        Source::Recipe(name) => digest_of([b"recipe", name.as_bytes()]),
        Source::Download { url, .. } => digest_of([b"download".as_slice(), url.as_bytes()]),
    }
}

/// The same bytes read in another way are another image.
fn download_key(digest: &Digest, format: DiskFormat, compression: Compression) -> Digest {
    let digest = digest.to_string();
    let parts = ["download", &digest, format.name(), compression.name()];
    digest_of(parts.map(str::as_bytes))
}

/// Makes the files read-only, writes them to the disk itself, and makes their digest.
fn seal(out: &Path) -> Result<Digest, ImageError> {
    let mut parts = Vec::new();
    for name in PRODUCTS {
        let path = out.join(name);
        let mut file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(ImageError::store("open", path)(error)),
        };
        file.set_permissions(fs::Permissions::from_mode(0o444))
            .map_err(ImageError::store("set the mode of", &path))?;
        file.sync_all().map_err(ImageError::store("write", &path))?;
        let digest = digest_file(&mut file).map_err(ImageError::store("read", &path))?;
        parts.push(name.to_owned());
        parts.push(digest.to_string());
    }
    fs::set_permissions(out, fs::Permissions::from_mode(0o755))
        .map_err(ImageError::store("set the mode of", out))?;
    sync_directory(out)?;
    Ok(digest_of(parts.iter().map(String::as_bytes)))
}

fn digest_file(file: &mut fs::File) -> io::Result<Digest> {
    use io::Read;
    let mut hasher = Hasher::new(DigestAlgorithm::Sha256);
    let mut block = vec![0; 1024 * 1024];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&block[..read]),
        }
    }
}

fn sync_directory(path: &Path) -> Result<(), ImageError> {
    fs::File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(ImageError::store("write", path))
}
