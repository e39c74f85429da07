//! The conversation about a job.

use std::time::Duration;

use common::JobId;
use common::event::{Conclusion, JobResult};
use common::guest::{FromGuest, GuestEvent, ToGuest};
use common::limits::GUEST_SPOOL_BYTES;
use tokio::time::Instant;

use crate::host::{Conversation, Host, PATIENCE, hand_over, lines};

/// What happened in the steps, in words.
fn story(events: &[GuestEvent]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            GuestEvent::StepStarted(step) => format!("start {} {}", step.step, step.name),
            GuestEvent::StepFinished(step) => {
                format!("end {} {} {}", step.step, step.outcome.name(), step.conclusion.name())
            }
            GuestEvent::Log(batch) => format!("log {:?}", batch.step),
            GuestEvent::Mask(secret) => format!("mask {}", secret.expose()),
            GuestEvent::Outputs(outputs) => format!("outputs {outputs:?}"),
            GuestEvent::Annotation(annotation) => format!("annotation {}", annotation.message),
            GuestEvent::DiskFull(message) => format!("disk full {message}"),
            GuestEvent::Finished(result) => format!("finished {}", result.name()),
            GuestEvent::Summary(_) => "summary".to_owned(),
        })
        .collect()
}

#[tokio::test]
async fn a_job_is_told_in_order() {
    let host = Host::new();
    let scripts = [
        "echo before\nmask hush\necho after\noutput name=value",
        "# continue-on-error\nexit 7",
        "make",
        "echo skipped",
        "# always\necho at last",
    ];
    let (machine, guest, document) = host.job(&scripts).await;
    let mut conversation = Conversation::attach(&guest, document.job, 1).await;
    let events = conversation.finish().await;
    let expected = [
        "start 0 Run echo before",
        "log Some(0)",
        "mask hush",
        "log Some(0)",
        "end 0 success success",
        "start 1 Run # continue-on-error",
        "log Some(1)",
        "annotation Process completed with exit code 7.",
        "end 1 failure success",
        "start 2 Run make",
        "log Some(2)",
        "annotation Process completed with exit code 127.",
        "end 2 failure failure",
        "end 3 skipped skipped",
        "start 4 Run # always",
        "log Some(4)",
        "end 4 success success",
        "outputs {\"name\": \"value\"}",
        "finished failure",
    ];
    assert_eq!(merged(story(&events)), expected);
    assert_eq!(lines(&events), ["before", "after", "at last"]);

    // Who comes later finds nobody.
    let mut late = Conversation::open(&guest, document.job).await;
    assert!(late.refusal().await.ends_with("it has ended or was never started"));
    machine.destroy().await;
    host.assert_empty();
}

/// Lines may come in one batch or in more.
fn merged(mut story: Vec<String>) -> Vec<String> {
    story.dedup_by(|a, b| a == b && a.starts_with("log"));
    story
}

#[tokio::test]
async fn a_lost_connection_costs_nothing() {
    let host = Host::new();
    let (machine, guest, document) = host.job(&["lines 20 5\ncut\nlines 3 1"]).await;
    let mut conversation = Conversation::attach(&guest, document.job, 1).await;
    let mut events = Vec::new();
    while let Some(FromGuest::Event { seq, event }) = conversation.next().await {
        assert_eq!(seq, events.len() as u64 + 1);
        events.push(event);
    }
    assert!(guest.is_closed(), "the connection was cut");
    let guest = machine.connect().await.unwrap();
    let from = events.len() as u64 + 1;
    let mut conversation = Conversation::attach(&guest, document.job, from).await;
    events.extend(conversation.finish().await);
    let expected = (1..=20).chain(1..=3).map(|number| format!("line {number}"));
    assert_eq!(lines(&events), expected.collect::<Vec<_>>());
    machine.destroy().await;
    host.assert_empty();
}

