use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

fn surroundings(directory: &Path, variables: &[(&str, &str)]) -> Surroundings {
    Surroundings {
        variables: variables.iter().map(|(k, v)| ((*k).to_owned(), v.into())).collect(),
        user_id: 1000,
        directory: directory.to_path_buf(),
        program_directory: Some(PathBuf::from("/opt/solstice/bin")),
    }
}

/// Settings from a file with this text in an empty working directory.
fn with_file(text: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("solstice.toml"), text).unwrap();
    let mut all = vec![("HOME", "/home/alex")];
    all.extend(variables);
    let root = directory.path().display().to_string();
    load(&surroundings(directory.path(), &all), None).map_err(|error| {
        let hint = error.advice().map(|hint| format!(" | {hint}")).unwrap_or_default();
        format!("{error}{hint}").replace(&root, "")
    })
}

fn refused(text: &str, message: &str) {
    assert_eq!(with_file(text, &[]).expect_err(text), message, "{text}");
}

#[test]
fn a_user_and_root_have_their_own_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let mut at = surroundings(directory.path(), &[("HOME", "/home/alex")]);
    let user = load(&at, None).unwrap();
    assert_eq!(user.state_dir, Path::new("/home/alex/.local/state/solstice"));
    assert_eq!(user.runtime_dir, Path::new("/dev/shm/solstice-1000"));
    assert_eq!(user.disk_reserve, "2G".parse().unwrap());
    let programs = ["/opt/solstice/bin", "/opt/solstice/guest", "/opt/solstice/lib/solstice"];
    assert_eq!(user.guest_programs, programs.map(PathBuf::from));

    at.variables.insert("XDG_STATE_HOME".into(), "/state".into());
    at.variables.insert("XDG_RUNTIME_DIR".into(), "/run/user/1000".into());
    let user = load(&at, None).unwrap();
    assert_eq!(user.state_dir, Path::new("/state/solstice"));
    assert_eq!(user.runtime_dir, Path::new("/run/user/1000/solstice"));

    at.user_id = 0;
    let root = load(&at, None).unwrap();
    assert_eq!(root.state_dir, Path::new("/var/lib/solstice"));
    assert_eq!(root.runtime_dir, Path::new("/run/solstice"));
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
    let text = "disk_reserve = \"512M\"\nacceleration = \"kvm\"\nqemu = \"qemu-test\"\n\
                guest_programs = [\"/a\", \"/b\"]\n";
    let settings =
        with_file(text, &[("SOLSTICE_ACCELERATION", "tcg"), ("SOLSTICE_QEMU_IMG", "")]).unwrap();
    assert_eq!(settings.disk_reserve, "512M".parse().unwrap());
    assert_eq!(settings.acceleration, Acceleration::Tcg);
    assert_eq!(settings.qemu, Some("qemu-test".into()));
    assert_eq!(settings.qemu_img, None);
    assert_eq!(settings.guest_programs, ["/a", "/b"].map(PathBuf::from));
    assert!(settings.source.is_some());
}

#[test]
fn every_key_can_be_set_by_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    for key in KEYS {
        let value = match key.name {
            "disk_reserve" | "max_memory" | "keep_events_size" | "template_quota"
            | "fetch_quota" | "cache_quota" => "1G",
            "actions_github" | "actions_forgejo" | "actions_gitea" | "actions_allow" => {
                "https://forge.example"
            }
            "actions_commits" => "never",
            "acceleration" => "tcg",
            "labels" | "host_name" | "queue_prefix" => "other",
            "max_cpus" | "keep_events_days" => "3",
            "queue" => "amqp://broker",
            "metrics_listen" => "off",
            "forgejo_report_interval" | "forgejo_shutdown" => "7s",
            "freeze_failed" => "7d",
            _ => "/somewhere",
        };
        let variable = key.variable();
        let plain = load(&surroundings(directory.path(), &[("HOME", "/h")]), None).unwrap();
        let set = surroundings(directory.path(), &[("HOME", "/h"), (&variable, value)]);
        assert_ne!(load(&set, None).unwrap(), plain, "{variable}");
    }
}

