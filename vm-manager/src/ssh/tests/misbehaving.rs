//! Servers that a healthy guest does not have.

use std::time::Duration;

use russh::{Disconnect, Sig};

use super::PATIENCE;
use super::scripted::{self, guest};
use crate::ssh::connection::SILENCE;
use crate::ssh::{ExitStatus, Keys, Output, SshError};

#[tokio::test]
async fn a_refused_command_is_told() {
    let guest = guest(|channel, session| session.channel_failure(channel)).await;
    let error = guest.exec("true").await.unwrap_err();
    assert_eq!(error.to_string(), "the guest's ssh server refused a command");
}

/// As dropbear does when a process of another channel ends just then.
#[tokio::test]
async fn a_channel_that_closes_before_anything_was_started_is_replaced() {
    let flaky = guest(|channel, session| {
        // The first channel has number 1 on the server's side, too.
        if u32::from(channel) % 4 != 0 {
            session.eof(channel)?;
            return session.close(channel);
        }
        session.channel_success(channel)?;
        session.exit_status_request(channel, 5)?;
        session.close(channel)
    })
    .await;
    let done = flaky.run("x", None, PATIENCE).await.unwrap();
    assert_eq!(done.status, ExitStatus::Code(5));

    let broken = guest(|channel, session| session.close(channel)).await;
    let error = broken.exec("x").await.unwrap_err();
    assert!(matches!(error, SshError::Rejected(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_never_answers_runs_into_the_deadline() {
    let guest = guest(|_, _| Ok(())).await;
    let error = guest.run("some thing", None, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the command \"some thing\" in the guest did not end within 50ms"
    );
}

#[tokio::test]
async fn output_after_the_status_counts() {
    let guest = guest(|channel, session| {
        session.channel_success(channel)?;
        session.exit_status_request(channel, 3)?;
        session.data(channel, &b"late"[..])?;
        session.extended_data(channel, 1, &b"later"[..])?;
        session.extended_data(channel, 7, &b"unknown stream"[..])?;
        session.eof(channel)?;
        session.close(channel)
    })
    .await;
    let done = guest.run("x", None, PATIENCE).await.unwrap();
    assert_eq!(done.status, ExitStatus::Code(3));
    assert_eq!((&done.stdout[..], &done.stderr[..]), (&b"late"[..], &b"later"[..]));
}

#[tokio::test]
async fn output_before_the_answer_counts_within_bounds() {
    let early = guest(|channel, session| {
        session.data(channel, &b"early "[..])?;
        session.channel_success(channel)?;
        session.data(channel, &b"late"[..])?;
        session.exit_status_request(channel, 0)?;
        session.close(channel)
    })
    .await;
    assert_eq!(early.run("x", None, PATIENCE).await.unwrap().stdout, b"early late");

    let flood =
        guest(|channel, session| (0..200).try_for_each(|_| session.data(channel, &b"x"[..]))).await;
    assert!(matches!(flood.exec("x").await, Err(SshError::Protocol(_))));
}

#[tokio::test]
async fn an_end_without_status_is_an_error() {
    let guest = guest(|channel, session| {
        session.channel_success(channel)?;
        session.close(channel)
    })
    .await;
    assert!(matches!(guest.run("x", None, PATIENCE).await, Err(SshError::Protocol(_))));
    let (reader, _stdin) = guest.exec_stream("x").await.unwrap();
    assert_eq!(reader.finish().await.unwrap().status, None);
}

#[tokio::test]
async fn the_name_of_a_signal_is_bounded_and_harmless() {
    let guest = guest(|channel, session| {
        session.channel_success(channel)?;
        let name = format!("\u{1b}[31m{}", "X".repeat(1000));
        session.exit_signal_request(channel, Sig::Custom(name), false, "", "")?;
        session.close(channel)
    })
    .await;
    let mut session = guest.exec("x").await.unwrap();
    let Some(Output::Exit(ExitStatus::Signal(name))) = session.next().await.unwrap() else {
        panic!("a signal")
    };
    assert_eq!(name, format!("31m{}", "X".repeat(29)));
}

#[tokio::test]
async fn what_the_server_says_at_the_end_is_bounded_and_harmless() {
    let guest = guest(|channel, session| {
        session.channel_success(channel)?;
        let text = format!("\u{1b}[2Jbye {}", "x".repeat(1000));
        session.disconnect(Disconnect::ByApplication, &text, "")
    })
    .await;
    let mut session = guest.exec("x").await.unwrap();
    let error = session.next().await.unwrap_err().to_string();
    assert!(error.contains("hung up: \"[2Jbye xxx"), "{error}");
    assert!(error.len() < 400 && !error.contains('\u{1b}'), "{error}");
}

#[tokio::test]
async fn an_sftp_server_that_talks_nonsense_is_replaced_by_cat() {
    let guest = guest(|channel, session| {
        session.channel_success(channel)?;
        session.data(channel, &b"\xff\xff\xff\xffnonsense"[..])?;
        session.exit_status_request(channel, 0)?;
        session.close(channel)
    })
    .await;
    let mut read = Vec::new();
    assert_eq!(guest.download("/x", &mut read, 100, PATIENCE).await.unwrap(), 12);
}

/// A session that nobody reads holds up the connection, but not whoever closes it.
#[tokio::test(start_paused = true)]
async fn closing_does_not_wait_for_a_session_that_is_not_read() {
    let guest = guest(|channel, session| {
        session.channel_success(channel)?;
        (0..200).try_for_each(|_| session.data(channel, vec![b'x'; 1024]))
    })
    .await;
    let mut session = guest.exec("x").await.unwrap();
    tokio::time::timeout(PATIENCE, guest.close()).await.expect("it returns");
    let error = loop {
        match session.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the command did not end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "the ssh connection to the guest was lost: it was closed");
}

/// A guest that swaps is silent for minutes and comes back; one that is gone for good is given up.
#[tokio::test(start_paused = true)]
async fn silence_is_borne_for_ten_minutes() {
    let (ours, mut near) = tokio::io::duplex(64 * 1024);
    let (mut far, theirs) = tokio::io::duplex(64 * 1024);
    let keys = Keys::generate().unwrap();
    scripted::serve(theirs, &keys, |channel, session| session.channel_success(channel));
    let (freeze, mut frozen) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => break,
                _ = frozen.wait_for(|frozen| *frozen) => {}
            }
            if frozen.wait_for(|frozen| !*frozen).await.is_err() {
                // The test is over.
                break;
            }
        }
    });
    let guest = scripted::over(ours, &keys).await;
    let mut session = guest.exec("x").await.unwrap();

    let second = Duration::from_secs(1);
    freeze.send_replace(true);
    let quiet = tokio::time::timeout(SILENCE - 30 * second, session.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    freeze.send_replace(false);
    // An answer to one keep-alive is enough to start anew.
    tokio::time::sleep(30 * second).await;

    freeze.send_replace(true);
    let start = tokio::time::Instant::now();
    let error = session.next().await.unwrap_err();
    assert!(error.to_string().contains("silent for 600 s"), "{error}");
    let silence = start.elapsed();
    assert!(silence >= SILENCE - 15 * second && silence <= SILENCE + 60 * second, "{silence:?}");
}
