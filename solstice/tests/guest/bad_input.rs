//! Bad input that only a machine can show.

use crate::harness::steps;

#[test]
fn an_unknown_image_names_the_nearest() {
    steps("- run: echo never").with(&["--image", "tinny"]).run().code(64).shows("tiny");
}

#[test]
fn a_shell_that_is_missing_is_named() {
    steps("- shell: bash\n  run: printf '%s%s\\n' ne ver")
        .run()
        .code(1)
        .shows("bash")
        .hides("never");
}

#[test]
fn a_guest_that_never_boots_is_tried_twice_more_and_shows_its_console() {
    let catalogue = r#"
[tiny]
boot_ceiling = "20s"

[tiny.hardware]
kernel_command_line = "console=ttyS0 rdinit=/bin/sh"
"#;
    let ended = steps("- run: echo never")
        .file("images.toml", catalogue)
        .env("SOLSTICE_CATALOGUE", "images.toml")
        .run()
        .code(2)
        .shows_in_order(&["SOL-BOOT-TIMEOUT", "job control turned off", "Trying once more"])
        .shows_in_order(&["Trying once more", "SOL-BOOT-TIMEOUT"])
        .hides("never");
    assert_eq!(ended.text.matches("Trying once more").count(), 2, "{}", ended.text);
}