#[test]
fn relative_paths_start_at_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sub/my.toml");
    std::fs::create_dir(directory.path().join("sub")).unwrap();
    std::fs::write(&path, "state_dir = \"state\"\ndisk_reserve = 1024\n").unwrap();
    let at = surroundings(directory.path(), &[("HOME", "/h")]);
    let settings = load(&at, Some(Path::new("sub/my.toml"))).unwrap();
    assert_eq!(settings.state_dir, directory.path().join("sub/state"));
    assert_eq!(settings.disk_reserve, ByteSize(1024));
}

#[test]
fn mistakes_are_named_with_their_place() {
    refused(
        "\nstate_dri = \"/x\"\n",
        "/solstice.toml:2:1: unknown key \"state_dri\" | did you mean \"state_dir\"?",
    );
    for (name, meant) in [
        ("qeue", "queue"),
        ("qeueu", "queue"),
        ("qmeu", "qemu"),
        ("qemuimg", "qemu_img"),
        ("sokcet", "socket"),
        ("max_cpu", "max_cpus"),
        ("max_mem", "max_memory"),
        ("metrics", "metrics_listen"),
    ] {
        refused(
            &format!("{name} = 1\n"),
            &format!("/solstice.toml:1:1: unknown key \"{name}\" | did you mean \"{meant}\"?"),
        );
    }
    let keys: Vec<&str> = key_names().chain(TABLES).collect();
    let unknown = "/solstice.toml:1:1: unknown key \"zzz\" | the keys are ";
    refused("zzz = 1\n", &format!("{unknown}{}", keys.join(", ")));
    refused(
        "database = \"postgres://solstice:secret@db/solstice\"\n",
        "/solstice.toml:1:1: database: a password does not belong here; write it into a file and \
         name that file in `database_password_file`",
    );
    refused(
        "queue = \"redis://x\"\n",
        "/solstice.toml:1:1: queue: write embedded, or an URL that begins with amqp:// or amqps://",
    );
    refused("max_cpus = 0\n", "/solstice.toml:1:1: max_cpus: expected a number from 1 to 100000");
    for (value, found) in [
        ("-1", "a negative number"),
        ("99999999999999999999", "a number that is too large"),
        ("1.5", "a number with a fraction"),
        ("[1]", "a list with something that is not a text"),
    ] {
        for (key, most) in [("max_cpus", 100_000), ("keep_events_days", 36_500)] {
            refused(
                &format!("{key} = {value}\n"),
                &format!(
                    "/solstice.toml:1:1: {key}: expected a number from 1 to {most}, found {found}"
                ),
            );
        }
    }
    refused("labels = [\"../x\"]\n", "/solstice.toml:1:1: labels: \"../x\" cannot be a label");
    refused(
        "metrics_listen = \"9464\"\n",
        "/solstice.toml:1:1: metrics_listen: \"9464\" is not an address with a port, such as \
         127.0.0.1:9464, or off",
    );
    refused(
        "disk_reserve = \"much\"\n",
        "/solstice.toml:1:1: disk_reserve: \"much\" is not a size; write a number with an optional K, M, G or T, such as 512M or 2G",
    );
    refused(
        "disk_reserve = -1\n",
        "/solstice.toml:1:1: disk_reserve: expected a number with an optional K, M, G or T, such as 512M or 2G, \
         found a negative number",
    );
    refused(
        "qemu = [1]\n",
        "/solstice.toml:1:1: qemu: expected a text, found a list with something that is not a text",
    );
    refused(
        "acceleration = \"fast\"\n",
        "/solstice.toml:1:1: acceleration: \"fast\" is not auto, kvm or tcg",
    );
    refused("state_dir = \"\"\n", "/solstice.toml:1:1: state_dir: the value is empty");
    let error = with_file("a = = 1\n", &[]).unwrap_err();
    assert!(error.starts_with("/solstice.toml:1:5: "), "{error}");
}

#[test]
fn a_file_that_was_asked_for_must_exist() {
    let directory = tempfile::tempdir().unwrap();
    let at = surroundings(directory.path(), &[("HOME", "/h")]);
    let error = load(&at, Some(Path::new("none.toml"))).unwrap_err();
    assert!(error.to_string().contains("none.toml: No such file"), "{error}");
}

