//! A template of the tiny guest, and its clones.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::size::ByteSize;
use common::time::Timestamp;
use futures_util::StreamExt;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use vm_manager::host::Instance;
use vm_manager::machine::{Machine, MachineSpec, Origin};
use vm_manager::ssh::{Guest, Keys, SshError};
use vm_manager::template::{Facts, StoreSettings, Template, TemplateKey, TemplateStore};

use super::host::{BOOT, Host, PATIENCE, boot, entry, spec, start};

/// Where the guest program and the script lie in a guest.
const PROGRAM: &str = "/var/tmp/solstice/workflow-runner";
const SCRIPT: &str = "/var/tmp/solstice/personalise";
/// Clones that live at the same time.
const TOGETHER: usize = 10;
/// How long somebody else may make a template.
const WAIT: Duration = Duration::from_secs(60);
/// The clock of a clone may be off so far.
const CLOCK: Duration = Duration::from_millis(100);

/// The guest program for Linux, beside the tests' own programs.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    target.join("guest/workflow-runner-linux-x64")
}

/// A store of its own with one template in it, and the keys by which its maker logged in.
struct Frozen {
    place: TempDir,
    store: TemplateStore,
    key: TemplateKey,
    template: Arc<Template>,
    keys: Keys,
}

impl Frozen {
    async fn make(instance: &Arc<Instance>, script: &str) -> Self {
        let base = std::env::var_os("SOLSTICE_TEST_DIR").unwrap();
        let place = tempfile::Builder::new().prefix("t").rand_bytes(5).tempdir_in(base).unwrap();
        let settings = StoreSettings { quota: ByteSize(1 << 40), reserve: ByteSize(0) };
        let store = TemplateStore::open(place.path(), settings).unwrap();
        let MachineSpec { image, cpus, memory, .. } = spec();
        let key = TemplateKey::of(instance, &image, (cpus, memory), "program", "").await.unwrap();
        let making = store.make(&key, memory, WAIT, &|_| ()).await.unwrap();
        let directory = making.directory().to_owned();
        let origin = Origin::Mould { directory: directory.clone(), base: None };
        let mould = MachineSpec { origin, ..spec() };
        let (machine, guest) = boot(instance, mould).await;
        let made = guest.run("mkdir -p /var/tmp/solstice", None, PATIENCE).await.unwrap();
        assert!(made.success());
        let bytes = std::fs::read(program()).expect("scripts/guest-program.sh builds it");
        let size = bytes.len() as u64;
        guest.upload(bytes.as_slice(), size, PROGRAM, 0o755, PATIENCE).await.unwrap();
        let size = script.len() as u64;
        guest.upload(script.as_bytes(), size, SCRIPT, 0o600, PATIENCE).await.unwrap();
        let port = machine.port().await.unwrap();
        let listen = format!(
            "(trap '' HUP; exec {PROGRAM} personal /dev/ttyS1 {SCRIPT}) >/dev/null 2>&1 </dev/null &"
        );
        assert!(guest.run(&listen, None, PATIENCE).await.unwrap().success());
        port.greeted().await.unwrap();
        guest.close().await;
        drop(guest);
        let keys = machine.keys().clone();
        drop(machine.freeze(&directory).await.unwrap());
        let facts = Facts {
            label: "tiny".to_owned(),
            image: image.digest.clone(),
            cpus,
            memory,
            made: Timestamp::now(),
            login_key: keys.login_public_line(),
            files: Vec::new(),
        };
        let template = making.on_trial(facts).unwrap();
        let template = making.publish(&template).await.unwrap();
        Self { place, store, key, template, keys }
    }

    fn clone(&self, hostname: &str) -> MachineSpec {
        let origin = Origin::Clone(Arc::clone(&self.template));
        MachineSpec { origin, hostname: hostname.to_owned(), ..spec() }
    }
}

fn script() -> &'static str {
    entry().template.unwrap().script
}

/// What a clone tells of itself.
struct Told {
    sample: String,
    cookie: String,
    machine_id: String,
    host_key: String,
}

/// Makes a clone, asserts what holds for every one, and leaves a mark in it.
async fn live(frozen: &Frozen, instance: &Arc<Instance>, number: usize) -> Told {
    let hostname = format!("clone-{number}");
    let machine = start(instance, frozen.clone(&hostname)).await;
    let sample = machine.birth().unwrap().sample.clone();
    let cookie = cookie(machine.address()).await;
    let guest = machine.wait_ready(BOOT).await.unwrap();

    let before = SystemTime::now();
    let clock = said(&guest, "adjtimex | sed -n 's/^ *time.tv_[a-z]*: *//p'").await;
    let after = SystemTime::now();
    let parts: Vec<u64> = clock.lines().map(|line| line.trim().parse().unwrap()).collect();
    let time = SystemTime::UNIX_EPOCH + Duration::from_micros(parts[0] * 1_000_000 + parts[1]);
    assert!(time > before - CLOCK && time < after + CLOCK, "{before:?} {time:?} {after:?}");

    // Nobody else's writes, in files and in memory.
    assert_eq!(said(&guest, "hostname; ls /mark /dev/shm/mark 2>/dev/null").await, hostname);
    said(&guest, "echo mine >/mark; echo mine >/dev/shm/mark; sync").await;

    let keys = &frozen.keys;
    let host_line = machine.keys().host_public_line();
    let stale = Keys::from_login(&keys.login_private_openssh(), &host_line).unwrap();
    let refused = Guest::connect(machine.address(), "root", &stale, PATIENCE).await;
    assert!(matches!(refused, Err(SshError::Refused { .. })), "{refused:?}");

    let machine_id = said(&guest, "cat /etc/machine-id").await;
    let told = Told { sample, cookie, machine_id, host_key: host_line };
    machine.destroy().await;
    told
}

