use super::*;

const UUID: &str = "33834eef-e758-48c4-a676-1745426747aa";

fn nothing(_: &str) -> Option<String> {
    None
}

fn of(text: &str) -> Result<RunnerConfig, IdentityError> {
    parse(text, "c.yml", false, &nothing)
}

/// Settings with one connection of these lines.
fn connection(lines: &str) -> String {
    format!("server:\n  connections:\n    home:\n{lines}")
}

#[test]
fn settings_are_read_as_they_are() {
    let text = format!(
        "\
# the rest is about containers
log: {{ level: info }}
runner:
  file: .runner
  capacity: 3
  envs: {{ A: b }}
  timeout: 3h
  shutdown_timeout: 1h30m
  insecure: true
  fetch_timeout: 5s
  fetch_interval: 2s
  report_interval: 100ms
  labels:
    - docker:docker://node:22
    - debian-12:vm://debian-12
cache:
  enabled: true
server:
  connections:
    one:
      url: https://example.org/
      uuid: {UUID}
      token: hunter2
    two:
      url: https://example.com/git/
      uuid: {UUID}
      token: hunter3
      fetch_interval: 30s
      labels:
        big:
          backend: vm
          backend-options: {{ image: debian-12, cpus: 4, memory: 8G }}
        freebsd-15:
          backend-options:
            image: ghcr.io/freebsd:15.0
            platform: freebsd/amd64
        plain: {{ backend: host }}
"
    );
    let config = of(&text).expect("settings");
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(config.file, Some(PathBuf::from(".runner")));
    assert_eq!((config.capacity, config.insecure), (Some(3), true));
    assert_eq!((config.fetch_timeout, config.fetch_interval), (seconds(5), seconds(2)));
    assert_eq!(config.report_interval, Some(Duration::from_millis(100)));
    assert_eq!(config.shutdown, seconds(5400));
    assert_eq!(config.labels, ["docker:docker://node:22", "debian-12:vm://debian-12"]);
    assert_eq!(config.warnings, Vec::<String>::new());
    let [one, two] = config.connections.as_slice() else { panic!("{config:?}") };
    assert_eq!((one.name.as_str(), one.url.as_str()), ("one", "https://example.org/"));
    assert_eq!((one.uuid.as_str(), one.token.expose()), (UUID, "hunter2"));
    assert_eq!((one.labels.len(), one.fetch_interval), (0, None));
    assert_eq!((two.url.as_str(), two.fetch_interval), ("https://example.com/git", seconds(30)));
    assert_eq!(
        two.labels,
        [
            "big:vm://debian-12?cpus=4&memory=8G",
            "freebsd-15:docker://ghcr.io/freebsd:15.0?platform=freebsd/amd64",
            "plain:host"
        ]
    );
}

#[test]
fn an_empty_file_and_one_without_connections_say_nothing() {
    for text in ["", "# nothing\n", "log:\nrunner:\nserver:\n  connections:\n"] {
        let config = of(text).expect(text);
        assert!(config.connections.is_empty() && config.file.is_none(), "{text}");
    }
}

#[test]
fn a_token_may_be_in_a_file_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("token");
    std::fs::write(&path, "hunter2\n").expect("written");
    let place = directory.path().display().to_string();
    let variable = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| place.clone());
    for url in [
        "file:$CREDENTIALS_DIRECTORY/token",
        "file:${CREDENTIALS_DIRECTORY}/token",
        &format!("file://{place}/token"),
        &format!("file://host{place}/token"),
    ] {
        let lines = format!("      url: http://x\n      uuid: {UUID}\n      token_url: '{url}'\n");
        let config = parse(&connection(&lines), "c.yml", true, &variable).expect(url);
        assert_eq!(config.connections[0].token.expose(), "hunter2");
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}

#[test]
fn what_cannot_be_used_is_named_with_its_place_and_without_its_token() {
    let good = format!("      url: http://x\n      uuid: {UUID}\n      token: hunter2\n");
    let with = |from: &str, to: &str| connection(&good.replace(from, to));
    for (text, expected) in [
        (with("token: ", "token hunter2: [ "), "c.yml:"),
        (with("url: http://x", "url: x"), "c.yml:4:12: `url`: it is not an URL"),
        (with("      url: http://x\n", ""), "c.yml:3:5: `url` is missing"),
        (with(UUID, "7"), "c.yml:5:13: `uuid`: \"7\" is not a UUID"),
        (with("uuid", "uid"), "c.yml:3:5: `uuid` is missing"),
        (with("token", "tokn"), "c.yml:3:5: `token` and `token_url` are missing"),
        (with("token: hunter2", "token: [hunter2]"), "`token` is not a text"),
        (with("token: hunter2", "token: hunter2 hunter2"), "`token`: it holds more than a token"),
        (
            with("token: hunter2", "token: hunter2\n      token_url: file:/x"),
            "c.yml:3:5: it has `token` and `token_url`",
        ),
        (with("token: hunter2", "token_url: https://x"), "it does not begin with file:"),
        (with("token: hunter2", "token_url: file:/nonexistent"), "cannot read /nonexistent: "),
        (with("token: hunter2", "token_url: file:$NONE/x"), "variable \"NONE\" is not set"),
        ("server: []\n".to_owned(), "c.yml:1:9: here must be keys"),
        ("runner: { capacity: many }\n".to_owned(), "c.yml:1:21: `capacity` is not a number"),
        ("runner: { insecure: 1 }\n".to_owned(), "`insecure` is neither true nor false"),
        ("runner: { fetch_interval: 2 }\n".to_owned(), "`fetch_interval`: \"2\" is not a length"),
        ("runner: { labels: x }\n".to_owned(), "`labels` is neither a list nor a mapping"),
        ("runner: { labels: [[]] }\n".to_owned(), "a label is not a text"),
        ("runner: { labels: { a: [] } }\n".to_owned(), "here must be keys"),
    ] {
        let error = of(&text).expect_err(&text);
        assert!(error.to_string().contains(expected), "{error}\n{text}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(error.advice().is_some(), "{error}");
    }
}

#[test]
fn what_is_not_taken_over_is_said() {
    let text = "runner: { timeout: 6h, report_interval: -1s, capacity: -2 }\n";
    let config = of(text).expect("settings");
    assert_eq!((config.report_interval, config.capacity), (None, None));
    assert!(config.warnings.iter().any(|warning| warning.contains("`runner.timeout` of c.yml")));
    assert!(config.warnings.iter().any(|warning| warning.contains("`report_interval` of c.yml")));
    let lines = format!("      url: http://x\n      uuid: {UUID}\n      token: hunter2\n");
    let config = parse(&connection(&lines), "c.yml", true, &nothing).expect("settings");
    assert_eq!(config.warnings, ["others may read the token in c.yml; run chmod 600 on it"]);
}
