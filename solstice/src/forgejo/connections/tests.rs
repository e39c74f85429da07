use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::time::Timestamp;

use super::*;
use crate::settings::{Surroundings, load};

const UUID: &str = "33834eef-e758-48c4-a676-1745426747aa";
const OTHER: &str = "f7fb6f55-7140-44b6-893a-37ceae0df435";
const TOKEN: &str = "hunter2";

/// A host with files in one directory, and a state directory of its own.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        self
    }

    fn stored(self, name: &str, uuid: &str, labels: &[&str]) -> Self {
        let stored = Stored {
            url: "https://example.org".to_owned(),
            uuid: uuid.to_owned(),
            token: Secret::new(TOKEN),
            name: "build-1".to_owned(),
            id: Some(7),
            registered: Timestamp::now(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            scope: None,
            ca_file: None,
            insecure: false,
        };
        identities(&self.settings("")).save(name, &stored).unwrap();
        self
    }

    fn settings(&self, text: &str) -> Settings {
        let path = self.directory.path().join("solstice.toml");
        fs::write(&path, format!("state_dir = \"state\"\n{text}")).unwrap();
        let surroundings = Surroundings { user_id: 0, ..Surroundings::default() };
        load(&surroundings, Some(&path)).unwrap()
    }

    fn known(&self, text: &str) -> Vec<Known> {
        known(&self.settings(text), 4).unwrap()
    }

    /// The only connection.
    fn one(&self, text: &str) -> (Connection, Vec<String>) {
        let mut known = self.known(text);
        assert_eq!(known.len(), 1, "{known:?}");
        let one = known.remove(0);
        (one.connection.unwrap(), one.warnings)
    }

    /// Why the first connection that cannot be used cannot, with what to do.
    fn refused(&self, text: &str) -> String {
        let known = self.known(text);
        assert!(!format!("{known:?}").contains(TOKEN));
        let error = known.into_iter().find_map(|one| one.connection.err()).unwrap();
        let text = format!("{error} | {}", error.advice().unwrap_or_default());
        text.replace(&self.directory.path().display().to_string(), "")
    }
}

fn labels(connection: &Connection) -> Vec<String> {
    connection.labels.iter().map(ToString::to_string).collect()
}

fn given(lines: &str) -> String {
    format!(
        "[forgejo.home]\nurl = \"https://example.org/git/\"\nuuid = \"{UUID}\"\n\
             token_file = \"token\"\n{lines}"
    )
}

fn config(connections: &str) -> String {
    format!(
        "runner:\n  capacity: 3\n  insecure: true\n  fetch_timeout: 5s\n  fetch_interval: 9s\n  \
             shutdown_timeout: 1m\n  report_interval: 2s\n  labels: [docker:docker://node:22]\n\
             server:\n  connections:\n{connections}"
    )
}

fn of_config(name: &str, uuid: &str) -> String {
    format!(
        "    {name}:\n      url: https://{name}.example.org/\n      uuid: {uuid}\n      \
             token: {TOKEN}\n"
    )
}

fn runner_file() -> String {
    serde_json::json!({
        "id": 1, "uuid": UUID, "token": TOKEN, "name": "x", "address": "http://forgejo:3000/",
        "labels": ["docker:docker://node:22", "debian-12:host", "big:vm://debian-12?cpus=8"],
    })
    .to_string()
}

#[test]
fn without_connections_there_is_no_daemon() {
    let host = Host::new();
    assert!(runner_settings(&host.settings(""), 4).unwrap().is_none());
}

#[test]
fn a_connection_of_the_settings_has_defaults() {
    let host = Host::new().file("token", "hunter2\n");
    let (connection, warnings) = host.one(&given(""));
    assert_eq!(connection.url.as_str(), "https://example.org/git");
    assert_eq!((connection.uuid.as_str(), connection.token.expose()), (UUID, TOKEN));
    assert_eq!((connection.capacity, connection.fetch_interval), (4, FETCH_INTERVAL));
    assert_eq!((connection.fetch_timeout, connection.trust), (FETCH_TIMEOUT, Trust::Host));
    let names: Vec<&str> = connection.labels.iter().map(|label| label.name.as_str()).collect();
    assert!(names.contains(&"debian-12") && names.contains(&"debian-bookworm"), "{names:?}");
    assert_eq!(warnings, Vec::<String>::new());
    let (settings, _) = runner_settings(&host.settings(&given("")), 4).unwrap().unwrap();
    assert_eq!((settings.report_interval, settings.shutdown), (REPORT_INTERVAL, SHUTDOWN));
    assert_eq!(settings.state, host.directory.path().join("state/forgejo"));

    let (connection, _) = host.one(&format!("labels = [\"tiny\"]\n{}", given("")));
    assert_eq!(labels(&connection), ["tiny"]);
}

