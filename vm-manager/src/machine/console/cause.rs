//! What a kernel says on the console when it ends.

/// What a guest's kernel said about its end, with the line in which it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleCause {
    /// It panicked.
    Panic(String),
    /// It ran out of memory and killed a process.
    OutOfMemory(String),
}

/// The causes seen so far.
#[derive(Debug, Default)]
pub(super) struct Causes {
    panic: Option<String>,
    memory: Option<String>,
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
