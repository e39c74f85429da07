//! Runners of instances: their identities against a simulated instance, and everything that a user can
//! get wrong about them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use simulators::forgejo::{Fault, Forge, Profile, Rpc, Scope};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::block_in_place;

use super::place::{Done, Place, place};

const UUID: &str = "30303131-3232-3333-3434-353536363737";
const SECRET: &str = "00112233445566778899aabbccddeeff01234567";

impl Place {
    /// Runs the program beside a forge that this process simulates.
    fn beside(&self, arguments: &[&str]) -> Done {
        block_in_place(|| self.solstice(arguments))
    }

    /// The kept identity of a connection.
    fn kept(&self, connection: &str) -> Option<Value> {
        let path = self.directory.path().join(format!("state/forgejo/{connection}.json"));
        let text = fs::read_to_string(&path).ok()?;
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        Some(serde_json::from_str(&text).unwrap())
    }

    /// Registers the connection `home` and gives what is kept.
    fn register(&self, forge: &Forge, arguments: &[&str]) -> Value {
        let url = forge.url();
        let all = ["forgejo", "register", "--connection", "home", "--url", &url];
        let done = self.beside(&[&all, arguments].concat());
        assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
        assert!(done.stdout.contains("runs-on: "), "{}", done.stdout);
        assert!(done.stdout.contains("Start `solstice serve`"), "{}", done.stdout);
        self.kept("home").unwrap()
    }

    /// The rows of `solstice forgejo status`, and its exit code.
    fn status(&self) -> (i32, Vec<Value>) {
        let done = self.beside(&["forgejo", "status", "--json"]);
        (done.code, serde_json::from_str(&done.stdout).unwrap())
    }
}

