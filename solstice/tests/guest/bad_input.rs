//! Bad input that only a machine can show.

use crate::harness::steps;

#[test]
fn an_unknown_image_names_the_nearest() {
    steps("- run: echo never").with(&["--image", "tinny"]).run().code(64).shows("tiny");
}

#[test]
fn a_shell_that_is_missing_is_named() {
    steps("- shell: bash\n  run: echo never").run().code(1).shows("bash").hides("never\n");
}
