//! Streams of events.

use std::path::Path;
use std::time::Duration;

use common::event::{EventBody, JobResult, LogBatch, LogLine, Stream};
use common::frame::Decoder;
use common::ids::JobId;
use common::time::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::backend::{detail, finished};
use super::http::{Answer, get, request};
use super::{Service, service, within};
use crate::api::connection::GRACE;
use crate::api::stream::KEEP_ALIVE;
use crate::api::wire::{Place, StreamPart};
use crate::store::JobState;

fn line(text: &[u8]) -> EventBody {
    let line = LogLine {
        time: Timestamp::from_micros(1_700_000_000_000_000),
        stream: Stream::Stdout,
        text: text.to_vec().into(),
    };
    EventBody::Log(LogBatch { step: Some(1), lines: vec![line] })
}

/// A job that runs and has said so many lines.
fn job(service: &Service, lines: usize) -> JobId {
    let job = service.backend.add(detail(JobState::Running));
    service.backend.happen(job, (1..=lines).map(|number| line(format!("{number}").as_bytes())));
    job
}

/// The parts of a whole stream.
fn parts(answer: &Answer) -> Vec<StreamPart> {
    assert_eq!(answer.status, 200, "{}", answer.error());
    let mut decoder = Decoder::default();
    decoder.push(&answer.body);
    std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
}

/// The numbers of the events in them.
fn numbers(parts: &[StreamPart]) -> Vec<u64> {
    let events = parts.iter().flat_map(|part| match part {
        StreamPart::Events(events) => events.as_slice(),
        _ => &[],
    });
    events.map(|event| event.seq).collect()
}

/// A stream that is read part by part.
struct Live {
    stream: UnixStream,
    decoder: Decoder,
}

impl Live {
    async fn open(socket: &Path, target: &str) -> Self {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        stream.write_all(&request("GET", target, "", b"")).await.unwrap();
        let mut live = Self { stream, decoder: Decoder::default() };
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(live.stream.read_u8().await.unwrap());
        }
        assert_eq!(Answer::parse(&head).status, 200);
        live
    }

    async fn next(&mut self) -> Option<StreamPart> {
        loop {
            if let Some(part) = self.decoder.next_frame().unwrap() {
                return Some(part);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).await {
                Ok(count) if count > 0 => self.decoder.push(&bytes[..count]),
                _ => return None,
            }
        }
    }
}

#[tokio::test]
async fn a_job_that_is_over_is_read_to_its_end() {
    let service = service();
    let job = job(&service, 9);
    // Bytes that are no text cross unchanged.
    service.backend.happen(job, [line(b"\xff\x00"), finished(JobResult::Failure)]);
    let whole = parts(&get(&service.socket(), &format!("/v1/jobs/{job}/events")).await);
    assert_eq!(numbers(&whole), (1..=11).collect::<Vec<_>>());
    let all = whole.into_iter().flat_map(|part| match part {
        StreamPart::Events(events) => events,
        other => panic!("{other:?}"),
    });
    assert_eq!(all.collect::<Vec<_>>(), service.backend.state().events[&job]);
    within(service.backend.streams(0)).await;
    for (after, expected) in [("1.8", vec![9, 10, 11]), ("1.11", vec![]), ("2.1", vec![])] {
        let target = format!("/v1/jobs/{job}/events?until=final&after={after}");
        assert_eq!(numbers(&parts(&get(&service.socket(), &target).await)), expected, "{after}");
    }
    service.stop().await;
}

#[tokio::test]
async fn what_is_written_can_be_read_while_the_job_runs() {
    let service = service();
    let socket = service.socket();
    let running = job(&service, 6);
    let waiting = service.backend.add(detail(JobState::Queued));
    for (job, expected) in [(running, (1..=6).collect::<Vec<_>>()), (waiting, vec![])] {
        let target = format!("/v1/jobs/{job}/events?until=written");
        assert_eq!(numbers(&parts(&get(&socket, &target).await)), expected);
    }
    service.stop().await;
}

#[tokio::test]
async fn events_arrive_as_they_happen_also_of_a_job_that_waits() {
    let service = service();
    let job = service.backend.add(detail(JobState::Queued));
    let mut live = Live::open(&service.socket(), &format!("/v1/jobs/{job}/events")).await;
    service.backend.happen(job, [line(b"one")]);
    assert_eq!(numbers(&[within(live.next()).await.unwrap()]), [1]);
    service.backend.happen(job, [line(b"two")]);
    assert_eq!(numbers(&[within(live.next()).await.unwrap()]), [2]);
    service.backend.happen(job, [finished(JobResult::Success)]);
    assert_eq!(numbers(&[within(live.next()).await.unwrap()]), [3]);
    assert_eq!(within(live.next()).await, None);
    service.stop().await;
}

