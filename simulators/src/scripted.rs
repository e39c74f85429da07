//! A host whose machines are scripted guests: programs that look like QEMU with a guest in it and do
//! what a job's steps say (`vm-manager/src/bin/scripted-guest`).

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// The program, beside the test programs of the same build.
const PROGRAM: &str = "scripted-guest";

/// A disk with a header and nothing else: magic, version 3, no backing file, clusters of 64 KiB and
/// 1 MiB for the guest to see (QEMU's docs/interop/qcow2).
const DISK: [u8; 112] = {
    let mut bytes = [0; 112];
    let start = *b"QFI\xfb\x00\x00\x00\x03";
    let mut at = 0;
    while at < start.len() {
        bytes[at] = start[at];
        at += 1;
    }
    bytes[23] = 16;
    bytes[29] = 0x10;
    bytes[103] = 104;
    bytes
};

/// A host with scripted guests in a directory of the caller's, which may be given to vm-manager, the
/// orchestrator and `solstice` as it is.
#[derive(Debug)]
pub struct ScriptedHost {
    directory: PathBuf,
    /// How many boots were planned.
    planned: AtomicU32,
}

/// How a guest boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// How long the guest takes until its SSH server answers, or until what [`Boot::end`] says.
    pub time: Duration,
    /// What comes of it.
    pub end: BootEnd,
}

/// What comes of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootEnd {
    /// The guest is ready for its job.
    Ready,
    /// The guest is ready for its job, but its disk has no room for a working tree.
    Full,
    /// The guest is ready for its job, and takes two seconds to start it.
    Slow,
    /// It never answers.
    Hang,
    /// Its kernel panics.
    Panic,
    /// Its SSH server answers and lets nobody in.
    Refuse,
    /// QEMU itself does not start.
    Fail,
}

impl BootEnd {
    /// The word for it in the files that the program reads.
    fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Full => "full",
            Self::Slow => "slow",
            Self::Hang => "hang",
            Self::Panic => "panic",
            Self::Refuse => "refuse",
            Self::Fail => "fail",
        }
    }
}

impl ScriptedHost {
    /// The label of the image that needs no download, the only one that is in the store.
    pub const LABEL: &str = "scripted";

