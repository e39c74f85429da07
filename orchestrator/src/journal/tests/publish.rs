use super::*;
use crate::journal::publish::{WINDOW_BYTES, WINDOW_PARTS};

/// Nothing happens for a long time: everything that can happen by itself has happened.
async fn quiet() {
    tokio::time::sleep(STUCK).await;
}

fn progress(event: &JobEvent) -> Progress {
    Progress { job: event.job, try_number: event.try_number, seq: event.seq }
}

#[tokio::test(start_paused = true)]
async fn events_are_published_and_the_delivery_of_the_last_is_told() {
    let host = Host::new();
    let runner = Runner::new(&host);
    let journals = host.open_with(&runner);
    let mut delivered = journals.delivered();
    let job = JobId::new();
    let mut log = new_log(job, journals.create(job, address()).unwrap());
    log.notice(LINE).await.unwrap();
    runner.wait(|seen| seen.len() == 1).await;
    log.finish(JobResult::Success, None).await.unwrap();
    runner.wait(|seen| seen.len() == 2).await;
    let seen = runner.seen();
    assert_eq!(lines(&seen), [LINE]);
    journals.progress(progress(&seen[0]));
    // Of another try, of another job, and from the future: nobody can have taken those.
    journals.progress(Progress { try_number: 2, ..progress(&seen[1]) });
    journals.progress(Progress { job: JobId::new(), ..progress(&seen[1]) });
    journals.progress(Progress { seq: 3, ..progress(&seen[1]) });
    quiet().await;
    assert!(delivered.try_recv().is_err());
    journals.progress(progress(&seen[1]));
    assert_eq!(tokio::time::timeout(STUCK, delivered.recv()).await.unwrap(), Some(job));
    quiet().await;
    assert!(journals.shared.jobs().is_empty(), "nothing more is to be done with it");
    assert!(journals.has(job));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_fails_delays_and_loses_nothing() {
    let host = Host::new();
    let runner = Runner::new(&host);
    runner.failures.store(20, Ordering::Relaxed);
    let journals = host.open_with(&runner);
    let job = JobId::new();
    let mut log = new_log(job, journals.create(job, address()).unwrap());
    let mut expected = Vec::new();
    for number in 0..50 {
        log.notice(&format!("line {number}")).await.unwrap();
        expected.push(format!("line {number}"));
    }
    log.finish(JobResult::Success, None).await.unwrap();
    assert_eq!(lines(&read_all(&journals, job).await), expected, "the file does not wait");
    runner.wait(|seen| seen.len() == 51).await;
    assert_eq!(lines(&runner.seen()), expected);
    assert!(runner.attempts.load(Ordering::Relaxed) > 20);
    assert!(journals.shared.failing().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_further_ahead_than_the_window() {
    let host = Host::new();
    let runner = Runner::new(&host);
    let journals = host.open_with(&runner);
    for (text, notices) in [("x".repeat(60_000), 400), ("x".to_owned(), 2000)] {
        runner.seen.lock().unwrap().clear();
        runner.taken.send_replace((0, 0));
        let job = JobId::new();
        let mut log = new_log(job, journals.create(job, address()).unwrap());
        for number in 0..notices {
            log.notice(&format!("{number} {text}")).await.unwrap();
            // Each is a part of its own.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        log.finish(JobResult::Success, None).await.unwrap();
        quiet().await;
        let (parts, bytes) = *runner.taken.borrow();
        let full = parts >= WINDOW_PARTS || bytes >= WINDOW_BYTES;
        assert!(full && parts <= WINDOW_PARTS && bytes < WINDOW_BYTES + 200_000, "{parts} {bytes}");
        let ahead = runner.seen();
        assert!(ahead.len() < notices);
        // It goes on by as much as was taken.
        journals.progress(progress(&ahead[9]));
        quiet().await;
        let more = runner.seen().len() - ahead.len();
        assert!((8..=20).contains(&more), "{more}");
        // Who takes everything gets everything, once.
        while runner.seen().len() <= notices {
            let seen = runner.seen();
            journals.progress(progress(seen.last().unwrap()));
            quiet().await;
            assert!(runner.seen().len() > seen.len(), "it goes on");
        }
        let seqs: Vec<u64> = runner.seen().iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=notices as u64 + 1).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_process_publishes_again_and_who_has_it_drops_it() {
    let host = Host::new();
    let runner = Runner::new(&host);
    let job = JobId::new();
    let mut taken = queue::Sequencer::new(job);
    let mut all = Vec::new();
    for number in 0..3 {
        let journals = host.open_with(&runner);
        runner.seen.lock().unwrap().clear();
        let mut log = match journals.reopen(job, address()).unwrap() {
            Some(reopened) => resume(job, reopened),
            None => new_log(job, journals.create(job, address()).unwrap()),
        };
        log.notice(&format!("line {number}")).await.unwrap();
        if number == 2 {
            log.begin_try(2);
            log.finish(JobResult::Success, None).await.unwrap();
        }
        let expected = if number == 2 { 4 } else { number + 1 };
        runner.wait(|seen| seen.len() == expected).await;
        journals.crash().await;
        all.extend(taken.take(runner.seen()).unwrap());
    }
    assert_eq!(lines(&all), ["line 0", "line 1", "line 2"]);
    assert!(taken.is_finished());
    assert_eq!(all.len(), 4);
    // The end is not acknowledged: one who comes later publishes it once more and hears of it.
    let journals = host.open_with(&runner);
    let mut delivered = journals.delivered();
    drop(journals.reopen(job, address()).unwrap().unwrap());
    runner.wait(|seen| seen.len() == 8).await;
    journals.progress(taken.progress().unwrap());
    assert_eq!(tokio::time::timeout(STUCK, delivered.recv()).await.unwrap(), Some(job));
}
