//! A service whose disk is full.

use std::fs::File;
use std::io::Write;

use common::event::JobResult;
use simulators::jobs::job;

use crate::harness::{Host, moment, numbered};

/// Gives the program a state directory on a small disk of its own.
const SMALL_DISK: &str = r#"
mkdir -p "$SOLSTICE_STATE_DIR"
mount -t tmpfs -o size=48M,mode=700 none "$SOLSTICE_STATE_DIR" || exit 99
exec "$@"
"#;

fn small_disk() -> Host {
    let unshare =
        if nix::unistd::geteuid().is_root() { "--mount" } else { "--map-root-user --mount" };
    let unshare = format!("exec unshare {unshare} sh -c \"$0\" sh \"$@\"");
    Host::new().env("SOLSTICE_DISK_RESERVE", "1M").through(&["sh", "-c", &unshare, SMALL_DISK])
}

/// Writes until nothing fits any more.
fn fill(file: &mut File) {
    for size in [1 << 20, 4096, 1] {
        while file.write(&vec![0; size]).is_ok_and(|written| written > 0) {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_no_job_for_longer_than_it_is_full() {
    let host = small_disk();
    let service = host.serve().await;
    let id = service.submit(&job("scripted", &["lines 400 10", "echo end"])).await;
    service.wait_for(id, &moment(200)).await;
    let path = service.view(&host.state()).join("ballast");
    fill(&mut File::create(&path).unwrap());
    // What cannot be remembered is not taken.
    let refused = service.try_submit(&job("scripted", &["echo later"])).await.unwrap_err();
    assert!(refused.contains("disk"), "{refused}");
    service.wait_for_error("journal").await;
    let said = host.diagnostics();
    assert!(said.contains("jobs' journals cannot be written"), "{said}");
    std::fs::remove_file(&path).unwrap();
    let received = service.finish(id).await;
    assert_eq!(received.lines(), [numbered(400), vec!["end".to_owned()]].concat());
    assert_eq!(received.finished().unwrap().result, JobResult::Success);
    let later = service.submit(&job("scripted", &["echo later"])).await;
    assert_eq!(service.finish(later).await.lines(), ["later"]);
    service.stop().await;
}
