//! Whom the kernel kills when memory runs out: a step, not the program that runs it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where Linux keeps the likelihood of a process to be killed. Children inherit it.
const SCORE: &str = "/proc/self/oom_score_adj";

/// Much less likely than others, but not never: a program that leaks is still a candidate before
/// the kernel gives up.
const PROTECTED_SCORE: &str = "-900";

/// As likely as its memory makes it.
const ORDINARY_SCORE: &str = "0";

static PROTECTED: AtomicBool = AtomicBool::new(false);

/// Asks the kernel to kill others before this process, where it can be asked and this user may.
pub(crate) fn protect_this_process() {
    let protected = fs::write(SCORE, PROTECTED_SCORE).is_ok();
    PROTECTED.store(protected, Ordering::Relaxed);
}

/// Starts a process that does not inherit the protection of this one.
pub(super) fn without_protection<T>(start: impl FnOnce() -> T) -> T {
    if !PROTECTED.load(Ordering::Relaxed) {
        return start();
    }
    // Best effort, like the protection: neither can be repaired here.
    drop(fs::write(SCORE, ORDINARY_SCORE));
    let started = start();
    drop(fs::write(SCORE, PROTECTED_SCORE));
    started
}
