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
            "disk_reserve" | "max_memory" | "keep_events_size" => "1G",
            "acceleration" => "tcg",
            "labels" | "host_name" | "queue_prefix" => "other",
            "max_cpus" | "keep_events_days" => "3",
            "queue" => "amqp://broker",
            "metrics_listen" => "off",
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
    let keys: Vec<&str> = key_names().collect();
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

#[test]
fn the_document_has_every_key() {
    let document = include_str!("../../../docs/configuration.md");
    for key in KEYS {
        let heading = format!("### `{}`", key.name);
        assert!(document.contains(&heading), "docs/configuration.md lacks {heading}");
        assert!(
            document.contains(&key.variable()),
            "docs/configuration.md lacks {}",
            key.variable()
        );
    }
}