/// The random bytes with which a server begins a key exchange (RFC 4253, section 7.1): those of the
/// machine's first connection, by a process that may be older than the clone.
async fn cookie(address: SocketAddr) -> String {
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    stream.write_all(b"SSH-2.0-test\r\n").await.unwrap();
    let mut banner = String::new();
    stream.read_line(&mut banner).await.unwrap();
    assert!(banner.starts_with("SSH-2.0-"), "{banner:?}");
    // Two lengths, the kind of the message, the cookie.
    let mut packet = [0; 4 + 1 + 1 + 16];
    stream.read_exact(&mut packet).await.unwrap();
    assert_eq!(packet[5], 20, "a server begins with SSH_MSG_KEXINIT");
    hex::encode(&packet[6..])
}

async fn said(guest: &Guest, command: &str) -> String {
    let done = guest.run(command, None, PATIENCE).await.unwrap();
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// How many clones: a dozen, or what `SOLSTICE_CLONES` says.
fn clones() -> usize {
    std::env::var("SOLSTICE_CLONES").map_or(12, |count| count.parse().unwrap())
}

#[tokio::test]
async fn clones_have_nothing_of_each_other_and_nothing_of_their_template() {
    let host = Host::new();
    let instance = host.instance();
    let frozen = Frozen::make(&instance, script()).await;
    let files = || {
        let entries = std::fs::read_dir(frozen.place.path().join("ready")).unwrap();
        let directory = entries.flatten().next().unwrap().path();
        ["memory", "device", "disk.qcow2"].map(|name| {
            let bytes = std::fs::read(directory.join(name)).unwrap();
            <sha2::Sha256 as sha2::Digest>::digest(&bytes).to_vec()
        })
    };
    let untouched = files();
    let mut told = Vec::new();
    for number in 0..clones() / 2 {
        told.push(live(&frozen, &instance, number).await);
    }
    let together = (told.len()..clones()).map(|number| live(&frozen, &instance, number));
    let together = futures_util::stream::iter(together).buffer_unordered(TOGETHER);
    told.extend(together.collect::<Vec<Told>>().await);
    for what in [
        |told: &Told| told.sample.clone(),
        |told: &Told| told.cookie.clone(),
        |told: &Told| told.machine_id.clone(),
        |told: &Told| told.host_key.clone(),
    ] {
        let different: HashSet<String> = told.iter().map(what).collect();
        assert_eq!(different.len(), clones(), "{different:?}");
    }
    assert!(files() == untouched, "a clone wrote into its template");
    assert!(instance.close().unwrap());
    host.assert_empty();
}

#[tokio::test]
async fn a_clone_that_lets_its_template_in_is_refused_and_a_damaged_template_is_none() {
    let host = Host::new();
    let instance = host.instance();
    // Of one name both keys may log in, of another the script fails.
    let lax = script().replace(
        "put authorized-key ",
        "[ $(cat hostname) != broken ] || { echo no such thing >&2; exit 3; }\n\
         cat authorized-key >>",
    );
    assert_ne!(lax, script());
    let frozen = Frozen::make(&instance, &lax).await;
    let clone = start(&instance, frozen.clone("lax")).await;
    clone.wait_answer(BOOT).await.unwrap();
    let error = clone.connect().await.unwrap_err();
    assert!(matches!(error, SshError::ForeignKey { .. }), "{error}");
    clone.destroy().await;

    let error = Machine::start(&instance, frozen.clone("broken")).await.unwrap_err();
    assert!(error.to_string().contains("no such thing"), "{error}");

    assert!(frozen.store.find(&frozen.key).unwrap().is_some());
    let memory = frozen.place.path().join(format!("ready/{}/memory", frozen.key));
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&memory, permissions).unwrap();
    std::fs::OpenOptions::new().write(true).open(&memory).unwrap().set_len(4096).unwrap();
    assert!(frozen.store.find(&frozen.key).unwrap().is_none());
    frozen.store.discard(&frozen.template).unwrap();
    assert!(!memory.exists());
    assert!(instance.close().unwrap());
    host.assert_empty();
}