#[tokio::test]
async fn events_are_sent_again_until_they_are_acknowledged() {
    let host = Host::new();
    let (machine, guest, document) = host.job(&["echo one", "echo two"]).await;
    let mut first = Conversation::attach(&guest, document.job, 1).await;
    let mut seen = Vec::new();
    while !matches!(seen.last(), Some(GuestEvent::Finished(_))) {
        seen.push(first.event().await.1);
    }
    // A new host replaces the one before, which hears nothing of it.
    let mut second = Conversation::attach(&guest, document.job, 2).await;
    assert_eq!(first.next().await, None);
    let mut again = Vec::new();
    while !matches!(again.last(), Some(GuestEvent::Finished(_))) {
        again.push(second.event().await.1);
    }
    assert_eq!(again, seen[1..]);
    second.ack(4).await;

    // What was acknowledged is gone, and the answer says so.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut third = Conversation::open(&guest, document.job).await;
        third.send(&ToGuest::Attach { version: 1, from: 1 }).await;
        let Some(FromGuest::Attached { next, .. }) = third.next().await else {
            panic!("no answer")
        };
        assert_eq!(third.event().await.0, next);
        // The acknowledgement may still be on its way.
        if next == 5 {
            break;
        }
        assert!(Instant::now() < deadline && next == 2, "from {next}");
    }
    let mut last = Conversation::attach(&guest, document.job, seen.len() as u64).await;
    assert_eq!(last.finish().await, seen[seen.len() - 1..]);
    machine.destroy().await;
    host.assert_empty();
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let host = Host::new();
    let (machine, guest, document) = host.job(&["sleep 60000"]).await;
    let job = document.job;
    let attach = |version, from| ToGuest::Attach { version, from };
    let table = [
        (attach(2, 1), "speaks version 1 and the host version 2"),
        (attach(1, 0), "numbered from 1"),
        (attach(1, 1000), "event 1000 is wanted, but only"),
        (ToGuest::Cancel, "must be an attach"),
    ];
    for (frame, expected) in table {
        let mut conversation = Conversation::open(&guest, job).await;
        conversation.send(&frame).await;
        let reason = conversation.refusal().await;
        assert!(reason.contains(expected), "{reason}");
    }
    for (frame, expected) in
        [(ToGuest::Ack { seq: 1000 }, "event 1000 was not sent yet"), (attach(1, 1), "is attached")]
    {
        let mut conversation = Conversation::attach(&guest, job, 1).await;
        conversation.send(&frame).await;
        assert!(conversation.refusal().await.contains(expected));
    }
    let mut other = Conversation::open(&guest, JobId::new()).await;
    assert!(other.refusal().await.contains("never started"));

    let again = hand_over(&guest, &document).await;
    assert!(again.success(), "a job that runs is not started again: {again:?}");
    let second = hand_over(&guest, &crate::host::document(&["true"])).await;
    assert!(second.complaint().contains("takes no other"), "{second:?}");
    let mut newer = document.clone();
    newer.version = 9;
    let told = hand_over(&guest, &newer).await;
    assert!(told.complaint().contains("has version 9"), "{told:?}");
    machine.destroy().await;
    host.assert_empty();
}

#[tokio::test]
async fn a_cancel_is_heeded_at_once() {
    let host = Host::new();
    for script in ["sleep 600000", "lines 100000 20", "flood 1000000000"] {
        let scripts = [script, "echo skipped", "# always\necho cleaned up"];
        let (machine, guest, document) = host.job(&scripts).await;
        let mut conversation = Conversation::attach(&guest, document.job, 1).await;
        let (seq, event) = conversation.event().await;
        assert!(matches!(event, GuestEvent::StepStarted(_)));
        conversation.ack(seq).await;
        conversation.send(&ToGuest::Cancel).await;
        let events = conversation.finish().await;
        let ends: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                GuestEvent::StepFinished(step) => Some(step.conclusion),
                _ => None,
            })
            .collect();
        assert_eq!(ends, [Conclusion::Cancelled, Conclusion::Skipped, Conclusion::Success]);
        assert_eq!(lines(&events).last().unwrap(), "cleaned up");
        assert_eq!(events.last(), Some(&GuestEvent::Finished(JobResult::Cancelled)));
        machine.destroy().await;
    }
    host.assert_empty();
}

#[tokio::test]
async fn a_full_spool_holds_up_the_step_and_loses_nothing() {
    const LINES: usize = 5000;
    const BYTES: usize = 16 * 1024;
    let host = Host::new();
    let (machine, guest, document) = host.job(&[&format!("flood {LINES} {BYTES}")]).await;
    let mut conversation = Conversation::attach(&guest, document.job, 1).await;
    let size = |event: &GuestEvent| match event {
        GuestEvent::Log(batch) => {
            batch.lines.iter().map(|line| line.text.as_bytes().len() as u64).sum::<u64>()
        }
        _ => 0,
    };
    let (mut events, mut bytes, mut last) = (Vec::new(), 0, 0);
    // Nothing is acknowledged, and the spool fills up, but for the frames around the lines.
    while bytes < GUEST_SPOOL_BYTES - (GUEST_SPOOL_BYTES >> 6) {
        let (seq, event) = conversation.event().await;
        (bytes, last) = (bytes + size(&event), seq);
        events.push(event);
    }
    // A step that were not held up would have more to say at once; a moment tells.
    let moment = Duration::from_millis(500);
    while let Ok((seq, event)) = tokio::time::timeout(moment, conversation.event()).await {
        (bytes, last) = (bytes + size(&event), seq);
        events.push(event);
    }
    assert!(bytes < GUEST_SPOOL_BYTES + (1 << 20), "{bytes} bytes");
    conversation.ack(last).await;
    events.extend(conversation.finish().await);
    assert_eq!(lines(&events).len(), LINES);
    machine.destroy().await;
    host.assert_empty();
}

#[tokio::test]
async fn lines_wait_for_company_but_not_for_long() {
    let host = Host::new();
    let begun = Instant::now();
    let (machine, guest, document) = host.job(&["lines 200 2"]).await;
    let mut conversation = Conversation::attach(&guest, document.job, 1).await;
    let events = conversation.finish().await;
    let batches = events.iter().filter(|event| matches!(event, GuestEvent::Log(_))).count();
    assert_eq!(lines(&events).len(), 200);
    // One batch every 40 ms at most, and those of the step's beginning and end.
    let most = 5 + begun.elapsed().as_millis() / 40;
    assert!(batches >= 3 && batches as u128 <= most, "{batches} batches, at most {most}");
    machine.destroy().await;
    host.assert_empty();
}
