//! Where no service answers, or another one than expected.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use crate::harness::Place;

/// Every command that needs a service.
const COMMANDS: &[&[&str]] = &[
    &["jobs"],
    &["show", "aaaa"],
    &["logs", "aaaa"],
    &["logs", "-f", "0192f0c1-0000-7000-8000-aaaaaaaaaaaa"],
    &["cancel", "aaaa"],
    &["retry", "aaaa"],
    &["hosts"],
    &["drain"],
];

/// Answers every connection with these bytes, until the test ends.
fn answer(place: &Place, bytes: &'static str) {
    std::fs::create_dir_all(place.socket().parent().unwrap()).unwrap();
    let listener = UnixListener::bind(place.socket()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // One request fits in one read, and none of ours has a body here.
            drop(stream.read(&mut [0; 4096]));
            drop(stream.write_all(bytes.as_bytes()));
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_service_every_command_says_how_to_start_one() {
    let place = Place::without_service();
    for command in COMMANDS.iter().filter(|command| command[0] != "logs" || command[1] != "-f") {
        let done = place.solstice(command).await;
        assert_eq!((done.code, done.stdout.as_str()), (2, ""), "{command:?}");
        let expected = format!(
            "error: no service runs: nobody answers on {}\nhint: `solstice serve` starts one\n",
            place.socket().display()
        );
        assert_eq!(done.stderr, expected, "{command:?}");
    }
    // A killed service leaves its socket.
    std::fs::create_dir_all(place.socket().parent().unwrap()).unwrap();
    drop(UnixListener::bind(place.socket()).unwrap());
    let done = place.solstice(&["jobs"]).await;
    assert!(done.stderr.starts_with("error: no service runs: nobody"), "{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_named_and_run_can_do_without_it() {
    let place = Place::without_service();
    answer(
        &place,
        "HTTP/1.1 400 Bad Request\r\nsolstice-version: 9.1.0\r\nsolstice-protocol: 9\r\n\
         content-length: 2\r\nconnection: close\r\n\r\n{}",
    );
    let error = format!(
        "error: the service on {} is version 9.1.0 and speaks protocol version 9, this program \
         (version {}) speaks 1\n",
        place.socket().display(),
        env!("CARGO_PKG_VERSION")
    );
    for command in COMMANDS {
        let done = place.solstice(command).await;
        assert_eq!((done.code, done.stdout.as_str()), (2, ""), "{command:?}");
        assert_eq!(done.stderr, format!("{error}hint: use the same version of both\n"));
    }
    place.workflow("on: push\njobs:\n  a: { runs-on: tiny, steps: [{ run: x }] }\n");
    let done = place.solstice(&["run"]).await;
    assert_eq!(done.code, 2);
    let hint = "hint: --standalone runs the jobs without the service\n";
    assert_eq!(done.stderr, format!("{error}{hint}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_service_is_not_taken_for_one() {
    let place = Place::without_service();
    answer(&place, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]");
    let done = place.solstice(&["jobs"]).await;
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("is no service of Solstice\n"), "{}", done.stderr);
    let place = Place::without_service();
    answer(&place, "SSH-2.0-OpenSSH_9.2\r\n");
    let done = place.solstice(&["jobs"]).await;
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("does not answer: "), "{}", done.stderr);
}