#[test]
fn a_connection_has_what_the_settings_say() {
    let host = Host::new().file("token", TOKEN).file("ca.pem", "");
    let (connection, _) = host.one(&given(
        "labels = [\"debian-12\", \"big:vm://debian-12?cpus=8&memory=16G\"]\ncapacity = 2\n\
         fetch_interval = \"7s\"\nfetch_timeout = \"1m\"\nca_file = \"ca.pem\"\n",
    ));
    assert_eq!(labels(&connection), ["debian-12", "big:vm://debian-12?cpus=8&memory=16G"]);
    assert_eq!((connection.capacity, connection.fetch_interval.as_secs()), (2, 7));
    assert_eq!(connection.fetch_timeout.as_secs(), 60);
    assert_eq!(connection.trust, Trust::Also(host.directory.path().join("ca.pem")));
    let (connection, _) = host.one(&given("insecure = true\n"));
    assert_eq!(connection.trust, Trust::Any);
}

#[test]
fn codeberg_is_not_asked_too_often() {
    let host = Host::new().file("token", TOKEN);
    let at = |lines: &str| host.one(&given(lines).replace("example.org", "codeberg.org"));
    let (connection, warnings) = at("");
    assert_eq!((connection.fetch_interval, warnings.len()), (CODEBERG_INTERVAL, 0));
    let (connection, warnings) = at("fetch_interval = \"2s\"\n");
    assert_eq!(connection.fetch_interval, CODEBERG_INTERVAL);
    let warning = "forgejo.home: the fetch_interval of Codeberg is 30s at least, and not 2s";
    assert_eq!(warnings, [warning]);
    let (connection, _) = at("fetch_interval = \"1m\"\n");
    assert_eq!(connection.fetch_interval.as_secs(), 60);
}

#[test]
fn a_stored_identity_takes_what_the_settings_add() {
    let host = Host::new().stored("home", UUID, &["tiny"]);
    let (connection, _) = host.one("");
    assert_eq!((connection.uuid.as_str(), connection.url.as_str()), (UUID, "https://example.org/"));
    assert_eq!(labels(&connection), ["tiny"]);
    let (connection, _) = host.one("[forgejo.home]\ncapacity = 7\nlabels = [\"debian-12\"]\n");
    assert_eq!((labels(&connection), connection.capacity), (vec!["debian-12".to_owned()], 7));
    let (connection, _) = host.one("[forgejo.home]\nurl = \"https://other.example.org\"\n");
    assert_eq!(connection.url.as_str(), "https://other.example.org/");
}

#[test]
fn a_runner_file_is_taken_over() {
    let host = Host::new().file(".runner", &runner_file());
    let table = "[forgejo.home]\nrunner_file = \".runner\"\n";
    let (connection, warnings) = host.one(table);
    assert_eq!((connection.uuid.as_str(), connection.url.as_str()), (UUID, "http://forgejo:3000/"));
    assert_eq!(labels(&connection), ["big:vm://debian-12?cpus=8"]);
    let file = host.directory.path().join(".runner");
    let of = format!("of {} is not offered; to offer it, add to solstice.toml:", file.display());
    assert_eq!(
        warnings,
        [
            format!(
                "the label \"docker\" (docker://node:22) {of} [forgejo_labels] docker = \"IMAGE\""
            ),
            format!(
                "the label \"debian-12\" (host) {of} [forgejo_labels] debian-12 = \"debian-12\""
            ),
        ]
    );
    let mapped =
        format!("{table}url = \"https://example.org\"\n[forgejo_labels]\ndocker = \"tiny\"\n");
    let (connection, warnings) = host.one(&mapped);
    assert_eq!(connection.url.as_str(), "https://example.org/");
    assert_eq!(labels(&connection), ["docker:vm://tiny", "big:vm://debian-12?cpus=8"]);
    assert_eq!(warnings.len(), 1);
    let (connection, warnings) = host.one(&format!("{table}labels = [\"tiny\"]\n"));
    assert_eq!((labels(&connection), warnings.len()), (vec!["tiny".to_owned()], 0));
}

#[test]
fn the_settings_of_forgejo_runner_are_taken_over() {
    let connections = of_config("one", UUID) + &of_config("Two.B", OTHER);
    let host = Host::new().file("config.yml", &config(&connections));
    let map = "[forgejo_labels]\ndocker = \"debian-12\"\n";
    let table = format!("[forgejo.moved]\nrunner_config = \"config.yml\"\n{map}");
    let known = host.known(&table);
    let names: Vec<&str> = known.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["moved-one", "moved-two-b"]);
    for one in &known {
        let connection = one.connection.as_ref().unwrap();
        assert_eq!(labels(connection), ["docker:vm://debian-12"]);
        assert_eq!((connection.capacity, connection.fetch_interval.as_secs()), (3, 9));
        assert_eq!((connection.fetch_timeout.as_secs(), &connection.trust), (5, &Trust::Any));
    }
    let (settings, _) = runner_settings(&host.settings(&table), 4).unwrap().unwrap();
    assert_eq!((settings.report_interval.as_secs(), settings.shutdown.as_secs()), (2, 60));
    let ours = format!(
        "forgejo_shutdown = \"5m\"\n{}",
        table.replace("[forgejo_l", "capacity = 1\ninsecure = false\n[forgejo_l")
    );
    let (settings, _) = runner_settings(&host.settings(&ours), 4).unwrap().unwrap();
    assert_eq!((settings.report_interval.as_secs(), settings.shutdown.as_secs()), (2, 300));
    let connection = &settings.connections[0];
    assert_eq!((connection.capacity, &connection.trust), (1, &Trust::Host));

    let host = Host::new().file("config.yml", &config(&of_config("one", UUID)));
    assert_eq!(host.known(&table)[0].name, "moved");
}

