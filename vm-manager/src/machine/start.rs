//! From a specification to a running machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::arguments::{CommandLine, SSH_PORT};
use super::body::Body;
use super::ended::EndedCell;
use super::launch::{connect, launch};
use super::qmp::{QmpError, forwarded_port};
use super::watcher::Watcher;
use super::{
    Birth, Console, Machine, MachineError, MachineSpec, Origin, Privileges, Restored, migration,
};
use crate::host::{
    Adoption, HostError, Instance, MachineName, MachinePaths, Need, Owned, Record, RecordedShape,
    check_reserve, write_private,
};
use crate::seed::Seed;

impl Machine {
    /// Starts a machine: checks the host's disk and memory, makes its files, starts QEMU and connects
    /// to its monitor. The guest boots from then on, or goes on where its template was frozen, as a
    /// machine of its own; [`Machine::wait_ready`] waits for it.
    ///
    /// # Errors
    ///
    /// [`MachineError`] names what is missing or failed; everything that was made is removed.
    pub async fn start(instance: &Arc<Instance>, spec: MachineSpec) -> Result<Self, MachineError> {
        if spec.origin.template().is_none() {
            let is_restored = spec.origin.is_restored();
            let machine = Self::set_up(instance, spec).await?;
            if is_restored {
                machine.resume().await?;
            }
            if machine.adoptable {
                machine.offer()?;
            }
            return Ok(machine);
        }
        let hostname = spec.hostname.clone();
        Restored::new(instance, spec).await?.become_own(&hostname).await
    }

    /// Starts QEMU and connects to its monitor. Where the machine begins with a template, it stands
    /// still.
    pub(super) async fn set_up(
        instance: &Arc<Instance>,
        spec: MachineSpec,
    ) -> Result<Self, MachineError> {
        spec.check()?;
        let begun = Instant::now();
        let settings = instance.settings();
        let (qemu, accelerator) = instance.qemu().await?;
        check_reserve(&settings.state, settings.disk_reserve)??;
        let MachineSpec { image, cpus, memory, hostname, privileges, promise, origin, adoptable } =
            spec;
        let promise = match promise {
            Some(promise) => promise,
            None => instance.reserve(&Need::whole(memory, cpus))?,
        };
        let vm = promise.vm();
        let name = MachineName { instance: instance.id(), vm };
        let paths = settings.machine(instance.id(), vm);
        let mut body = Body::create(name, paths.clone(), Owned::new(instance, vm), promise)?;
        let mut record = Record::new(vm, &image.entry.label);
        record.shape = Some(RecordedShape {
            image: image.digest.clone(),
            cpus,
            memory,
            acceleration: accelerator.acceleration,
            clone: origin.has_port(),
        });
        record.write(&paths.record())?;

        let keys = origin.keys()?;
        let seed = Seed {
            instance_id: vm.to_string(),
            hostname,
            user: image.entry.user.clone(),
            authorized_key: keys.login_public_line(),
            // A frozen machine has its seed already.
            host_key_private_openssh: keys.host_private_openssh().unwrap_or_default(),
        };
        origin.place(&image, &paths, &settings.qemu_img, &seed).await?;
        let console = Console::create(&paths.console(), privileges.uid)?;
        hand_over(&paths, &origin, &privileges)?;

        let acceleration = accelerator.acceleration;
        let (image, origin, paths_of) = (&*image, &origin, &paths);
        let line = CommandLine { name, image, acceleration, cpus, memory, origin, paths: paths_of };
        let files = begun.elapsed();
        let process = launch(qemu, &line.arguments()?, &paths, &privileges)?;
        let identity = process.identity();
        // From here on it ends with the body, whatever fails.
        body.set_process(process)?;
        record.process = Some(identity);
        record.write(&paths.record())?;
        let watched = body.second_hold().map_err(QmpError::from)?;

        let ended = Arc::new(EndedCell::new(console.clone(), settings.state.clone()));
        let qmp = {
            let ended = Arc::clone(&ended);
            connect(&watched, &paths, move |event| ended.observe(event)).await?
        };
        let qemu_took = begun.elapsed().saturating_sub(files);
        let mut birth = None;
        if let Some(template) = origin.template() {
            let restoring = Instant::now();
            migration::restore(&qmp, &template.device()).await.map_err(Box::new)?;
            let restore = restoring.elapsed();
            birth = Some(Birth { files, qemu: qemu_took, restore, ..Birth::default() });
        }
        if let Origin::Thawed(thaw) = origin {
            thaw.restore(&qmp, &paths.runtime).await.map_err(Box::new)?;
        }
        let port = forwarded_port(&qmp.human("info usernet").await?, SSH_PORT)
            .ok_or(QmpError::Incomplete { command: "info usernet", what: "forwarded port" })?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let accelerator = accelerator.clone();
        let (user, privilege) = (image.entry.user.clone(), image.entry.privilege.clone());
        let qmp = Arc::new(qmp);
        let watcher = Watcher { process: watched, qmp: Arc::clone(&qmp), ended, paths };
        let (ended, tasks) = watcher.spawn(&console);
        Ok(Self {
            name,
            user,
            privilege,
            address,
            keys,
            adoptable,
            birth,
            template: match origin {
                Origin::Clone(template) => Some(Arc::clone(template)),
                Origin::Boot | Origin::Mould { .. } | Origin::Thawed(_) => None,
            },
            accelerator,
            console,
            ended,
            qmp: Some(qmp),
            _tasks: tasks,
            body,
        })
    }
}

impl Machine {
    /// Writes down what another owner needs. Before anything of a job is in the guest: from then on
    /// this one may be killed.
    pub(super) fn offer(&self) -> Result<(), MachineError> {
        let paths = self.body.paths();
        write_private(&paths.login_key(), self.keys.login_private_openssh().as_bytes())?;
        let mut record = self.record()?;
        let (cpus, memory) = self.body.size().unwrap_or_default();
        record.adoption = Some(Adoption {
            address: self.address,
            user: self.user.clone(),
            privilege: self.privilege.clone(),
            host_key: self.keys.host_public_line(),
            cpus,
            memory,
            accelerator: self.accelerator.clone(),
        });
        record.write(&paths.record())?;
        Ok(())
    }

    /// What is written down about it.
    pub(super) fn record(&self) -> Result<Record, HostError> {
        let path = self.body.paths().record();
        let missing = || HostError::Record { path: path.clone(), reason: "it is not there".into() };
        Record::read(&path)?.ok_or_else(missing)
    }
}

/// Gives the files that QEMU writes to the user that it runs as, and lets that user through the
/// directories above them.
fn hand_over(
    paths: &MachinePaths,
    origin: &Origin,
    privileges: &Privileges,
) -> Result<(), HostError> {
    if privileges.uid.is_none() && privileges.gid.is_none() {
        return Ok(());
    }
    let mould = match origin {
        Origin::Mould { directory, .. } => Some(directory),
        Origin::Boot | Origin::Clone(_) | Origin::Thawed(_) => None,
    };
    let own = [&paths.state, &paths.runtime, &origin.overlay(paths), &paths.seed()];
    for path in own.into_iter().chain(mould) {
        std::os::unix::fs::chown(path, privileges.uid, privileges.gid)
            .map_err(HostError::io("change the owner of", path))?;
    }
    // machines/ and the instance in the state directory, the instance in the runtime directory.
    let above = paths.state.ancestors().skip(1).take(2).chain(paths.runtime.parent());
    for directory in above {
        let pass = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(directory, pass)
            .map_err(HostError::io("open the way through", directory))?;
    }
    Ok(())
}
