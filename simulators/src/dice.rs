//! The moments at which tests break things.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The variable with the seed, for who wants to see the same moments again.
const SEED: &str = "SOLSTICE_CHAOS_SEED";

/// Where a test's moments come from: the seed of this run, which is printed.
///
/// # Panics
/// The variable is not a number.
#[must_use]
pub fn dice() -> StdRng {
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().unwrap_or_else(|_| panic!("{SEED} is {seed:?}, not a number")),
        Err(_) => rand::rng().random(),
    };
    println!("{SEED}={seed}");
    StdRng::seed_from_u64(seed)
}