#[test]
fn settings_without_connections_lead_to_the_runner_file() {
    let host = Host::new().file("config.yml", &config("")).file(".runner", &runner_file());
    let table = "[forgejo.home]\nrunner_config = \"config.yml\"\n";
    // Labels of the settings take the place of those of the file.
    let refused = host.refused(table);
    assert!(refused.starts_with("forgejo.home would offer no label of /config.yml | the label"));
    let (connection, _) = host.one(&format!("{table}[forgejo_labels]\ndocker = \"tiny\"\n"));
    assert_eq!(labels(&connection), ["docker:vm://tiny"]);
    assert_eq!((connection.uuid.as_str(), connection.capacity), (UUID, 3));
    let host = Host::new().file("config.yml", "runner:\n  file: other\n");
    let refused = host.refused(table);
    assert!(refused.starts_with("cannot read the runner file /other: No such file"), "{refused}");
}

#[test]
fn what_cannot_be_used_is_said_with_what_to_do() {
    let host = Host::new()
        .file("token", TOKEN)
        .file("bad", "{")
        .file("bad.yml", "server: [")
        .stored("home", OTHER, &["debian-21"]);
    let check = |text: &str, expected: &str, advice: &str| {
        let refused = host.refused(text);
        assert!(refused.starts_with(expected) && refused.contains(advice), "{refused}");
    };
    check("", "forgejo.home.labels: no image has the label \"debian-21\"", "solstice image list");
    let away = given("").replace("home", "away");
    check(&away.replace("\"token\"", "\"none\""), "cannot use the token file /none", "chmod 600");
    let known = host.known(&away);
    assert!(known[0].connection.is_ok(), "{known:?}");
    let labels = |labels: &str| away.replace("uuid", &format!("labels = [\"{labels}\"]\nuuid"));
    check(
        &labels("debian-21"),
        "/solstice.toml:4:1: forgejo.away.labels: no image",
        "did you mean",
    );
    check(
        &labels("a:vm://tiny?cpus=65"),
        "/solstice.toml:4:1: forgejo.away.labels: \"a\"",
        "at most 64",
    );
    check(
        &format!("{away}ca_file = \"none\"\n"),
        "forgejo.away: cannot read the certificates /none",
        "",
    );
    check(
        "[forgejo.a]\ncapacity = 1\n",
        "/solstice.toml:2:10: forgejo.a has no identity",
        "--connection a",
    );
    check("[forgejo.a]\nrunner_file = \"bad\"\n", "/bad:1:1: this is no runner file", "register");
    check("[forgejo.a]\nrunner_config = \"bad.yml\"\n", "/bad.yml:1:", "correct it");
    let twice = format!("{}\n{}", away, away.replace("away", "b").replace(UUID, OTHER));
    let known = host.known(&twice.replace("/git/", ""));
    let error = known.into_iter().rev().find_map(|one| one.connection.err()).unwrap();
    assert!(error.to_string().contains("no image has the label"), "{error}");
    check(&given(""), "forgejo.home has two identities", "solstice forgejo unregister home");
    let path = identities(&host.settings("")).path("home");
    fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    check("", "the identity in /state/forgejo/home.json cannot be used: others", "chmod 600");
}

#[test]
fn two_connections_with_one_identity_are_refused() {
    let host = Host::new()
        .file("token", TOKEN)
        .file("config.yml", &config(&of_config("one", UUID)))
        .stored("away", UUID, &["tiny"]);
    let same = given("").replace("/git/", "");
    let expected =
        "forgejo.home: forgejo.away has the same identity | two runners with one identity";
    assert!(host.refused(&same).starts_with(expected), "{}", host.refused(&same));
    // The same id on another instance is another runner.
    assert!(host.known(&given("")).iter().all(|one| one.connection.is_ok()));
    // Nothing starts while one of them cannot be used.
    assert!(runner_settings(&host.settings(&same), 4).is_err());
}

#[test]
fn a_label_that_this_host_does_not_offer_is_warned_of() {
    let host = Host::new().file("token", TOKEN);
    let text = format!("labels = [\"tiny\"]\n{}", given("labels = [\"a:vm://debian-bookworm\"]\n"));
    let (_, warnings) = host.one(&text);
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("`labels` of this one does not have \"debian-12\""),
        "{warnings:?}"
    );
}