    /// Makes such a host. `directory` must be there; everything is made in it, and nothing else is
    /// left when it is removed.
    ///
    /// # Errors
    /// The directory cannot be written.
    ///
    /// # Panics
    /// The program was not built; the message says how to.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let host = Self { directory: directory.to_owned(), planned: AtomicU32::new(0) };
        let program = program();
        fs::create_dir(host.programs())?;
        for link in [host.qemu(), host.qemu_img()] {
            std::os::unix::fs::symlink(&program, link)?;
        }
        // It is uploaded to each guest, which only looks for its name.
        fs::write(host.programs().join("workflow-runner-linux-x64"), "scripted\n")?;
        fs::write(host.catalogue(), catalogue())?;
        host.make_store()?;
        Ok(host)
    }

    /// What takes the place of `qemu-system-x86_64`.
    #[must_use]
    pub fn qemu(&self) -> PathBuf {
        self.programs().join("qemu-system-x86_64")
    }

    /// What takes the place of `qemu-img`.
    #[must_use]
    pub fn qemu_img(&self) -> PathBuf {
        self.programs().join("qemu-img")
    }

    /// The directory with these programs, and with one in the place of the guest program.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.directory.join("bin")
    }

    /// A catalogue file with the label [`ScriptedHost::LABEL`].
    #[must_use]
    pub fn catalogue(&self) -> PathBuf {
        self.directory.join("catalogue.toml")
    }

    /// The directory of an image store that has the image of that label.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.directory.join("images")
    }

    /// The settings of `solstice` for this host, as variables. Directories of state and runtime are
    /// the caller's.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("SOLSTICE_QEMU", self.qemu().into()),
            ("SOLSTICE_QEMU_IMG", self.qemu_img().into()),
            ("SOLSTICE_CATALOGUE", self.catalogue().into()),
            ("SOLSTICE_IMAGE_DIR", self.images().into()),
            ("SOLSTICE_GUEST_PROGRAMS", self.programs().into()),
            // The same on every host, whatever its processor can do.
            ("SOLSTICE_ACCELERATION", "tcg".into()),
        ]
    }

    /// Says how every guest boots from now on.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn set_boot(&self, boot: Boot) -> io::Result<()> {
        self.place(&boot, &self.programs().join("boot.conf"))
    }

    /// Says how one guest boots: the next that starts, or the next after those that were planned
    /// before.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn plan_boot(&self, boot: Boot) -> io::Result<()> {
        let boots = self.programs().join("boots");
        fs::create_dir_all(&boots)?;
        let number = self.planned.fetch_add(1, Ordering::SeqCst);
        self.place(&boot, &boots.join(format!("{number:08}")))
    }

    /// Writes a file that a guest may read at any moment: it is there as a whole or not at all.
    fn place(&self, boot: &Boot, path: &Path) -> io::Result<()> {
        let Boot { time, end } = boot;
        let text = format!("SCRIPTED_BOOT_MS={}\nSCRIPTED_BOOT={}\n", time.as_millis(), end.name());
        let part = self.directory.join("boot.part");
        fs::write(&part, text)?;
        fs::rename(part, path)
    }

    /// An image store as `vm_manager::image` lays it out: the content, and the file that says to
    /// which source it belongs. Its tests find the image here.
    fn make_store(&self) -> io::Result<()> {
        let digest = hex(&Sha256::digest(DISK));
        let content = self.images().join("content").join(&digest);
        fs::create_dir_all(&content)?;
        fs::write(content.join("disk.qcow2"), DISK)?;
        let mut key = Sha256::new();
        for part in ["download", &format!("sha256:{digest}"), "qcow2", "none"] {
            key.update((part.len() as u64).to_be_bytes());
            key.update(part);
        }
        let keys = self.images().join("keys");
        fs::create_dir_all(&keys)?;
        let text = format!("label = \"{}\"\ndigest = \"sha256:{digest}\"\n", Self::LABEL);
        fs::write(keys.join(format!("{}.toml", hex(&key.finalize()))), text)
    }
}

/// The program, in the directory of this test program's build.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("the system knows the path of a running program");
    // A test lies in `deps`, other programs beside ours.
    let directories = own.ancestors().skip(1).take(2);
    let found = directories.map(|directory| directory.join(PROGRAM)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "there is no {PROGRAM} beside {} or above it; build it with `cargo build -p vm-manager \
             --bin {PROGRAM}`",
            own.display()
        )
    })
}

/// The catalogue's entry. The address is never asked: what it would give is in the store.
fn catalogue() -> String {
    let digest = hex(&Sha256::digest(DISK));
    format!(
        "[{label}]\n\
         system = \"Scripted guest\"\n\
         version = \"1\"\n\
         runner_os = \"Linux\"\n\
         runner_arch = \"X64\"\n\
         architecture = \"x86_64\"\n\
         url = \"https://images.invalid/scripted.qcow2\"\n\
         digest = \"sha256:{digest}\"\n\
         format = \"qcow2\"\n\
         user = \"root\"\n\
         shutdown = \"poweroff\"\n\
         tool_cache = \"/opt/hostedtoolcache\"\n\
         work_directory = \"/var/solstice\"\n\
         cpus = 1\n\
         memory = \"96MiB\"\n\
         disk = \"64MiB\"\n\
         boot_ceiling = \"30s\"\n\
         verified = true\n\
         \n\
         [{label}.hardware]\n\
         machine = \"q35\"\n\
         disk = \"virtio\"\n\
         seed = \"virtio\"\n\
         network = \"virtio-net-pci\"\n",
        label = ScriptedHost::LABEL
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes what is written to it");
        text
    })
}
