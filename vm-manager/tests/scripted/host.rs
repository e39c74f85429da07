//! A host with scripted guests, and a job for one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::JobId;
use common::frame::{Decoder, encode};
use common::guest::{
    ATTACH_VERSION, FromGuest, GuestEvent, JobDocument, RUN_DIRECTORY, RunnerFacts, ToGuest,
};
use common::plan::{Containers, Dialect, PLAN_VERSION, Plan, Step, StepAction, Value};
use common::request::Contexts;
use common::size::ByteSize;
use simulators::ScriptedHost;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vm_manager::host::{Acceleration, HostSettings, Instance, Need};
use vm_manager::image::{Catalogue, Image, ImageStore, StoreSettings};
use vm_manager::machine::{Ended, Machine, MachineSpec};
use vm_manager::ssh::{Completed, Guest, Stdin, StreamReader};

/// The longest time that anything may take that a test waits for, on a busy host.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Directories of one test.
pub(crate) struct Host {
    pub(crate) settings: HostSettings,
    pub(crate) scripted: ScriptedHost,
    pub(crate) instance: Arc<Instance>,
    directory: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        // On tmpfs, as sockets and keys want it, and short: a socket's path has 107 bytes.
        let run =
            std::env::var("SOLSTICE_TEST_RUN").unwrap_or_else(|_| std::process::id().to_string());
        let prefix = format!("solstice-test-{run}-");
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir_in("/dev/shm").unwrap();
        let scripted = ScriptedHost::new(directory.path()).unwrap();
        let settings = HostSettings {
            state: directory.path().join("s"),
            runtime: directory.path().join("r"),
            qemu: scripted.qemu(),
            qemu_img: scripted.qemu_img(),
            disk_reserve: ByteSize(1 << 20),
            acceleration: Some(Acceleration::Tcg),
            limits: vm_manager::host::CapacityLimits::default(),
        };
        let instance = Instance::create(&settings).unwrap();
        Self { settings, scripted, instance, directory }
    }

    /// The image, which the store has without any network.
    pub(crate) async fn image(&self) -> Arc<Image> {
        let catalogue = Catalogue::load(Some(&self.scripted.catalogue())).unwrap();
        let entry = catalogue.get(ScriptedHost::LABEL).unwrap();
        let store = ImageStore::open(&self.scripted.images(), StoreSettings::default()).unwrap();
        Arc::new(store.ensure(&entry, &|progress| panic!("{progress:?}")).await.unwrap())
    }

    pub(crate) async fn spec(&self) -> MachineSpec {
        let mut spec = MachineSpec::of(self.image().await, "scripted");
        spec.promise =
            Some(self.instance.wait_for_room(&Need::whole(spec.memory, spec.cpus)).await.unwrap());
        spec
    }

    pub(crate) async fn start(&self) -> Machine {
        Machine::start(&self.instance, self.spec().await).await.unwrap()
    }

    pub(crate) async fn boot(&self) -> (Machine, Guest) {
        let machine = self.start().await;
        let guest = machine.wait_ready(PATIENCE).await.unwrap();
        (machine, guest)
    }

    /// Boots, places the guest program and starts a job whose steps are these scripts.
    pub(crate) async fn job(&self, scripts: &[&str]) -> (Machine, Guest, JobDocument) {
        let (machine, guest) = self.boot().await;
        let document = document(scripts);
        place(&guest).await;
        let started = hand_over(&guest, &document).await;
        let said = String::from_utf8_lossy(&started.stdout).into_owned();
        assert_eq!(said, format!("solstice-guest 1 {}\n", document.job), "{started:?}");
        (machine, guest, document)
    }

    /// Asserts that no process, record, file or promise is left.
    pub(crate) fn assert_empty(self) {
        drop(self.instance);
        let marker = self.directory.path().to_str().unwrap();
        assert_eq!(processes_with(marker), Vec::<String>::new(), "a process is left");
        for directory in [&self.settings.state, &self.settings.runtime] {
            for file in walk(directory) {
                let ledger = file.ends_with("ledger") && std::fs::read(&file).unwrap() == b"[]";
                assert!(ledger, "{} is left", file.display());
            }
        }
    }
}

/// Command lines of running processes that mention `marker`; zombies have none.
fn processes_with(marker: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(marker)).collect()
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

/// How a machine ended.
pub(crate) async fn end_of(machine: &Machine) -> Ended {
    let mut ended = machine.ended();
    let end = tokio::time::timeout(PATIENCE, ended.wait_for(Option::is_some)).await;
    end.expect("the machine did not end").unwrap().clone().unwrap()
}

/// The path of the guest program in the guest.
pub(crate) fn program() -> String {
    format!("{RUN_DIRECTORY}/workflow-runner")
}

/// Places the guest program, of about the size that it really has.
pub(crate) async fn place(guest: &Guest) {
    let made = guest.run(&format!("mkdir -p -m 700 {RUN_DIRECTORY}"), None, PATIENCE).await;
    assert!(made.unwrap().success());
    let bytes = vec![0x7f; 1 << 20];
    guest.upload(&bytes[..], 1 << 20, &program(), 0o755, PATIENCE).await.unwrap();
}