#[tokio::test]
async fn a_log_that_is_not_there_is_an_error_at_once() {
    let service = service();
    let unknown = JobId::new();
    let answer = get(&service.socket(), &format!("/v1/jobs/{unknown}/events")).await;
    assert_eq!((answer.status, answer.error().contains("there is no job")), (404, true));
    let old = service.backend.add(detail(JobState::Done));
    let answer = get(&service.socket(), &format!("/v1/jobs/{old}/events")).await;
    assert_eq!(answer.status, 410);
    assert_eq!(answer.error(), format!("the log of job {old} is not kept any more / -"));
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_shows_that_it_lives() {
    let service = service();
    let job = job(&service, 1);
    let mut live = Live::open(&service.socket(), &format!("/v1/jobs/{job}/events")).await;
    assert_eq!(numbers(&[live.next().await.unwrap()]), [1]);
    for _ in 0..3 {
        let before = Instant::now();
        assert_eq!(live.next().await, Some(StreamPart::Alive));
        assert!(before.elapsed() <= KEEP_ALIVE + Duration::from_secs(1));
    }
    drop(live);
    service.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_stream() {
    let service = service();
    let job = job(&service, 1);
    let target = format!("/v1/jobs/{job}/events");
    let mut live = Live::open(&service.socket(), &target).await;
    let mut other = Live::open(&service.socket(), &target).await;
    assert!(within(live.next()).await.is_some() && within(other.next()).await.is_some());
    within(service.backend.streams(2)).await;
    drop(live);
    within(service.backend.streams(1)).await;
    // The other goes on.
    service.backend.happen(job, [finished(JobResult::Success)]);
    assert_eq!(numbers(&[within(other.next()).await.unwrap()]), [2]);
    service.stop().await;
}

#[tokio::test]
async fn a_slow_reader_costs_no_memory() {
    /// Events that may be on their way: what the socket and the connection hold.
    const AHEAD: usize = 64;
    const BYTES: usize = 64 * 1024;
    let service = service();
    let job = service.backend.add(detail(JobState::Running));
    let text = vec![b'x'; BYTES];
    service.backend.happen(job, (0..500).map(|_| line(&text)));
    service.backend.happen(job, [finished(JobResult::Success)]);
    let mut live = Live::open(&service.socket(), &format!("/v1/jobs/{job}/events")).await;
    let mut taken = 0;
    while let Some(part) = within(live.next()).await {
        taken += numbers(&[part]).len();
        // Time in which the service could read on.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let given = service.backend.state().given;
        assert!(given - taken <= AHEAD, "{given} read, {taken} taken");
    }
    assert_eq!(taken, 501);
    service.stop().await;
}

#[tokio::test]
async fn events_beyond_a_frame_come_in_several() {
    let service = service();
    let job = service.backend.add(detail(JobState::Running));
    // Four events are read at a time, and together they are over the limit.
    let text = vec![b'x'; 1_500_000];
    service.backend.happen(job, [line(&text), line(&text), line(&text), line(&text)]);
    service.backend.happen(job, [finished(JobResult::Success)]);
    let whole = parts(&get(&service.socket(), &format!("/v1/jobs/{job}/events")).await);
    assert_eq!(numbers(&whole), [1, 2, 3, 4, 5]);
    assert_eq!(whole.len(), 3);
    service.stop().await;
}

#[tokio::test]
async fn a_service_that_stops_says_so_in_its_streams() {
    let service = service();
    let job = job(&service, 1);
    let mut live = Live::open(&service.socket(), &format!("/v1/jobs/{job}/events")).await;
    assert!(within(live.next()).await.is_some());
    service.stop.cancel();
    let Some(StreamPart::Failed { status, error }) = within(live.next()).await else {
        panic!("no failure")
    };
    assert_eq!((status, error.error.as_str()), (503, "the service stops"));
    assert_eq!(within(live.next()).await, None);
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_stuck_does_not_hold_up_the_end() {
    let service = service();
    let job = service.backend.add(detail(JobState::Running));
    service.backend.happen(job, (0..200).map(|_| line(&[b'x'; 64 * 1024])));
    let stuck = Live::open(&service.socket(), &format!("/v1/jobs/{job}/events")).await;
    let before = Instant::now();
    let backend = std::sync::Arc::clone(&service.backend);
    service.stop().await;
    assert!(before.elapsed() <= GRACE + Duration::from_secs(1));
    backend.streams(0).await;
    drop(stuck);
}

#[test]
fn places_are_ordered_and_survive_text() {
    let place = |text: &str| text.parse::<Place>().unwrap();
    assert!(place("1.17") < place("2.1") && place("2.1") < place("2.10"));
    assert_eq!(place("3.4").to_string(), "3.4");
    for bad in ["", "1", "1.", ".1", "1.2.3", "-1.2", "a.b", "99999999999.1"] {
        assert!(bad.parse::<Place>().is_err(), "{bad:?}");
    }
}
