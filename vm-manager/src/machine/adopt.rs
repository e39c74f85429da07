//! From a machine without an owner to one that has one again.

use std::sync::Arc;
use std::time::Duration;

use common::ids::VmId;
use serde_json::Value;
use tokio::net::UnixStream;

use super::body::Body;
use super::ended::{Ended, EndedCell};
use super::launch::last_words;
use super::qmp::{COMMAND_DEADLINE, Qmp, QmpError};
use super::watcher::Watcher;
use super::{AdoptError, Console, Machine, status};
use crate::host::{
    Adoption, HostError, Instance, MachineName, MachinePaths, Owned, Process, Record,
    read_login_key,
};
use crate::ssh::Keys;

/// How long a QEMU whose monitor or command line is not there may take to be gone, before that counts
/// as a failure of its own.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// Of a name that is not the expected one, so much stands in the error.
const NAME_CHARACTERS: usize = 120;

impl Machine {
    /// Takes up a machine that an earlier owner of the instance [left](Machine::leave), or lost when
    /// it was killed. From then on it is like one that was [started](Machine::start): watched, its
    /// console followed, dropped means destroyed. What is still in its console is known, lines that
    /// nobody read as well.
    ///
    /// A machine that has ended meanwhile is taken up too: [`Machine::ended`] then says how at once,
    /// as far as its console tells, and dropping it removes its files. A guest that the earlier
    /// owner [paused](Machine::pause) goes on.
    ///
    /// # Errors
    ///
    /// [`AdoptError`] says what is missing. The machine is then left as it is.
    pub async fn adopt(instance: &Arc<Instance>, vm: VmId) -> Result<Self, AdoptError> {
        let owned = Owned::take(instance, vm).ok_or(AdoptError::Owned { vm })?;
        let settings = instance.settings();
        let name = MachineName { instance: instance.id(), vm };
        let paths = settings.machine(instance.id(), vm);
        let (record, adoption) = read_record(vm, &paths)?;
        let process = hold(vm, name, &record).await?;
        if process.is_none() && !paths.runtime.exists() {
            return Err(AdoptError::Gone { vm });
        }
        let keys = read_login_key(&paths.login_key(), &adoption.host_key)
            .map_err(|reason| AdoptError::LoginKey { vm, reason })?;
        let console = read_console(&paths).await?;
        let ended = Arc::new(EndedCell::new(console.clone(), settings.state.clone()));
        let running = match process {
            Some(process) => connect(name, process, &paths, &ended).await?,
            None => None,
        };
        let Some((process, qmp)) = running else {
            // Its memory is free already.
            instance.take_back(vm)?;
            ended.set(unseen_end(&console, &paths));
            let body = Body::adopt(name, paths, owned, None);
            instance.expect_nobody(vm);
            return Ok(Self::taken_up(body, name, keys, adoption, console, ended));
        };
        let watched = process.try_clone().map_err(|error| monitor(vm, error.into()))?;
        let promise = instance.take_over(vm, adoption.memory, adoption.cpus, process.identity())?;
        let body = Body::adopt(name, paths.clone(), owned, Some((process, promise)));
        instance.expect_nobody(vm);
        let qmp = Arc::new(qmp);
        let watcher = Watcher { process: watched, qmp: Arc::clone(&qmp), ended, paths };
        let (ended, tasks) = watcher.spawn(&console);
        let mut machine = Self::taken_up(body, name, keys, adoption, console, ended);
        machine.qmp = Some(qmp);
        machine._tasks = tasks;
        Ok(machine)
    }

    /// A machine that nobody watches yet.
    fn taken_up(
        body: Body,
        name: MachineName,
        keys: Keys,
        adoption: Adoption,
        console: Console,
        ended: Arc<EndedCell>,
    ) -> Self {
        let Adoption { address, user, privilege, accelerator, .. } = adoption;
        Self {
            name,
            user,
            privilege,
            address,
            keys,
            adoptable: true,
            birth: None,
            template: None,
            accelerator,
            console,
            ended,
            qmp: None,
            _tasks: Vec::new(),
            body,
        }
    }
}

