//! Starts from templates, beside starts without them.
//!
//! The clones whose phases and memory are measured are made as the orchestrator makes them, with the
//! library below it, of templates that `solstice image warm` and `solstice run` made.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::limits::{GIB, MIB};
use common::size::ByteSize;
use tokio::runtime::Runtime;
use vm_manager::host::{CapacityLimits, HostSettings, Instance};
use vm_manager::image::{Catalogue, Image, ImageStore, StoreSettings};
use vm_manager::machine::{Machine, MachineSpec, Origin};
use vm_manager::template::{self, Template, TemplateStore};

use super::{Bench, Figures, STARTS, millis, percentile};

/// How often a warm start is measured: it has to be one each time.
const WARM_STARTS: usize = 10;
/// How often each phase and each size of memory is measured.
const CLONES: usize = 9;
/// How many machines idle beside each other.
const TOGETHER: usize = 10;
/// How long they idle before their memory is counted.
const IDLE: Duration = Duration::from_secs(10);
/// How long a guest may take to boot.
const BOOT: Duration = Duration::from_secs(300);

/// The names under which an image's figures stand in the report.
pub(super) struct Names {
    pub(super) image: &'static str,
    pub(super) cold: &'static str,
    pub(super) warm: &'static str,
    pub(super) worst: &'static str,
    pub(super) ratio: &'static str,
    pub(super) make: &'static str,
}

pub(super) const TINY: Names = Names {
    image: "tiny",
    cold: "cold_start_tiny_ms",
    warm: "warm_start_tiny_ms",
    worst: "warm_start_tiny_worst_ms",
    ratio: "warm_start_tiny_times_faster",
    make: "template_make_tiny_ms",
};

pub(super) const DEBIAN: Names = Names {
    image: "debian-12",
    cold: "cold_start_debian12_ms",
    warm: "warm_start_debian12_ms",
    worst: "warm_start_debian12_worst_ms",
    ratio: "warm_start_debian12_times_faster",
    make: "template_make_ms",
};

/// From the command to the first line of a job's first step, without and with a template.
pub(super) fn starts(bench: &Bench, names: &Names) -> Figures {
    let first_line = |templates: bool| {
        let steps = "- run: echo first-line";
        let mut run = if templates {
            bench.start_warm(names.image, steps)
        } else {
            bench.start(names.image, steps)
        };
        let at = run.wait_for_line("first-line");
        run.end();
        millis(at)
    };
    let mut cold: Vec<f64> = (0..STARTS).map(|_| first_line(false)).collect();
    let begun = Instant::now();
    bench.warm(names.image);
    let made = millis(begun.elapsed());
    let mut warm: Vec<f64> = (0..WARM_STARTS).map(|_| first_line(true)).collect();
    let (cold, worst) = (percentile(&mut cold, 50), percentile(&mut warm, 100));
    let warm = percentile(&mut warm, 50);
    Figures::from([
        (names.cold, cold),
        (names.warm, warm),
        (names.worst, worst),
        (names.ratio, cold / warm),
        (names.make, made),
    ])
}

