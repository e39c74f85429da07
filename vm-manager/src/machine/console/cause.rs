//! What a kernel says on the console when it ends.

/// What a guest's kernel said about its end, with the line in which it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleCause {
    /// It panicked.
    Panic(String),
    /// It ran out of memory and killed a process.
    OutOfMemory(String),
}

/// What a guest's kernel says just before it ends the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::machine) enum Farewell {
    /// It switches the power off.
    PowerOff,
    /// It starts again.
    Restart,
}

/// The causes seen so far.
#[derive(Debug, Default)]
pub(super) struct Causes {
    panic: Option<String>,
    memory: Option<String>,
    farewell: Option<Farewell>,
}

impl Causes {
    /// Takes note of one clean line.
    pub(super) fn look_at(&mut self, line: &str) {
        let message = without_time(line);
        // The first panic is the cause, later ones follow from it; of out-of-memory messages the
        // last one names the process that mattered.
        if self.panic.is_none() && is_panic(message) {
            self.panic = Some(message.to_owned());
        } else if is_out_of_memory(message) {
            self.memory = Some(message.to_owned());
        }
        self.farewell = farewell(message).or(self.farewell);
    }

    pub(super) fn farewell(&self) -> Option<Farewell> {
        self.farewell
    }

    pub(super) fn found(&self) -> Option<ConsoleCause> {
        let panic = self.panic.clone().map(ConsoleCause::Panic);
        panic.or_else(|| self.memory.clone().map(ConsoleCause::OutOfMemory))
    }
}

/// Linux writes its time in front of a message: `[    1.234567] text`.
fn without_time(line: &str) -> &str {
    let rest = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match rest {
        Some((time, message)) if time.chars().all(|c| c.is_ascii_digit() || " .".contains(c)) => {
            message
        }
        _ => line,
    }
}

/// Linux; the BSDs (`panic: ...`, OpenBSD's debugger prompt); illumos (`panic[cpu0]/thread=...`).
fn is_panic(message: &str) -> bool {
    message.starts_with("Kernel panic - not syncing")
        || message.starts_with("panic: ")
        || message.starts_with("panic[cpu")
        || message.starts_with("ddb{0}>")
}

/// Linux (`kernel/reboot.c`); the BSDs and illumos.
fn farewell(message: &str) -> Option<Farewell> {
    match message {
        "reboot: Power down"
        | "reboot: System halted"
        | "acpi0: Powering system off"
        | "The operating system has halted."
        | "Attempting to power down..." => Some(Farewell::PowerOff),
        "reboot: Restarting system" | "Rebooting..." | "rebooting..." => Some(Farewell::Restart),
        _ => None,
    }
}

/// Linux, then FreeBSD. A control group of the job's own that reached its limit is the job's own
/// affair.
fn is_out_of_memory(message: &str) -> bool {
    message.starts_with("Out of memory: Kill")
        || message.contains("was killed: failed to reclaim memory")
        || message.contains("was killed: out of swap space")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_say_farewell() {
        let check = |lines: &[&str], expected: Option<Farewell>| {
            let mut causes = Causes::default();
            lines.iter().for_each(|line| causes.look_at(line));
            assert_eq!(causes.farewell(), expected, "{lines:?}");
        };
        check(&["login:"], None);
        check(&["[   12.345678] reboot: Power down"], Some(Farewell::PowerOff));
        check(&["[9.0] reboot: Restarting system", "x"], Some(Farewell::Restart));
        check(&["echo reboot: Power down"], None);
        check(&["rebooting...", "acpi0: Powering system off"], Some(Farewell::PowerOff));
    }

    #[test]
    fn kernels_name_their_end() {
        let check = |lines: &[&str], expected: Option<&str>| {
            let mut causes = Causes::default();
            lines.iter().for_each(|line| causes.look_at(line));
            let found = causes.found().map(|cause| match cause {
                ConsoleCause::Panic(line) => format!("panic: {line}"),
                ConsoleCause::OutOfMemory(line) => format!("memory: {line}"),
            });
            assert_eq!(found.as_deref(), expected, "{lines:?}");
        };
        check(&["[    1.2] all is well", "login:"], None);
        check(
            &["[   12.345678] Kernel panic - not syncing: Attempted to kill init!"],
            Some("panic: Kernel panic - not syncing: Attempted to kill init!"),
        );
        check(
            &["panic[cpu0]/thread=fffffffffbc4e0c0:"],
            Some("panic: panic[cpu0]/thread=fffffffffbc4e0c0:"),
        );
        check(
            &[
                "[9.0] Out of memory: Killed process 5 (a)",
                "[9.1] Out of memory: Killed process 6 (b)",
            ],
            Some("memory: Out of memory: Killed process 6 (b)"),
        );
        check(
            &[
                "[9.0] Out of memory: Killed process 1 (init)",
                "[9.1] Kernel panic - not syncing: x",
            ],
            Some("panic: Kernel panic - not syncing: x"),
        );
        check(&["[9.0] Memory cgroup out of memory: Killed process 6 (b)"], None);
        check(&["echo Kernel panic - not syncing"], None);
        check(
            &["pid 7 (cc), was killed: failed to reclaim memory"],
            Some("memory: pid 7 (cc), was killed: failed to reclaim memory"),
        );
    }
}