#[test]
fn a_variable_that_is_nearly_right_is_pointed_out() {
    let directory = tempfile::tempdir().unwrap();
    let at = surroundings(directory.path(), &[("HOME", "/h"), ("SOLSTICE_STATEDIR", "/x")]);
    let settings = load(&at, None).unwrap();
    assert_eq!(
        settings.warnings,
        ["SOLSTICE_STATEDIR has no effect; did you mean SOLSTICE_STATE_DIR?"]
    );
}

/// What docs/configuration.md says of a key in the lines that every key has there.
struct Described {
    name: &'static str,
    variable: &'static str,
    /// What is written: `a path`.
    kind: &'static str,
    default: &'static str,
}

impl Described {
    /// The default where the page gives a value and not a sentence; `plain` has the directories.
    fn value(&self, plain: &Settings) -> Option<String> {
        match self.default.split('`').collect::<Vec<_>>().as_slice() {
            ["", value, " in ", directory, ..] => {
                let directory = match *directory {
                    "state_dir" => &plain.state_dir,
                    "runtime_dir" => &plain.runtime_dir,
                    other => panic!("{}: {other} is no directory's key", self.name),
                };
                Some(directory.join(value).display().to_string())
            }
            ["", value, ..] => Some((*value).to_owned()),
            _ => None,
        }
    }
}

/// Every key of docs/configuration.md, in its order.
fn described() -> Vec<Described> {
    under("\n### ")
}

/// Every key of a connection likewise.
fn described_of_connections() -> Vec<Described> {
    under("\n#### ")
}

fn under(heading: &str) -> Vec<Described> {
    let document = include_str!("../../../docs/configuration.md");
    let sections = document.split(heading).skip(1);
    let described = sections.map(|section| {
        let section = section.split("\n## ").next().unwrap_or(section);
        let mut lines = section.lines().filter(|line| !line.is_empty());
        let name = lines.next().unwrap().trim_matches('`');
        let first = lines.next().and_then(|line| line.split_once(", "));
        let (variable, kind) = first.unwrap_or_else(|| panic!("{name}: no variable and type"));
        let default = lines.find_map(|line| line.strip_prefix("Default: "));
        let default = default.unwrap_or_else(|| panic!("{name}: no default"));
        Described { name, variable: variable.trim_matches('`'), kind, default }
    });
    described.collect()
}

/// What each key comes to. One that is not set and stands for something all the same has that.
fn effective(settings: &Settings) -> BTreeMap<Cow<'static, str>, Option<String>> {
    let host = crate::host::host_settings(settings);
    let path = |path: PathBuf| Some(path.display().to_string());
    let one = |entry: Entry| {
        let value = match entry.name.as_ref() {
            "image_dir" => path(crate::host::image_directory(settings)),
            "template_dir" => path(crate::host::template_directory(settings)),
            "fetch_dir" => path(crate::host::fetch_settings(settings).directory),
            "cache_dir" => path(crate::host::cache_settings(settings).directory),
            "qemu" => path(host.qemu.clone()),
            "qemu_img" => path(host.qemu_img.clone()),
            "database" => settings.database_path().and_then(path),
            "socket" => path(settings.socket_path()),
            _ => entry.value,
        };
        (entry.name, value)
    };
    entries(settings).map(one).collect()
}

#[test]
fn the_document_has_every_key_and_no_other() {
    let described = described();
    let names: BTreeSet<&str> = described.iter().map(|key| key.name).collect();
    assert_eq!(names, key_names().collect());
    assert_eq!(described.len(), KEYS.len(), "a key has two headings");
    for key in KEYS {
        let there = described.iter().find(|described| described.name == key.name).unwrap();
        assert_eq!(there.variable, key.variable());
    }
}

#[test]
fn the_document_gives_the_defaults_of_the_code() {
    /// What they stand for is known only on a host, so the page has a sentence.
    const OF_THE_HOST: [&str; 5] =
        ["guest_programs", "host_name", "labels", "max_cpus", "max_memory"];
    let directory = tempfile::tempdir().unwrap();
    let mut root = surroundings(directory.path(), &[]);
    root.user_id = 0;
    let plain = load(&root, None).unwrap();
    let defaults = effective(&plain);
    for key in described() {
        if let Some(value) = key.value(&plain) {
            root.variables.insert(key.variable.to_owned(), value.into());
        } else if key.default.starts_with("none") {
            assert_eq!(defaults[key.name], None, "{}", key.name);
        } else {
            assert!(OF_THE_HOST.contains(&key.name), "{}: {}", key.name, key.default);
        }
    }
    // With everything set to what the page says, everything is as it was.
    let mut stated = effective(&load(&root, None).unwrap());
    // The service makes this one up.
    let own_key = toml::Value::from(vec![plain.state_dir.join("seal.key").display().to_string()]);
    assert_eq!(stated.insert("seal_keys".into(), None), Some(Some(own_key.to_string())));
    assert_eq!(stated, defaults);
}