/// What was written down about the machine, if it is one to be adopted.
fn read_record(vm: VmId, paths: &MachinePaths) -> Result<(Record, Adoption), AdoptError> {
    let path = paths.record();
    let Some(mut record) = Record::read(&path)? else {
        return Err(AdoptError::NoRecord { vm, path });
    };
    if let Some(keep) = record.keep {
        return Err(AdoptError::Kept { vm, name: keep.name });
    }
    let adoption = record.adoption.take().ok_or(AdoptError::NotAdoptable { vm })?;
    // The directory may be that of the user whom QEMU runs as: nobody leads us elsewhere.
    if !adoption.address.ip().is_loopback() {
        let reason = format!("the address {} is not on this host", adoption.address);
        return Err(HostError::Record { path, reason }.into());
    }
    Ok((record, adoption))
}

/// Holds on to the recorded process; `None` if it has ended.
async fn hold(vm: VmId, name: MachineName, record: &Record) -> Result<Option<Process>, AdoptError> {
    let identity = record.process.ok_or(AdoptError::NotAdoptable { vm })?;
    let proc = std::path::PathBuf::from(format!("/proc/{}", identity.pid));
    let opened = Process::open(identity).map_err(HostError::io("hold on to", &proc))?;
    let Some(process) = opened else { return Ok(None) };
    if process.machine_name().map_err(HostError::io("read", &proc))? == Some(name) {
        return Ok(Some(process));
    }
    // One that is just ending has no command line any more.
    if tokio::time::timeout(END_DEADLINE, process.ended()).await.is_ok() {
        return Ok(None);
    }
    let what = "has the command line of something else".to_owned();
    Err(AdoptError::OtherProcess { vm, pid: identity.pid, what })
}

/// Reads what is in the console: much may have been written that nobody has read.
async fn read_console(paths: &MachinePaths) -> Result<Console, AdoptError> {
    let path = paths.console();
    let read = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || Console::adopt(&path)).await
    };
    let read = read.map_err(|error| HostError::io("read", &path)(std::io::Error::other(error)))?;
    Ok(read?)
}

/// Connects to the monitor and finds out what happened while nobody listened; `None` if the process
/// ended meanwhile.
async fn connect(
    name: MachineName,
    process: Process,
    paths: &MachinePaths,
    ended: &Arc<EndedCell>,
) -> Result<Option<(Process, Qmp)>, AdoptError> {
    let error = match talk(name, process.identity().pid, paths, ended).await {
        Ok(qmp) => return Ok(Some((process, qmp))),
        Err(error) => error,
    };
    match tokio::time::timeout(END_DEADLINE, process.ended()).await {
        Ok(_) => Ok(None),
        Err(_) => Err(error),
    }
}

async fn talk(
    name: MachineName,
    pid: i32,
    paths: &MachinePaths,
    ended: &Arc<EndedCell>,
) -> Result<Qmp, AdoptError> {
    let failed = |error| monitor(name.vm, error);
    let stream = UnixStream::connect(paths.qmp()).await.map_err(|error| failed(error.into()))?;
    // The earlier owner's connection ended with it. Who else has one makes us wait for the greeting,
    // which has a deadline (vm-facts 7).
    let qmp = {
        let ended = Arc::clone(ended);
        Qmp::over(stream, move |event| ended.observe(event)).await.map_err(failed)?
    };
    let answer = qmp.execute("query-name", Value::Null, COMMAND_DEADLINE).await.map_err(failed)?;
    let told = answer.get("name").and_then(Value::as_str).unwrap_or_default();
    if told.parse::<MachineName>() != Ok(name) {
        let told: String = told.chars().take(NAME_CHARACTERS).collect();
        let what = format!("calls itself {told:?}");
        return Err(AdoptError::OtherProcess { vm: name.vm, pid, what });
    }
    catch_up(&qmp, paths, ended).await.map_err(failed)?;
    Ok(qmp)
}

