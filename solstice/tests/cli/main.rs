//! The program from outside: bad input gives a clear error with its place and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod actions;
mod check;
mod expression;
mod forgejo;
mod place;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use place::{Place, place, workflow};

const GOOD: &str = "on: push\njobs:\n  a:\n    runs-on: tiny\n    steps: [{ run: echo }]\n";

#[test]
fn no_workflow() {
    place().refuses(
        &["run"],
        "error: there is no workflow file in .forgejo/workflows, .gitea/workflows, \
         .github/workflows, and no .solstice/workflow.kdl\nhint: name one: solstice run WORKFLOW\n",
    );
}

#[test]
fn several_workflows() {
    workflow(GOOD).file(".forgejo/workflows/b.yaml", GOOD).refuses(
        &["run"],
        "error: there are several workflow files:\n  .forgejo/workflows/b.yaml\n  \
         .github/workflows/ci.yml\nhint: name one: solstice run WORKFLOW\n",
    );
}

#[test]
fn an_unknown_image_label() {
    let text = GOOD.replace("tiny", "tinny");
    let done = workflow(&text).solstice(&["run"]);
    assert_eq!((done.code, done.stdout.as_str(), done.created), (64, "", false), "{}", done.stderr);
    assert!(
        done.stderr.starts_with("error: .github/workflows/ci.yml:4:14: no image has the label"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("\"tinny\", did you mean \"tiny\"?"), "{}", done.stderr);
    let caret = "\n  4 |     runs-on: tinny\n    |              ^\nhint: ";
    assert!(done.stderr.contains(caret), "{}", done.stderr);
    let done = workflow(GOOD).solstice(&["run", "--image", "tinny"]);
    assert_eq!((done.code, done.created), (64, false));
    assert!(done.stderr.starts_with("error: no image has the label \"tinny\""), "{}", done.stderr);
}

#[test]
fn a_job_without_runs_on() {
    let text = GOOD.replace("    runs-on: tiny\n", "");
    let done = workflow(&text).solstice(&["run"]);
    assert_eq!((done.code, done.created), (64, false));
    assert!(done.stderr.starts_with("error: .github/workflows/ci.yml:3:3: "), "{}", done.stderr);
    assert!(done.stderr.contains("runs-on"), "{}", done.stderr);
}

#[test]
fn a_yaml_error_with_its_line_and_a_caret() {
    let done = workflow("on: push\njobs:\n  a: [\n").solstice(&["run"]);
    assert_eq!((done.code, done.created), (64, false));
    let start = "error: .github/workflows/ci.yml:3:6: invalid YAML: ";
    assert!(done.stderr.starts_with(start), "{}", done.stderr);
    assert!(done.stderr.contains("\n  3 |   a: [\n    |      ^\n"), "{}", done.stderr);
}

#[test]
fn an_expression_that_does_not_parse() {
    let text = GOOD.replace("echo", "'echo ${{ succes( }}'");
    let done = workflow(&text).solstice(&["run"]);
    assert_eq!((done.code, done.created), (64, false));
    assert_eq!(
        done.stderr,
        "error: .github/workflows/ci.yml:5:30: unknown function \"succes\": did you mean \
         \"success\"?\n  5 |     steps: [{ run: 'echo ${{ succes( }}' }]\n    \
         |                              ^\n"
    );
}

#[test]
fn a_key_that_is_given_twice() {
    let text = GOOD.replace("    steps", "    runs-on: tiny\n    steps");
    workflow(&text).refuses(
        &["run"],
        "error: .github/workflows/ci.yml:5:5: the key \"runs-on\" is given twice: the first is at \
         line 4, column 5\n  5 |     runs-on: tiny\n    |     ^\nhint: remove one of the two, or \
         put them together\n",
    );
}

#[test]
fn aliases_that_would_fill_the_memory() {
    let levels = (1..12).map(|level| {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        format!("a{level}: &a{level} [{items}]\n")
    });
    let bomb: String = levels.collect();
    let text = format!("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n{bomb}{GOOD}");
    let done = workflow(&text).solstice(&["run"]);
    assert_eq!((done.code, done.stdout.as_str(), done.created), (64, "", false));
    assert!(done.stderr.starts_with("error: .github/workflows/ci.yml:"), "{}", done.stderr);
    assert!(done.stderr.contains("values once its aliases are expanded\n"), "{}", done.stderr);
}

#[test]
fn keys_that_nobody_knows_are_a_warning_and_the_command_goes_on() {
    let text = GOOD.replace("    steps", "    runs_on: x\n    steps");
    let done = workflow(&text).solstice(&["run", "--image", "tinny"]);
    assert_eq!((done.code, done.stdout.as_str(), done.created), (64, "", false));
    let warning = "warning: .github/workflows/ci.yml:5:5: \"runs_on\" is not a key of a job; it is \
                   ignored\n  5 |     runs_on: x\n    |     ^\n  did you mean \"runs-on\"?\n";
    let rest = done.stderr.strip_prefix(warning);
    let rest = rest.unwrap_or_else(|| panic!("{}", done.stderr));
    // The next mistake is found, so the first did not end the command.
    assert!(rest.starts_with("error: no image has the label \"tinny\""), "{rest}");
}

#[test]
fn a_cycle_of_needs() {
    let text = "on: push\njobs:\n  a: { needs: b, runs-on: tiny, steps: [{ run: x }] }\n  \
                b: { needs: a, runs-on: tiny, steps: [{ run: x }] }\n";
    let done = workflow(text).solstice(&["run"]);
    assert_eq!((done.code, done.created), (64, false));
    assert!(done.stderr.contains("a → b → a"), "{}", done.stderr);
}

#[test]
fn secrets_that_nobody_gave() {
    let text = GOOD.replace("echo", "'echo ${{ secrets.TOKEN }}'");
    let place = workflow(&text).file("secrets", "OTHER=1\nTOKEN hunter2\n");
    place.refuses(
        &["run"],
        "error: the workflow uses a secret that was not given: TOKEN\n\
         hint: give --secret TOKEN or a line TOKEN=... in --secrets-file\n",
    );
    place.refuses(
        &["run", "--secret", "TOKEN"],
        "error: the secret TOKEN is not in the environment, and there is no terminal to ask at\n\
         hint: set the environment variable TOKEN, or use --secrets-file\n",
    );
    place.refuses(
        &["run", "--secrets-file", "secrets"],
        "error: secrets:2: there is no =\nhint: write NAME=VALUE, with the value in double quotes \
         if it has line breaks (\\n) or blanks at its ends\n",
    );
}

#[test]
fn settings_that_are_wrong() {
    let place = workflow(GOOD).file("solstice.toml", "state_dri = \"/x\"\n");
    let done = place.solstice(&["run"]);
    assert_eq!((done.code, done.created), (64, false));
    assert!(
        done.stderr.contains("solstice.toml:1:1: unknown key \"state_dri\""),
        "{}",
        done.stderr
    );
    assert!(done.stderr.ends_with("hint: did you mean \"state_dir\"?\n"), "{}", done.stderr);
}

#[test]
fn a_command_line_that_is_wrong() {
    for arguments in
        [&["run", "--nope"][..], &["run", "--timeout", "6d"], &["fly"], &["image", "pull"], &[]]
    {
        let done = workflow(GOOD).solstice(arguments);
        assert_eq!(
            (done.code, done.stdout.as_str(), done.created),
            (64, "", false),
            "{arguments:?}"
        );
    }
    let done = place().solstice(&["--help"]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert!(done.stdout.contains("Examples:") && !done.stdout.contains("watch-instance"));
}

#[test]
fn machines_that_are_not_kept() {
    let place = place();
    place.refuses(
        &["cp", "nope:/x", "."],
        "error: no machine is kept under the name `nope`; no machine is kept on this host\n",
    );
    place.refuses(
        &["rm", "nope"],
        "error: no machine is kept under the name `nope`; no machine is kept on this host\n",
    );
    place.refuses(
        &["cp", "a", "b"],
        "error: exactly one side must be in a machine\nhint: write it as RUN:PATH, and a local \
         file with a colon as ./NAME\n",
    );
    place.refuses(
        &["shell"],
        "error: no machine is kept on this host\nhint: name an image for a fresh machine: \
         solstice shell LABEL\n",
    );
    let done = place.solstice(&["shell", "debian-21"]);
    assert_eq!((done.code, done.created), (64, false));
    assert!(done.stderr.contains("debian-12"), "{}", done.stderr);
}

#[test]
fn images_are_listed_without_making_anything() {
    let place = place();
    let done = place.solstice(&["image", "list"]);
    assert_eq!((done.code, done.created), (0, false), "{}", done.stderr);
    assert!(done.stdout.starts_with("LABEL"), "{}", done.stdout);
    let done = place.solstice(&["image", "list", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let tiny = rows.as_array().unwrap().iter().find(|row| row["label"] == "tiny").unwrap();
    assert_eq!(tiny["present"], false);
}

#[test]
fn the_doctor_names_what_is_missing_and_the_cure() {
    let place = place();
    let output =
        place.command(&["doctor", "--json"]).env("SOLSTICE_QEMU", "/nonexistent/qemu").output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let qemu = checks.as_array().unwrap().iter().find(|check| check["id"] == "qemu").unwrap();
    assert_eq!(qemu["verdict"], "failed");
    assert!(qemu["cure"].as_str().unwrap().contains("install QEMU"), "{qemu}");
    let network =
        checks.as_array().unwrap().iter().find(|check| check["id"] == "network-isolation").unwrap();
    assert_eq!(network["verdict"], "warning", "{network}");
    assert!(checks.as_array().unwrap().iter().any(|check| check["id"] == "image-tools"));
    let state = checks.as_array().unwrap().iter().find(|check| check["id"] == "state-dir").unwrap();
    assert_eq!(state["verdict"], "ok", "{state}");
}

/// A port of the loopback address that is ours, and on which nobody listens.
fn dead_port() -> (tokio::net::TcpSocket, u16) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// One check of the doctor: its verdict, its finding and its cure.
fn diagnose(place: &Place, variables: &[(&str, &str)], id: &str) -> (String, String, String) {
    let output = place.command(&["doctor", "--json"]).envs(variables.iter().copied()).output();
    let output = output.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(!printed.contains("hunter2"), "{printed}");
    let checks: Vec<serde_json::Value> = serde_json::from_str(&printed).unwrap();
    let check = checks.iter().find(|check| check["id"] == id).unwrap();
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    if text("verdict") == "failed" {
        assert_eq!(output.status.code(), Some(2));
    }
    (text("verdict"), text("finding"), text("cure"))
}

#[test]
fn the_doctor_finds_nothing_wrong_where_no_service_ran_and_makes_nothing() {
    let place = place();
    for id in ["database", "queue", "seal-keys"] {
        let (verdict, finding, cure) = diagnose(&place, &[], id);
        assert_eq!((verdict.as_str(), cure.as_str()), ("ok", ""), "{finding}");
        assert!(finding.ends_with("is made by the first start of a service"), "{finding}");
    }
    let (verdict, finding, _) = diagnose(&place, &[], "service");
    assert!(verdict == "ok" && finding.starts_with("no service runs"), "{finding}");
    for name in ["solstice.db", "queue.db", "seal.key"] {
        assert!(!place.directory.path().join("state").join(name).exists(), "{name}");
    }
}

#[test]
fn the_doctor_names_what_a_service_could_not_use() {
    let place =
        place().file("text", &"no database and no key ".repeat(99)).file("password", "hunter2");
    let project = place.project();
    let path = |name: &str| project.join(name).to_str().unwrap().to_owned();
    let check = |variables: &[(&str, &str)], id: &str, finding: &str, cure: &str| {
        let found = diagnose(&place, variables, id);
        assert_eq!(found.0, "failed", "{found:?}");
        assert!(found.1.contains(finding) && found.2.contains(cure), "{found:?}");
    };
    let (_socket, port) = dead_port();
    let where_it_is = format!("127.0.0.1:{port}");
    let password = path("password");

    let set = [("SOLSTICE_DATABASE", &*path("no/such.db"))];
    check(&set, "database", "No such file or directory", "set `database`");
    let set = [("SOLSTICE_DATABASE", &*path("text"))];
    check(&set, "database", "not a database", "restore a copy");
    let set = [("SOLSTICE_DATABASE", &*path("."))];
    check(&set, "database", "it is no file", "set `database`");
    let url = format!("postgres://me@{where_it_is}/jobs");
    let set = [("SOLSTICE_DATABASE", &*url), ("SOLSTICE_DATABASE_PASSWORD_FILE", &*password)];
    check(&set, "database", &format!("{where_it_is}/jobs: "), "start PostgreSQL");
    let set = [set[0], ("SOLSTICE_DATABASE_PASSWORD_FILE", "missing")];
    check(&set, "database", "cannot use the password file", "correct the setting");

    let url = format!("amqp://me@{where_it_is}/%2f");
    let set = [("SOLSTICE_QUEUE", &*url), ("SOLSTICE_QUEUE_PASSWORD_FILE", &*password)];
    check(&set, "queue", &where_it_is, "start RabbitMQ");
    let queue = place.directory.path().join("state/queue.db");
    fs::copy(path("text"), &queue).unwrap();
    check(&[], "queue", "not a database", "restore a copy");
    fs::remove_file(&queue).unwrap();

    let set = [("SOLSTICE_SEAL_KEYS", &*path("text"))];
    check(&set, "seal-keys", "a key file holds one line", "correct `seal_keys`");
    let set = [("SOLSTICE_SEAL_KEYS", &*path("missing"))];
    check(&set, "seal-keys", "there is no such file", "correct `seal_keys`");

    // A service that was killed leaves its socket.
    let socket = place.directory.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let set = [("SOLSTICE_SOCKET", socket.to_str().unwrap())];
    assert_eq!(diagnose(&place, &set, "service").0, "ok");

    let run = place.directory.path().join("run");
    fs::set_permissions(&run, PermissionsExt::from_mode(0o777)).unwrap();
    check(&[], "runtime-dir", "others may write to it", "as the finding says");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let place = place();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let done = place.command(&["completion", "bash"]).stdout(writer).output().unwrap();
    assert_eq!((done.status.code(), done.stderr.as_slice()), (Some(0), &b""[..]));
}