/// The phases of a warm start of debian-12, one after the other.
pub(super) fn phases(bench: &Bench) -> Figures {
    let host = Host::new(bench);
    bench.warm("debian-12");
    let template = host.template("debian-12", None);
    let mut phases: [(&'static str, Vec<f64>); 6] = [
        ("clone_files_ms", Vec::new()),
        ("clone_qemu_ms", Vec::new()),
        ("clone_restore_debian12_ms", Vec::new()),
        ("clone_personal_ms", Vec::new()),
        ("clone_login_ms", Vec::new()),
        ("clone_command_ms", Vec::new()),
    ];
    for _ in 0..CLONES {
        let times = host.runtime.block_on(async {
            let machine = host.clone(&template).await;
            let birth = machine.birth().expect("it is a clone").clone();
            let mut begun = Instant::now();
            let mut lap = || std::mem::replace(&mut begun, Instant::now()).elapsed();
            let guest = machine.login_to_clone(BOOT).await.expect("it lets us in");
            let login = lap();
            guest.run("true", None, BOOT).await.expect("it runs a command");
            let command = lap();
            machine.destroy().await;
            [birth.files, birth.qemu, birth.restore, birth.personal, login, command]
        });
        for ((_, all), time) in phases.iter_mut().zip(times) {
            all.push(millis(time));
        }
    }
    phases.iter_mut().map(|(name, times)| (*name, percentile(times, 50))).collect()
}

/// How long QEMU takes to restore guests of three sizes.
pub(super) fn restore(bench: &Bench) -> Figures {
    let host = Host::new(bench);
    let sizes = [
        ("clone_restore_256_mib_ms", 256 * MIB),
        ("clone_restore_ms", GIB),
        ("clone_restore_4_gib_ms", 4 * GIB),
    ];
    let mut times = sizes.map(|_| Vec::new());
    let templates = sizes.map(|(_, memory)| {
        bench.start_sized("tiny", "- run: true", ByteSize(memory)).end();
        host.template("tiny", Some(ByteSize(memory)))
    });
    // In turn, so that what else the host does meets all of them.
    for _ in 0..CLONES * 2 {
        for (template, times) in templates.iter().zip(&mut times) {
            let machine = host.runtime.block_on(host.clone(template));
            times.push(millis(machine.birth().expect("it is a clone").restore));
        }
    }
    let medians = times.map(|mut times| percentile(&mut times, 50));
    let most = medians.iter().copied().fold(f64::MIN, f64::max);
    let least = medians.iter().copied().fold(f64::MAX, f64::min);
    let mut figures: Figures = sizes.iter().map(|(name, _)| *name).zip(medians).collect();
    figures.insert("clone_restore_spread", most / least);
    figures
}

/// What ten idle guests of debian-12 take of the host's memory, without and with a template.
pub(super) fn memory(bench: &Bench) -> Figures {
    let host = Host::new(bench);
    bench.warm("debian-12");
    let template = host.template("debian-12", None);
    let warm = host.runtime.block_on(async {
        let mut machines = Vec::new();
        for _ in 0..TOGETHER {
            let machine = host.clone(&template).await;
            machine.wait_ready(BOOT).await.expect("it lets us in").close().await;
            machines.push(machine);
        }
        tokio::time::sleep(IDLE).await;
        proportional(&machines)
    });
    let cold = host.runtime.block_on(async {
        let mut machines = Vec::new();
        for _ in 0..TOGETHER {
            let spec = MachineSpec::of(Arc::clone(&template.0), "bench");
            let machine = Machine::start(&host.instance, spec).await.expect("it starts");
            machine.wait_ready(BOOT).await.expect("it lets us in").close().await;
            machines.push(machine);
        }
        tokio::time::sleep(IDLE).await;
        proportional(&machines)
    });
    Figures::from([
        ("ten_clones_pss_bytes", warm),
        ("ten_cold_pss_bytes", cold),
        ("ten_clones_share_of_cold", warm / cold),
    ])
}

/// The sum of the proportional set sizes of the machines' QEMUs (proc(5), `smaps_rollup`).
fn proportional(machines: &[Machine]) -> f64 {
    let of = |machine: &Machine| {
        let pid = machine.process_id().expect("it runs");
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line");
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes * 1024.0
    };
    machines.iter().map(of).sum()
}

/// A host of machines that this process makes.
struct Host<'a> {
    bench: &'a Bench,
    runtime: Runtime,
    instance: Arc<Instance>,
}

impl<'a> Host<'a> {
    fn new(bench: &'a Bench) -> Self {
        let settings = HostSettings {
            state: bench.fresh(),
            runtime: bench.sockets(),
            qemu: "qemu-system-x86_64".into(),
            qemu_img: "qemu-img".into(),
            disk_reserve: ByteSize(GIB),
            acceleration: None,
            // Ten guests of two processors on whatever host this is.
            limits: CapacityLimits { cpus: Some(1000), memory: None },
        };
        let instance = Instance::create(&settings).expect("the directories can be used");
        let runtime = Runtime::new().expect("a runtime");
        Self { bench, runtime, instance }
    }

    fn image(&self, label: &str) -> Arc<Image> {
        let entry = Catalogue::load(None).expect("it is ours").get(label).expect("it is there");
        let store = ImageStore::open(&self.bench.images(), StoreSettings::default());
        let store = store.expect("the store can be used");
        let image = self.runtime.block_on(async move { store.ensure(&entry, &|_| ()).await });
        Arc::new(image.expect("the image is there"))
    }

    /// A template that was made before.
    fn template(&self, label: &str, memory: Option<ByteSize>) -> (Arc<Image>, Arc<Template>) {
        let image = self.image(label);
        let memory = memory.unwrap_or(image.entry.memory);
        let settings = template::StoreSettings { quota: ByteSize(u64::MAX), reserve: ByteSize(0) };
        let store = TemplateStore::open(&self.bench.templates(), settings).expect("it can be used");
        let found = store.list().expect("it can be read").into_iter().find(|template| {
            template.facts.image == image.digest && template.facts.memory == memory
        });
        let key = found.expect("it was made").key;
        (image, store.find(&key).expect("it can be read").expect("it is whole"))
    }

    async fn clone(&self, (image, template): &(Arc<Image>, Arc<Template>)) -> Machine {
        let facts = template.facts();
        let spec = MachineSpec {
            cpus: facts.cpus,
            memory: facts.memory,
            origin: Origin::Clone(Arc::clone(template)),
            ..MachineSpec::of(Arc::clone(image), "bench")
        };
        Machine::start(&self.instance, spec).await.expect("a clone starts")
    }
}
