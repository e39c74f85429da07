//! The two documents on the seed disk.

use zeroize::Zeroizing;

use super::{Seed, SeedError};
use crate::ssh::{parse_private, parse_public, private_file, public_line};

/// The instance and its name. The tiny guest takes the name with
/// `sed -n 's/^local-hostname: *//p'`.
pub(super) fn meta_data(seed: &Seed) -> Result<String, SeedError> {
    check(
        "instance id",
        &seed.instance_id,
        "1 to 64 letters, digits, dots, dashes and underscores",
        |text| {
            text.len() <= 64
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        },
    )?;
    check_host_name(&seed.hostname)?;
    Ok(format!("instance-id: {}\nlocal-hostname: {}\n", seed.instance_id, seed.hostname))
}

/// The cloud configuration.
///
/// Its shape is bound by the tiny guest, which reads it with two `sed` commands: each authorised key
/// is a list item of its own line, unquoted, and the host key is a literal block. Names and keys are
/// checked or written anew from what was parsed, so no value can break out of its line.
pub(super) fn user_data(seed: &Seed) -> Result<Zeroizing<String>, SeedError> {
    check_host_name(&seed.hostname)?;
    check(
        "user",
        &seed.user,
        "1 to 32 lower-case letters, digits, dashes and underscores",
        |text| {
            text.len() <= 32
                && text.bytes().all(|byte| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte)
                })
        },
    )?;
    let login = public_line(&parse_public("login key", &seed.authorized_key)?);
    let host = parse_private("host key", &seed.host_key_private_openssh)?;
    let host_public = public_line(host.public_key());
    let host_file = private_file(&host);

    let host_block = Zeroizing::new(host_file.trim_end().replace('\n', "\n    "));
    let hostname = &seed.hostname;
    let default_user = if seed.user == "root" { "" } else { "  - default\n" };
    // `manage_etc_hosts`: without its name in /etc/hosts sudo complains at every call.
    // `ssh_genkeytypes`: making the other host keys takes seconds in an emulated guest.
    // `ssh_authorized_keys`: for root and for the image's own user. Readers that know only the list
    // of users find root there; locking its password would lock the whole account on FreeBSD.
    Ok(Zeroizing::new(format!(
        "#cloud-config\n\
         hostname: {hostname}\n\
         manage_etc_hosts: localhost\n\
         ssh_deletekeys: true\n\
         ssh_genkeytypes: []\n\
         ssh_keys:\n\
         \x20 ed25519_private: |\n\
         \x20   {host_block}\n\
         \x20 ed25519_public: {host_public}\n\
         disable_root: false\n\
         ssh_pwauth: false\n\
         ssh_authorized_keys:\n\
         \x20 - {login}\n\
         users:\n\
         {default_user}\
         \x20 - name: root\n\
         \x20   lock_passwd: false\n\
         \x20   ssh_authorized_keys:\n\
         \x20     - {login}\n\
         package_update: false\n\
         package_upgrade: false\n",
        host_block = &*host_block,
    )))
}

fn check_host_name(name: &str) -> Result<(), SeedError> {
    let rule = "1 to 63 lower-case letters, digits and dashes, no dash at either end";
    check("host name", name, rule, |text| {
        text.len() <= 63
            && !text.starts_with('-')
            && !text.ends_with('-')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    })
}

fn check(
    field: &'static str,
    value: &str,
    rule: &'static str,
    is_valid: impl FnOnce(&str) -> bool,
) -> Result<(), SeedError> {
    if !value.is_empty() && is_valid(value) {
        return Ok(());
    }
    Err(SeedError::Name { field, value: value.escape_default().take(100).collect(), rule })
}
