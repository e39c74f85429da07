//! `solstice config`: checking the settings, and an example of them.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;

use crate::cli::ConfigCommand;
use crate::exit::{CommandError, Exit};
use crate::message;
use crate::settings::{self, Entry, Section, Surroundings};
use crate::table::{print_json, print_text};

/// Checks the settings, or prints an example.
///
/// # Errors
/// The settings are wrong; all mistakes but the last are printed already.
pub(crate) fn config(
    command: &ConfigCommand,
    requested: Option<&Path>,
) -> Result<Exit, CommandError> {
    match command {
        ConfigCommand::Check { json } => check(requested, *json),
        ConfigCommand::Example => print_text(&example()),
    }
}

fn check(requested: Option<&Path>, as_json: bool) -> Result<Exit, CommandError> {
    let (settings, mut mistakes) = settings::load_all(&Surroundings::of_process(), requested)?;
    for warning in &settings.warnings {
        message::warning(warning);
    }
    if let Some(last) = mistakes.pop() {
        for mistake in &mistakes {
            message::error(mistake);
        }
        return Err(last);
    }
    let source = settings.source.as_ref().map(|path| path.display().to_string());
    if as_json {
        let row = |table: &str, entry: Entry| {
            let key = format!("{table}{}", entry.name);
            json!({ "key": key, "value": entry.value, "from": entry.origin })
        };
        let mut keys: Vec<_> = settings::entries(&settings).map(|entry| row("", entry)).collect();
        for Section { name, entries } in settings::sections(&settings) {
            let table = format!("{name}.");
            keys.extend(entries.into_iter().map(|entry| row(&table, entry)));
        }
        return print_json(&json!({ "file": source, "keys": keys }));
    }
    let mut text = match source {
        Some(source) => format!("# {source}\n"),
        None => "# no settings file\n".to_owned(),
    };
    text.extend(settings::entries(&settings).map(line));
    for Section { name, entries } in settings::sections(&settings) {
        text.extend(["\n[", &name, "]\n"]);
        text.extend(entries.into_iter().map(line));
    }
    print_text(&text)
}

/// A key with its value and its origin.
fn line(entry: Entry) -> String {
    let from = entry.origin.unwrap_or_else(|| "default".to_owned());
    match entry.value {
        Some(value) => format!("{} = {value}  # {from}\n", entry.name),
        None => format!("# {} is not set\n", entry.name),
    }
}

/// A file with every key, each commented out with its default.
fn example() -> String {
    let surroundings = Surroundings { user_id: 0, ..Surroundings::default() };
    let settings = settings::load(&surroundings, None);
    let mut text =
        "# Solstice. Every key with its default; docs/configuration.md says more.\n".to_owned();
    for entry in settings.iter().flat_map(settings::entries) {
        let value = match entry.name.as_ref() {
            // This host's own would surprise on another.
            "host_name" => "\"build-1\"".to_owned(),
            _ => entry.value.unwrap_or_else(|| placeholder(&entry.name).to_owned()),
        };
        writeln!(text, "\n# {}\n# {} = {value}", entry.about, entry.name)
            .expect("a text takes what is written to it");
    }
    for Section { name, entries } in settings::example_sections() {
        writeln!(text, "\n# [{name}]").expect("a text takes what is written to it");
        for entry in entries {
            let Entry { name, about, value, .. } = entry;
            writeln!(text, "# {name} = {}  # {about}", value.unwrap_or_default())
                .expect("a text takes what is written to it");
        }
    }
    text
}

/// What stands for a key that has no value by default.
fn placeholder(key: &str) -> &'static str {
    match key {
        "image_dir" => "\"/var/lib/solstice/images\"",
        "template_dir" => "\"/var/lib/solstice/templates\"",
        "fetch_dir" => "\"/var/lib/solstice/fetched\"",
        "cache_dir" => "\"/var/lib/solstice/caches\"",
        "actions_allow" => "[\"http://forge.lan:3000\"]",
        "catalogue" => "\"/etc/solstice/catalogue.toml\"",
        "qemu" => "\"qemu-system-x86_64\"",
        "qemu_img" => "\"qemu-img\"",
        "labels" => "[\"debian-12\", \"tiny\"]",
        "max_cpus" => "8",
        "max_memory" => "\"16G\"",
        "database" => "\"/var/lib/solstice/solstice.db\"",
        "database_password_file" => "\"/etc/solstice/database-password\"",
        "queue_password_file" => "\"/etc/solstice/queue-password\"",
        "seal_keys" => "[\"/var/lib/solstice/seal.key\"]",
        "socket" => "\"/run/solstice/solstice.sock\"",
        _ => "\"\"",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_example_is_a_settings_file_with_every_key() {
        let example = example();
        let keys: Vec<&str> = settings::key_names().collect();
        let line = |line: &&str| {
            line.starts_with("# ") && (line.contains(" = ") || line.starts_with("# ["))
        };
        let active: String = example
            .lines()
            .filter(line)
            .map(|line| format!("{}\n", line.trim_start_matches("# ")))
            .collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("solstice.toml");
        std::fs::write(&path, &active).unwrap();
        let surroundings = Surroundings { user_id: 0, ..Surroundings::default() };
        let read = settings::load(&surroundings, Some(&path)).unwrap();
        let given: Vec<&str> =
            keys.iter().copied().filter(|key| read.origins.contains_key(key)).collect();
        assert_eq!(given, keys, "{example}");
        let connections = read.forgejo.connections.values();
        let given: BTreeSet<&str> =
            connections.flat_map(|keys| keys.origins.keys().copied()).collect();
        assert_eq!(given, settings::connection_key_names().collect(), "{example}");
        assert_eq!(read.forgejo.labels["docker"], "debian-12");
    }
}