/// `workflow-runner start`.
pub(crate) async fn hand_over(guest: &Guest, document: &JobDocument) -> Completed {
    let bytes = serde_json::to_vec(document).unwrap();
    guest.run(&format!("{} start", program()), Some(&bytes), PATIENCE).await.unwrap()
}

/// A job whose steps are these scripts.
pub(crate) fn document(scripts: &[&str]) -> JobDocument {
    let steps = scripts.iter().zip(0..).map(|(script, index)| Step {
        index,
        id: None,
        name: None,
        condition: script.starts_with("# always").then(|| "always()".to_owned()),
        env: Value::empty_mapping(),
        continue_on_error: script.starts_with("# continue").then(|| Value::literal("true")),
        timeout_minutes: None,
        action: StepAction::Run {
            script: Value::literal(*script),
            shell: None,
            working_directory: None,
        },
        location: None,
    });
    let plan = Plan {
        version: PLAN_VERSION,
        dialect: Dialect::Github,
        server_version: None,
        job: "test".to_owned(),
        name: "test".to_owned(),
        env: vec![],
        defaults: vec![],
        containers: Containers::default(),
        steps: steps.collect(),
        outputs: Value::empty_mapping(),
        timeout_minutes: None,
        file: None,
    };
    let runner = RunnerFacts {
        os: "Linux".to_owned(),
        arch: "X64".to_owned(),
        name: "scripted".to_owned(),
        tool_cache: "/opt/hostedtoolcache".to_owned(),
    };
    JobDocument {
        version: ATTACH_VERSION,
        job: JobId::new(),
        plan,
        contexts: Contexts::default(),
        secrets: Default::default(),
        runner,
        work_directory: "/var/solstice".to_owned(),
        run_as: None,
        label: None,
        checkout_first: false,
        tree: None,
        services: Vec::new(),
        native_commits: Default::default(),
    }
}

/// The host's end of the conversation about a job.
pub(crate) struct Conversation {
    reader: StreamReader,
    writer: Stdin,
    decoder: Decoder,
}

impl Conversation {
    /// Attaches and takes the answer, which must give the events from `from` on.
    pub(crate) async fn attach(guest: &Guest, job: JobId, from: u64) -> Self {
        let mut conversation = Self::open(guest, job).await;
        conversation.send(&ToGuest::Attach { version: ATTACH_VERSION, from }).await;
        let answer = conversation.next().await;
        let expected = FromGuest::Attached { version: ATTACH_VERSION, job, next: from };
        assert_eq!(answer, Some(expected));
        conversation
    }

    /// Attaches without a word.
    pub(crate) async fn open(guest: &Guest, job: JobId) -> Self {
        let command = format!("{} attach {job}", program());
        let (reader, writer) = guest.exec_stream(&command).await.unwrap();
        Self { reader, writer, decoder: Decoder::default() }
    }

    /// Sends a frame. A guest that has hung up says why in what it sent before.
    pub(crate) async fn send(&mut self, frame: &ToGuest) {
        drop(self.writer.write_all(&encode(frame).unwrap()).await);
    }

    pub(crate) async fn ack(&mut self, seq: u64) {
        self.send(&ToGuest::Ack { seq }).await;
    }

    /// The next frame; `None` at the end of the stream. The first event is acknowledged: the guest
    /// does nothing before.
    pub(crate) async fn next(&mut self) -> Option<FromGuest> {
        let frame = self.read().await;
        if matches!(frame, Some(FromGuest::Event { seq: 1, .. })) {
            self.ack(1).await;
        }
        frame
    }

    async fn read(&mut self) -> Option<FromGuest> {
        let read = async {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                if let Some(frame) = self.decoder.next_frame().unwrap() {
                    return Some(frame);
                }
                match self.reader.read(&mut buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(count) => self.decoder.push(&buffer[..count]),
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("the guest says nothing")
    }

    /// The next event with its number.
    pub(crate) async fn event(&mut self) -> (u64, GuestEvent) {
        match self.next().await {
            Some(FromGuest::Event { seq, event }) => (seq, event),
            other => panic!("{other:?} instead of an event"),
        }
    }

    /// The reason of a refusal, behind which the stream ends.
    pub(crate) async fn refusal(&mut self) -> String {
        loop {
            match self.next().await {
                Some(FromGuest::Event { .. }) => {}
                Some(FromGuest::Refused { reason }) => {
                    assert_eq!(self.next().await, None);
                    return reason;
                }
                other => panic!("{other:?} instead of a refusal"),
            }
        }
    }

    /// All events up to the last, which is acknowledged.
    pub(crate) async fn finish(&mut self) -> Vec<GuestEvent> {
        let mut events = Vec::new();
        loop {
            let (seq, event) = self.event().await;
            let last = matches!(event, GuestEvent::Finished(_));
            events.push(event);
            if last {
                self.ack(seq).await;
                assert_eq!(self.next().await, None, "the guest closes the connection");
                return events;
            }
        }
    }
}

/// The lines of standard output in these events.
pub(crate) fn lines(events: &[GuestEvent]) -> Vec<String> {
    let batches = events.iter().filter_map(|event| match event {
        GuestEvent::Log(batch) => Some(&batch.lines),
        _ => None,
    });
    batches
        .flatten()
        .filter(|line| line.stream == common::event::Stream::Stdout)
        .map(|line| line.text.to_text().into_owned())
        .collect()
}