/// A place with a file of one line.
fn with(name: &str, text: &str) -> Place {
    place().file(name, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_token_makes_a_runner() {
    let forge = Forge::builder().profile(Profile::V11).sub_path("/git").start().await;
    let token = forge.registration_token(Scope::Global);
    let place = with("token", &token);
    let kept = place.register(&forge, &["--token-file", "token", "--label", "tiny"]);
    assert_eq!(kept["url"], forge.url());
    assert_eq!(kept["labels"], serde_json::json!(["tiny"]));
    let uuid = kept["uuid"].as_str().unwrap();
    assert_eq!(forge.labels(uuid).unwrap(), ["tiny"]);
    assert!(!kept["token"].as_str().unwrap().is_empty() && kept["id"].as_i64().is_some());
    assert_ne!(kept["token"], token);

    let (code, rows) = place.status();
    assert_eq!((code, rows.len()), (0, 1), "{rows:?}");
    assert_eq!(rows[0]["name"], "home");
    assert_eq!(rows[0]["accepted"], true);
    assert!(rows[0]["server"].as_str().unwrap().starts_with("Forgejo 11."), "{rows:?}");
    let done = place.beside(&["forgejo", "status"]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert!(done.stdout.contains("home") && done.stdout.contains("accepted"), "{}", done.stdout);
    assert_eq!(forge.labels(uuid).unwrap(), ["tiny"]);
    assert!(forge.calls_of(Rpc::FetchTask).is_empty());

    // The name is taken now.
    let all = ["forgejo", "register", "--connection", "home", "--token-file", "token"];
    let url = forge.url();
    let again = [&all[..], &["--url", &url]].concat();
    let done = place.beside(&again);
    assert_eq!(done.code, 64);
    assert!(done.stderr.starts_with("error: home is a runner of "), "{}", done.stderr);
    let done = place.beside(&[&again[..], &["--replace"]].concat());
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_ne!(place.kept("home").unwrap()["uuid"], kept["uuid"]);
    forge.assert_no_violations();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_may_be_in_the_environment_or_in_a_pipe_and_the_name_is_the_instances() {
    let forge = Forge::start(Profile::Gitea124).await;
    let token = forge.registration_token(Scope::Owner("me".to_owned()));
    let place = place();
    let mut command = place.command(&["forgejo", "register", "--url", &forge.url()]);
    let done = block_in_place(|| command.env("SOLSTICE_FORGEJO_TOKEN", &token).output().unwrap());
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let port = forge.url().rsplit(':').next().unwrap().to_owned();
    let kept = place.kept(&format!("127-0-0-1-{port}")).unwrap();
    let labels = forge.labels(kept["uuid"].as_str().unwrap()).unwrap();
    assert!(labels.contains(&"debian-12".to_owned()), "{labels:?}");

    let script = format!(
        "echo {token} | {} forgejo register --url {} --connection b --token-file - --name 'it is'",
        env!("CARGO_BIN_EXE_solstice"),
        forge.url()
    );
    let state = place.directory.path().join("state");
    let shell = block_in_place(|| {
        std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(place.project())
            .env("SOLSTICE_STATE_DIR", &state)
            .env("SOLSTICE_RUNTIME_DIR", place.directory.path().join("run"))
            .output()
            .unwrap()
    });
    assert_eq!(shell.status.code(), Some(0), "{}", String::from_utf8_lossy(&shell.stderr));
    assert_eq!(place.kept("b").unwrap()["name"], "it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_of_the_web_page_is_kept_when_the_instance_accepts_it() {
    let forge = Forge::start(Profile::V15).await;
    let identity = forge.create_runner("made", Scope::Global);
    let place = with("token", &identity.token).file("bad", "hunter2");
    let url = forge.url();
    let all = ["forgejo", "register", "--connection", "home", "--url", &url, "--uuid"];
    let done = place.beside(&[&all[..], &[&identity.uuid, "--runner-token-file", "bad"]].concat());
    assert_eq!((done.code, place.kept("home")), (64, None), "{}", done.stderr);
    assert!(done.stderr.starts_with("error: the instance does not accept the runner: "));
    assert!(done.stderr.contains("hint: compare the UUID and the token"), "{}", done.stderr);
    assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
    let kept = place.register(&forge, &["--uuid", &identity.uuid, "--runner-token-file", "token"]);
    assert_eq!(kept["uuid"], identity.uuid);
    assert!(forge.labels(&identity.uuid).unwrap().contains(&"tiny".to_owned()));

    // Deleted there, it is refused here.
    forge.delete_runner(&identity.uuid);
    let (code, rows) = place.status();
    assert_eq!((code, &rows[0]["accepted"]), (2, &Value::Bool(false)));
    assert!(rows[0]["cure"].as_str().unwrap().contains("register --replace --connection home"));
    let done = place.beside(&["forgejo", "status"]);
    assert_eq!(done.code, 2);
    assert!(done.stdout.contains("REFUSED") && done.stderr.contains("hint: look whether"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_secret_is_kept_before_the_administrator_registers_it() {
    let forge = Forge::start(Profile::V11).await;
    let place = with("secret", SECRET).file("short", "0011");
    let url = forge.url();
    let all = ["forgejo", "register", "--url", &url, "--secret-file", "short"];
    place.beside(&all).refused("error: short: it is not a shared secret");
    let secret = ["--secret-file", "secret", "--name", "build 1"];
    let all = ["forgejo", "register", "--connection", "home", "--url", &url];
    let done = place.beside(&[&all[..], &secret].concat());
    let command = "forgejo forgejo-cli actions register --name 'build 1' --secret-file secret\n";
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains(command), "{}", done.stdout);
    let kept = place.kept("home").unwrap();
    assert_eq!((kept["uuid"].as_str(), kept["token"].as_str()), (Some(UUID), Some(SECRET)));
    assert_eq!(place.status().0, 2);
    assert_eq!(forge.register_secret(SECRET).uuid, UUID);
    assert_eq!(place.status().0, 0);
    let done = place.beside(&[&all[..], &secret, &["--replace"]].concat());
    assert!(done.code == 0 && !done.stdout.contains("forgejo-cli"), "{}", done.stdout);
    assert_eq!(place.kept("home").unwrap()["uuid"], UUID);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_interface_makes_and_deletes_a_runner() {
    let forge = Forge::start(Profile::V15).await;
    let place = with("api", &forge.api_token()).file("bad", "hunter2");
    let url = forge.url();
    let all = ["forgejo", "register", "--connection", "home", "--url", &url, "--scope", "org/me"];
    let done = place.beside(&[&all[..], &["--api-token-file", "bad"]].concat());
    assert_eq!((done.code, place.kept("home")), (64, None));
    assert!(
        done.stderr.contains("401 Unauthorized") && done.stderr.contains("hint: make a new token")
    );
    let kept = place.register(&forge, &["--api-token-file", "api", "--scope", "org/me"]);
    assert_eq!(kept["scope"], "org/me");
    assert_eq!(forge.runners(), [kept["uuid"].as_str().unwrap()]);

    let done = place.beside(&["forgejo", "unregister", "home", "--api-token-file", "bad"]);
    assert_eq!(done.code, 64);
    assert!(place.kept("home").is_some());
    let done = place.beside(&["forgejo", "unregister", "home", "--api-token-file", "api"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.starts_with("home is forgotten here; the runner "), "{}", done.stdout);
    assert_eq!((forge.runners().len(), place.kept("home")), (0, None));

    forge.set_profile(Profile::V11);
    let done = place.beside(&[&all[..], &["--api-token-file", "api"]].concat());
    assert!(done.stderr.contains("must be Forgejo 15 or later"), "{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_is_forgotten_with_the_page_on_which_it_can_be_deleted() {
    let forge = Forge::start(Profile::V15).await;
    let token = forge.registration_token(Scope::Global);
    let place = with("token", &token).file("api", &forge.api_token());
    place.register(&forge, &["--token-file", "token"]);
    place
        .beside(&["forgejo", "unregister", "home", "--api-token-file", "api"])
        .refused("error: where is the runner home?");
    let done = place.beside(&["forgejo", "unregister", "home"]);
    assert_eq!((done.code, place.kept("home")), (0, None));
    let page = format!("such as {}/admin/actions/runners\n", forge.url());
    assert!(done.stdout.ends_with(&page), "{}", done.stdout);
    assert_eq!(forge.runners().len(), 1);
    place
        .beside(&["forgejo", "unregister", "home"])
        .refused("error: no runner is kept under the name \"home\"\nhint: none is kept here\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_registration_token_is_said_with_where_to_get_one() {
    let forge = Forge::start(Profile::V15).await;
    let place = with("token", "hunter2");
    let url = forge.url();
    let all = ["forgejo", "register", "--url", &url, "--token-file", "token"];
    let done = place.beside(&all);
    assert_eq!(done.code, 64);
    assert!(done.stderr.starts_with("error: the instance does not register the runner: "));
    let hint = format!("hint: take a registration token from {url}/admin/actions/runners or ");
    assert!(done.stderr.contains(&hint) && !done.stderr.contains("hunter2"), "{}", done.stderr);

    // An instance that breaks down between registration and declaration has told the token once.
    let good = with("token", &forge.registration_token(Scope::Global));
    forge.faults().next(Rpc::Declare, Fault::Page(503));
    let done = good.beside(&[&all[..], &["--connection", "home"]].concat());
    assert_eq!(done.code, 2, "{}", done.stderr);
    assert!(good.kept("home").is_some());
    assert_eq!(good.status().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_asks_every_instance() {
    let forge = Forge::start(Profile::V15).await;
    let identity = forge.create_runner("made", Scope::Global);
    let (_socket, port) = super::dead_port();
    let settings = format!(
        "[forgejo.good]\nurl = \"{}\"\nuuid = \"{}\"\ntoken_file = \"token\"\n\
         [forgejo.dead]\nurl = \"http://127.0.0.1:{port}\"\nuuid = \"{UUID}\"\n\
         token_file = \"token\"\n[forgejo.nobody]\nlabels = [\"tiny\"]\n\
         [forgejo.image]\nrunner_file = \".runner\"\n",
        forge.url(),
        identity.uuid
    );
    let runner = serde_json::json!({
        "id": 1, "uuid": UUID, "token": "x", "name": "x", "address": forge.url(),
        "labels": ["docker:docker://node:22"],
    });
    let place = with("token", &identity.token)
        .file("solstice.toml", &settings)
        .file(".runner", &runner.to_string());
    let check = |id: &str, verdict: &str, finding: &str, cure: &str| {
        let found = block_in_place(|| super::diagnose(&place, &[], id));
        assert_eq!(found.0, verdict, "{found:?}");
        assert!(found.1.contains(finding) && found.2.contains(cure), "{found:?}");
    };
    check("forgejo-good", "ok", "(Forgejo 15.", "");
    check("forgejo-dead", "failed", "the instance does not answer", "check the URL");
    check(
        "forgejo-nobody",
        "failed",
        "forgejo.nobody has no identity",
        "register --connection nobody",
    );
    check("forgejo-image", "failed", "would offer no label", "[forgejo_labels] docker = \"IMAGE\"");
    let (code, rows) = place.status();
    assert_eq!((code, rows.len()), (2, 4));
    forge.assert_no_violations();
}

#[test]
fn what_a_registration_lacks() {
    let place = with("token", "hunter2").file("lines", "hunter2\nhunter2").file("open", "hunter2");
    let open = place.project().join("open");
    fs::set_permissions(&open, PermissionsExt::from_mode(0o644)).unwrap();
    let url = ["forgejo", "register", "--url", "https://example.org"];
    let check = |arguments: &[&str], expected: &str| {
        let done = place.solstice(&[&url[..], arguments].concat());
        done.refused(expected);
        assert!(!done.stderr.contains("hunter2") && !done.created, "{}", done.stderr);
    };
    place.refuses(
        &["forgejo", "register"],
        "error: which instance?\nhint: name it: --url https://codeberg.org\n",
    );
    check(
        &[],
        "error: there is no registration token, and no terminal to ask at\n\
         hint: give --token-file F, or set SOLSTICE_FORGEJO_TOKEN; --help shows the other ways\n",
    );
    check(&["--token-file", "none"], "error: cannot use the token file none: No such file");
    check(&["--token-file", "lines"], "error: cannot use the token file lines: it holds more than");
    check(
        &["--token-file", "open"],
        "error: cannot use the token file open: others may read it\nhint: chmod 600 open\n",
    );
    check(&["--uuid", "7", "--runner-token-file", "token"], "error: --uuid: \"7\" is not a UUID");
    check(&["--uuid", UUID], "error: ");
    check(&["--api-token-file", "token"], "error: ");
    check(&["--api-token-file", "token", "--scope", "all"], "error: ");
    check(&["--token-file", "token", "--secret-file", "token"], "error: ");
    check(&["--connection", "Home"], "error: ");
    check(&["--label", "debian-21", "--token-file", "token"], "error: no image has the label");
    check(&["--label", "a:docker://x", "--token-file", "token"], "error: --label: the label \"a\"");
    check(&["--name", "", "--token-file", "token"], "error: --name: write 1 to 255 bytes");
    let mut done = place.solstice(&["forgejo", "register", "--url", "example.org"]);
    done.refused("error: --url: it is not an URL such as https://codeberg.org");
    done = place.solstice(&["forgejo", "register", "--url", "http://x", "--insecure"]);
    done.refused("error: --insecure is for an URL with https\n");
}

#[test]
fn an_instance_that_is_not_there() {
    let (_socket, port) = super::dead_port();
    let place = with("token", "hunter2");
    let url = format!("http://127.0.0.1:{port}");
    let done = place.solstice(&["forgejo", "register", "--url", &url, "--token-file", "token"]);
    assert_eq!(done.code, 2, "{}", done.stderr);
    let start = format!("error: {url} does not answer as an instance with Actions: ");
    assert!(done.stderr.starts_with(&start), "{}", done.stderr);
    assert!(done.stderr.contains("hint: check the URL"), "{}", done.stderr);
}

#[test]
fn a_connection_of_the_settings_is_not_registered_again() {
    let text = format!(
        "[forgejo.home]\nurl = \"https://example.org\"\nuuid = \"{UUID}\"\ntoken_file = \"token\"\n"
    );
    let place = with("solstice.toml", &text).file("token", "hunter2");
    let done = place.solstice(&["forgejo", "register", "--connection", "home"]);
    assert_eq!((done.code, done.created), (64, false));
    assert!(done.stderr.contains("has an identity by `uuid` already"), "{}", done.stderr);
    let done = place.solstice(&["forgejo", "unregister", "home"]);
    done.refused("error: home was not registered by `solstice forgejo register`\n");
    assert!(done.stderr.contains("hint: remove the table [forgejo.home]"), "{}", done.stderr);
}

#[test]
fn a_service_does_not_start_while_a_connection_cannot_be_used() {
    let place = with("solstice.toml", "[forgejo.home]\nrunner_file = \".runner\"\n");
    let done = place.solstice(&["serve"]);
    assert_eq!((done.code, done.created), (64, false), "{}", done.stderr);
    assert!(done.stderr.contains("error: cannot read the runner file "), "{}", done.stderr);
}

#[test]
fn the_daemon_alone_needs_what_hosts_share() {
    let place = place();
    let done = place.solstice(&["forgejo-runner"]);
    done.refused("error: `queue` and `seal_keys` must be set");
    let output = place
        .command(&["forgejo-runner"])
        .env("SOLSTICE_QUEUE", "amqp://broker")
        .env("SOLSTICE_SEAL_KEYS", "/nonexistent")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(text.starts_with("error: there is no connection to an instance\nhint: make one with"));
    let done = place.solstice(&["forgejo-runner", "--handle", "x"]);
    assert_eq!(done.code, 64);
}

#[test]
fn one_job_is_that_of_one_connection() {
    let table = |name: &str, host: &str| {
        format!(
            "[forgejo.{name}]\nurl = \"https://{host}\"\nuuid = \"{UUID}\"\ntoken_file = \"token\"\n"
        )
    };
    let text = format!(
        "queue = \"amqp://broker\"\nseal_keys = [\"/nonexistent\"]\n{}{}",
        table("a", "a.example.org"),
        table("b", "b.example.org")
    );
    let place = with("solstice.toml", &text).file("token", "hunter2");
    let done = place.solstice(&["forgejo-runner", "--one-job"]);
    let hint = "hint: name one of a, b with --connection\n";
    done.refused(&format!("error: a job of which connection?\n{hint}"));
    let done = place.solstice(&["forgejo-runner", "--one-job", "--connection", "c"]);
    done.refused(&format!("error: there is no connection \"c\"\n{hint}"));
}

#[test]
fn a_host_without_connections_says_how_to_make_one() {
    let done = place().solstice(&["forgejo", "status"]);
    assert_eq!((done.code, done.stdout.as_str(), done.created), (0, "", false));
    assert!(done.stderr.contains("`solstice forgejo register` makes it one"), "{}", done.stderr);
}

/// A proxy that passes every request on to the forge; gives its address, and what was asked of it.
async fn proxy(forge: &Forge) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (asked, behind) = (Arc::default(), forge.url().replace("http://", ""));
    let heard: Arc<Mutex<Vec<String>>> = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((outside, _)) = listener.accept().await {
            let (heard, behind) = (Arc::clone(&heard), behind.clone());
            tokio::spawn(async move {
                let mut outside = BufReader::new(outside);
                let mut line = String::new();
                outside.read_line(&mut line).await.unwrap();
                heard.lock().unwrap().push(line.trim().to_owned());
                let mut inside = TcpStream::connect(behind).await.unwrap();
                inside.write_all(line.as_bytes()).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut outside, &mut inside).await);
            });
        }
    });
    (address, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_through_the_proxy_that_the_environment_names() {
    let forge = Forge::start(Profile::V15).await;
    let (proxy, asked) = proxy(&forge).await;
    let identity = forge.create_runner("r", Scope::Global);
    let table = format!(
        "[forgejo.home]\nurl = \"http://forge.invalid\"\nuuid = \"{}\"\ntoken_file = \"token\"\n",
        identity.uuid
    );
    let place = with("solstice.toml", &table).file("token", &identity.token);
    let mut command = place.command(&["forgejo", "status"]);
    command.env("http_proxy", proxy);
    let done = block_in_place(|| command.output().unwrap());
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && text.contains("accepted"), "{text}");
    let asked = asked.lock().unwrap();
    let ping = "POST http://forge.invalid/api/actions/ping.v1.PingService/Ping HTTP/1.1";
    assert!(asked.iter().any(|line| line == ping), "{asked:?}");
}