/// Values that a key takes, and one that it does not, by what the page says of them.
fn values(name: &str, kind: &str) -> (Vec<String>, &'static str) {
    let quoted = |word: &str| format!("\"{word}\"");
    let mut words = kind.split('`').skip(1).step_by(2).map(quoted);
    let is = |what: &str| kind.contains(what);
    if is("list of labels with") {
        (vec![r#"["a", "b:vm://x?cpus=4"]"#.to_owned()], r#"["a:docker://x"]"#)
    } else if is("list of URLs") {
        (vec![r#"["https://a.example", "http://b:3000"]"#.to_owned()], r#"["a.example"]"#)
    } else if is("list of") {
        (vec![r#"["a", "b"]"#.to_owned()], "1")
    } else if is("size") {
        (vec!["2147483648".to_owned(), quoted("2G")], r#""much""#)
    } else if is("a time") {
        (vec![quoted("30s"), quoted("1m")], r#""soon""#)
    } else if is("one of") {
        (words.collect(), r#""other""#)
    } else if is("the word") {
        (words.next().into_iter().collect(), "1")
    } else if is("path") {
        (vec![quoted("/somewhere")], "1")
    } else if is("text") {
        (vec![quoted("other")], "1")
    } else if is("number") {
        (vec!["3".to_owned()], r#""much""#)
    } else if is("`true` or `false`") {
        (vec!["true".to_owned(), quoted("false")], r#""maybe""#)
    } else if is("UUID") {
        (vec![quoted("30303131-3232-3333-3434-353536363737")], r#""30303131""#)
    } else if is("URL") {
        (vec![quoted("https://codeberg.org/x/")], r#""codeberg.org""#)
    } else {
        panic!("{name}: what is a value of {kind:?}?")
    }
}

#[test]
fn the_document_gives_the_types_of_the_code() {
    let check = |key: &Described, table: &str| {
        let name = key.name;
        let (good, bad) = values(name, key.kind);
        assert!(!good.is_empty(), "{name}: {:?} has no example", key.kind);
        for value in good {
            let read = read_all(&format!("{table}{name} = {value}\n"));
            let taken = read.iter().all(|mistake| !mistake.contains(&format!("{name}: ")));
            assert!(taken, "{name}: {value} is {:?}: {read:?}", key.kind);
        }
        let read = read_all(&format!("{table}{name} = {bad}\n"));
        let refused = read.iter().any(|mistake| mistake.contains(&format!("{name}: ")));
        assert!(refused, "{name}: {bad} is not {:?}: {read:?}", key.kind);
    };
    described().iter().for_each(|key| check(key, ""));
    described_of_connections().iter().for_each(|key| check(key, "[forgejo.home]\n"));
}

/// Every mistake in a file.
fn read_all(text: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("solstice.toml");
    std::fs::write(&path, text).unwrap();
    let at = surroundings(directory.path(), &[("HOME", "/home/alex")]);
    match load_all(&at, Some(&path)) {
        Ok((_, mistakes)) => mistakes.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    }
}

#[test]
fn the_document_has_every_key_of_a_connection_and_no_other() {
    use crate::forgejo::connections::{FETCH_INTERVAL, FETCH_TIMEOUT, MOST_JOBS};
    let described = described_of_connections();
    let names: Vec<&str> = described.iter().map(|key| key.name).collect();
    assert_eq!(names, connection_key_names().collect::<Vec<_>>());
    for key in &described {
        let variable = format!("SOLSTICE_FORGEJO_NAME_{}", key.name.to_ascii_uppercase());
        assert_eq!(key.variable, variable);
    }
    let default = |name: &str| described.iter().find(|key| key.name == name).unwrap().default;
    let seconds = |time: Duration| format!("`{}s`", time.as_secs());
    assert!(default("fetch_interval").starts_with(&seconds(FETCH_INTERVAL)));
    assert!(default("fetch_timeout").starts_with(&seconds(FETCH_TIMEOUT)));
    assert!(default("insecure").starts_with("`false`"));
    assert!(default("capacity").contains(&format!("at most {MOST_JOBS}")));
}

#[test]
fn connections_and_labels_can_be_given_by_the_environment() {
    let variables = [
        ("SOLSTICE_FORGEJO_HOME_URL", "https://example.org/"),
        ("SOLSTICE_FORGEJO_HOME_UUID", "30303131-3232-3333-3434-353536363737"),
        ("SOLSTICE_FORGEJO_HOME_TOKEN_FILE", "token"),
        ("SOLSTICE_FORGEJO_HOME_LABELS", "tiny,big:vm://debian-12?cpus=8&memory=16G"),
        ("SOLSTICE_FORGEJO_HOME_CAPACITY", ""),
        ("SOLSTICE_FORGEJO_FAR_AWAY_CAPACITY", "3"),
        ("SOLSTICE_FORGEJO_FAR_AWAY_INSECURE", "true"),
        ("SOLSTICE_FORGEJO_FAR_AWAY_RUNNER_FILE", "/x/.runner"),
        ("SOLSTICE_FORGEJO_NONE_URL", ""),
        ("SOLSTICE_FORGEJO_LABELS", "docker=debian-12,ubuntu-22.04=debian-12?memory=4G"),
        ("SOLSTICE_FORGEJO_TOKEN", "hunter2"),
        ("SOLSTICE_FORGEJO_HOME_CAPCITY", "1"),
        ("SOLSTICE_FORGEJO_SHUTDWON", "1s"),
    ];
    let text = "[forgejo.home]\nurl = \"https://other.example.org\"\ncapacity = 2\n\
                [forgejo_labels]\nlxc = \"tiny\"\n";
    let settings = with_file(text, &variables).unwrap();
    let forgejo = &settings.forgejo;
    let names: Vec<&str> = forgejo.connections.keys().map(String::as_str).collect();
    assert_eq!(names, ["far-away", "home"]);
    let home = &forgejo.connections["home"];
    assert_eq!(home.url.as_ref().map(ToString::to_string).unwrap(), "https://example.org/");
    assert_eq!(home.capacity, Some(2));
    assert_eq!(home.labels.as_ref().unwrap().len(), 2);
    assert!(home.token_file.as_ref().unwrap().is_absolute());
    let away = &forgejo.connections["far-away"];
    assert_eq!((away.capacity, away.insecure), (Some(3), Some(true)));
    assert_eq!(away.place, "SOLSTICE_FORGEJO_FAR_AWAY_CAPACITY");
    let labels: Vec<&str> = forgejo.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["docker", "ubuntu-22.04"]);
    let warnings = [
        "SOLSTICE_FORGEJO_HOME_CAPCITY has no effect; did you mean SOLSTICE_FORGEJO_HOME_CAPACITY?",
        "SOLSTICE_FORGEJO_SHUTDWON has no effect; did you mean SOLSTICE_FORGEJO_SHUTDOWN?",
    ];
    assert_eq!(settings.warnings, warnings);

    let bad = |name: &str, value: &str, expected: &str| {
        let error = with_file("", &[(name, value)]).unwrap_err();
        assert_eq!(error, expected);
    };
    bad(
        "SOLSTICE_FORGEJO_HOME_CAPACITY",
        "many",
        "SOLSTICE_FORGEJO_HOME_CAPACITY: forgejo.home.capacity: expected a number from 1 to 1000",
    );
    bad(
        "SOLSTICE_FORGEJO_LABELS",
        "docker",
        "SOLSTICE_FORGEJO_LABELS: forgejo_labels: \"docker\" is not LABEL=IMAGE",
    );
    bad(
        "SOLSTICE_FORGEJO_HOME_UUID",
        "30303131-3232-3333-3434-353536363737",
        "SOLSTICE_FORGEJO_HOME_UUID: forgejo.home: `url` is missing",
    );
}
