//! One program for all entry points; the variable `SOLSTICE_FUZZ` names one. See scripts/fuzz.sh.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use workflow_runner::fuzz;

static ENTRY: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("SOLSTICE_FUZZ").unwrap_or_default();
    fuzz::entry(&name).unwrap_or_else(|| panic!("SOLSTICE_FUZZ={name} names no entry"))
});

fuzz_target!(|bytes: &[u8]| ENTRY(bytes));