/// Notes what the guest's state says about events that nobody heard.
async fn catch_up(qmp: &Qmp, paths: &MachinePaths, ended: &EndedCell) -> Result<(), QmpError> {
    let state = status::of(qmp).await?;
    match state.as_str() {
        "guest-panicked" => ended.set(Ended::Panicked),
        "io-error" => {
            let full = status::is_out_of_room(qmp).await?;
            ended.set(ended.disk_error("a read or write failed while nobody watched", full));
        }
        // QEMU is on its way out.
        "shutdown" => ended.set(unseen_end(ended.console(), paths)),
        // Whoever wanted it to stand still is gone.
        "paused" => drop(qmp.execute("cont", Value::Null, COMMAND_DEADLINE).await?),
        state if status::is_dead(state) => ended.set(status::stopped_for_good(state)),
        _ => {}
    }
    Ok(())
}

/// The end of a machine that nobody saw, as its console tells it.
fn unseen_end(console: &Console, paths: &MachinePaths) -> Ended {
    console.poll();
    Ended::told(console).unwrap_or_else(|| {
        let words = last_words(&paths.qemu_log());
        Ended::QemuGone { detail: format!("it ended while nobody watched: {words}") }
    })
}

fn monitor(vm: VmId, source: QmpError) -> AdoptError {
    AdoptError::Monitor { vm, source }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    use common::ids::InstanceId;
    use common::infrastructure::Cause;
    use common::size::ByteSize;
    use common::time::Timestamp;

    use super::*;
    use crate::host::fake::FakeMachine;
    use crate::host::{Acceleration, Accelerator, HostSettings, ProcessIdentity};

    /// A service with one machine whose "QEMU" is a shell.
    struct Setting {
        _directory: tempfile::TempDir,
        instance: Arc<Instance>,
        fake: FakeMachine,
    }

    impl Setting {
        fn new() -> Self {
            let directory = crate::host::fake::directory();
            let settings = HostSettings::below(directory.path());
            let instance = Instance::open_service(&settings, InstanceId::new()).unwrap();
            let fake = FakeMachine::run(&instance);
            let keys = Keys::generate().unwrap();
            fake.note(|record| {
                record.label = "test".to_owned();
                record.adoption = Some(Adoption {
                    address: ([127, 0, 0, 1], 2222).into(),
                    user: "root".to_owned(),
                    privilege: Vec::new(),
                    host_key: keys.host_public_line(),
                    cpus: 1,
                    memory: ByteSize(1 << 20),
                    accelerator: Accelerator { acceleration: Acceleration::Tcg, reason: None },
                });
            });
            std::fs::write(fake.paths.login_key(), keys.login_private_openssh()).unwrap();
            std::fs::write(fake.paths.console(), "[1.0] Linux version 6\n").unwrap();
            Self { _directory: directory, instance, fake }
        }

        fn name(&self) -> MachineName {
            MachineName { instance: self.instance.id(), vm: self.fake.vm }
        }

        /// A monitor that says that the machine has this name and state, and gives all commands
        /// that it was asked once it is left.
        fn monitor(&self, name: String, state: &'static str) -> std::thread::JoinHandle<String> {
            let listener = UnixListener::bind(self.fake.paths.qmp()).unwrap();
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let greeting = "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 10}}}}\n";
                stream.write_all(greeting.as_bytes()).unwrap();
                let mut asked = String::new();
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let Ok(line) = line else { break };
                    let command: Value = serde_json::from_str(&line).unwrap();
                    let answer = match command["execute"].as_str().unwrap() {
                        "query-name" => format!("{{\"name\": \"{name}\"}}"),
                        "query-status" => format!("{{\"status\": \"{state}\"}}"),
                        "query-block" => "[{\"io-status\": \"nospace\"}]".to_owned(),
                        _ => "{}".to_owned(),
                    };
                    let answer = format!("{{\"return\": {answer}, \"id\": {}}}\n", command["id"]);
                    asked.push_str(&line);
                    if stream.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
                asked
            })
        }

        async fn adopt(&self) -> Result<Machine, AdoptError> {
            Machine::adopt(&self.instance, self.fake.vm).await
        }

        /// Asserts that adoption fails and changes nothing.
        async fn refuses(&self, expected: &str) {
            let error = self.adopt().await.unwrap_err();
            let text = error.infrastructure().message;
            assert!(text.contains(expected), "{text} instead of {expected}");
            assert!(self.fake.runs() && self.fake.paths.record().exists());
            assert_eq!(self.instance.machines().unwrap().len(), 1);
            assert!(!self.instance.machines().unwrap()[0].owned);
        }
    }

    #[tokio::test]
    async fn what_happened_meanwhile_is_the_guests_state() {
        let check = async |state: &'static str, expected: &str, resumed: bool| {
            let mut setting = Setting::new();
            let asked = setting.monitor(setting.name().to_string(), state);
            let machine = setting.adopt().await.unwrap();
            assert!(setting.instance.machines().unwrap()[0].owned);
            assert_eq!(machine.address().port(), 2222);
            assert_eq!(machine.console().tail(1), ["[1.0] Linux version 6"]);
            let ended = machine.ended().borrow().clone();
            let found = ended.map_or_else(String::new, |ended| ended.to_string());
            assert!(
                found.starts_with(expected) && found.is_empty() == expected.is_empty(),
                "{found}"
            );
            let again = setting.adopt().await.unwrap_err();
            assert!(matches!(again, AdoptError::Owned { .. }), "{again}");
            machine.destroy().await;
            // Our end of the connection closes once the runtime comes to it.
            let asked = tokio::task::spawn_blocking(move || asked.join().unwrap()).await.unwrap();
            assert_eq!(asked.contains("\"cont\""), resumed, "{state}");
            assert!(setting.fake.was_ended());
            assert_eq!(setting.instance.machines().unwrap(), []);
        };
        check("running", "", false).await;
        check("paused", "", true).await;
        check("guest-panicked", "the guest's kernel panicked", false).await;
        check("io-error", "the machine's disk failed: a read or write failed", false).await;
        check("internal-error", "QEMU is gone: it stopped the guest for good", false).await;
        check("shutdown", "QEMU is gone: it ended while nobody watched", false).await;
    }

    #[tokio::test]
    async fn the_console_tells_how_a_machine_ended_that_is_gone() {
        let check = async |console: &str, expected: Cause| {
            let mut setting = Setting::new();
            std::fs::write(setting.fake.paths.console(), console).unwrap();
            let promise = setting.instance.take_over(
                setting.fake.vm,
                ByteSize(1),
                1,
                setting.fake.identity(),
            );
            promise.unwrap().leave();
            setting.fake.end();
            let machine = setting.adopt().await.unwrap();
            let ledger = std::fs::read(setting.instance.settings().ledger()).unwrap();
            assert_eq!(ledger, b"[]", "its memory is still promised");
            let ended = machine.ended().borrow().clone().unwrap();
            assert_eq!(machine.failure(&ended).cause, expected, "{console}");
            assert!(machine.pause().await.is_err() && machine.process_id().is_none());
            machine.stop().await;
            assert_eq!(setting.instance.machines().unwrap(), []);
        };
        check("", Cause::QemuKilled).await;
        check("[9.0] reboot: Power down\n", Cause::GuestPoweredOff).await;
        check("[9.0] reboot: Restarting system\n", Cause::GuestRebooted).await;
        let panic = "[9.0] Kernel panic - not syncing: x\n[9.1] reboot: Restarting system\n";
        check(panic, Cause::GuestPanic).await;
    }

    #[tokio::test]
    async fn the_room_of_an_adopted_machine_is_promised_once() {
        let setting = Setting::new();
        let _asked = setting.monitor(setting.name().to_string(), "running");
        let machine = setting.adopt().await.unwrap();
        let ledger = setting.instance.settings().ledger();
        let promised = || std::fs::read_to_string(&ledger).unwrap().matches("\"memory\"").count();
        assert_eq!(promised(), 1);
        machine.leave();
        assert_eq!(promised(), 1, "the machine runs on");
        assert!(setting.fake.runs());
        assert_eq!(setting.instance.maintain().unwrap(), [], "it is expected to be adopted");
        std::fs::remove_file(setting.fake.paths.qmp()).unwrap();
        let _asked = setting.monitor(setting.name().to_string(), "running");
        let machine = setting.adopt().await.unwrap();
        assert_eq!(promised(), 1);
        machine.destroy().await;
        assert_eq!(promised(), 0);
    }

    #[tokio::test]
    async fn a_machine_that_was_left_and_then_ends_waits_to_be_looked_at() {
        let mut setting = Setting::new();
        let _asked = setting.monitor(setting.name().to_string(), "running");
        setting.adopt().await.unwrap().leave();
        setting.fake.end();
        assert_eq!(setting.instance.maintain().unwrap(), []);
        let machine = setting.adopt().await.unwrap();
        assert!(machine.ended().borrow().is_some());
        machine.destroy().await;
        assert_eq!(setting.instance.machines().unwrap(), []);
    }

    #[tokio::test]
    async fn what_is_missing_is_named_and_the_machine_left() {
        let change = async |change: fn(&Setting), expected: &str| {
            let setting = Setting::new();
            change(&setting);
            setting.refuses(expected).await;
            assert!(setting.instance.destroy(setting.fake.vm).unwrap());
        };
        change(|setting| setting.fake.note(|record| record.adoption = None), "not started to be")
            .await;
        change(|setting| setting.fake.note(|record| record.process = None), "not started to be")
            .await;
        change(|setting| setting.fake.keep("r1", Timestamp::now()), "the name `r1`").await;
        let elsewhere = |setting: &Setting| {
            setting.fake.note(|record| {
                record.adoption.as_mut().unwrap().address = ([192, 0, 2, 1], 22).into();
            });
        };
        change(elsewhere, "192.0.2.1:22 is not on this host").await;
        let no_key = |setting: &Setting| {
            std::fs::remove_file(setting.fake.paths.login_key()).unwrap();
        };
        change(no_key, "login key").await;
        let no_console = |setting: &Setting| {
            std::fs::remove_file(setting.fake.paths.console()).unwrap();
        };
        change(no_console, "console.log").await;
        change(|_| {}, "does not talk to us").await;
        let other = |setting: &Setting| drop(setting.monitor("propolis".to_owned(), "running"));
        change(other, "calls itself \"propolis\"").await;
    }

    #[tokio::test]
    async fn another_process_with_the_recorded_number_is_not_ours() {
        let mut setting = Setting::new();
        let us = ProcessIdentity::of(std::process::id().cast_signed()).unwrap();
        setting.fake.note(|record| record.process = us);
        setting.refuses("the command line of something else").await;
        // One of the number that started at another time has ended, as ours has.
        setting
            .fake
            .note(|record| record.process = us.map(|us| ProcessIdentity { start: 1, ..us }));
        let machine = setting.adopt().await.unwrap();
        assert!(matches!(*machine.ended().borrow(), Some(Ended::QemuGone { .. })));
        drop(machine);
        setting.fake.end();

        let setting = Setting::new();
        let unknown = Machine::adopt(&setting.instance, VmId::new());
        assert!(matches!(unknown.await, Err(AdoptError::NoRecord { .. })));
        assert!(setting.instance.destroy(setting.fake.vm).unwrap());
    }

    #[tokio::test]
    async fn a_machine_that_went_with_its_host_is_gone() {
        let mut setting = Setting::new();
        setting.fake.end();
        std::fs::remove_dir_all(&setting.fake.paths.runtime).unwrap();
        let error = setting.adopt().await.unwrap_err();
        assert!(matches!(error, AdoptError::Gone { .. }), "{error}");
        assert_eq!(error.cause(), Cause::QemuKilled);
        assert!(setting.instance.destroy(setting.fake.vm).unwrap());
    }
}
