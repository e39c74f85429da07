//! How fast the store is. Run with `--release -- --ignored --nocapture` for figures; a debug build
//! checks no more than that nothing grows with what is over.

use std::time::Instant;

use orchestrator::store::{JobFilter, JobState};

use crate::harness::*;

const JOBS: usize = 2_000;
const OVER: usize = 100_000;

async fn figures(world: World, name: &str) {
    let per_second = |count: usize, begun: Instant| count as f64 / begun.elapsed().as_secs_f64();
    let host = world.host(1_000_000).await;
    let jobs: Vec<_> = (0..JOBS).map(|_| world.message(|_| {})).collect();
    let begun = Instant::now();
    for batch in jobs.chunks(50) {
        world.store.accept(batch).await.unwrap();
    }
    println!("{name}: accepts {:.0} jobs/s in batches of 50", per_second(JOBS, begun));

    let begun = Instant::now();
    let mut claimed = Vec::new();
    while claimed.len() < JOBS / 2 {
        claimed.extend(world.claim_many(&host, host.room(), 1).await);
    }
    println!("{name}: claims {:.0} jobs/s one by one", per_second(JOBS / 2, begun));
    let begun = Instant::now();
    while claimed.len() < JOBS {
        claimed.extend(world.claim_many(&host, host.room(), 64).await);
    }
    println!("{name}: claims {:.0} jobs/s in batches of 64", per_second(JOBS / 2, begun));

    // A phase change each, as a thousand workers make them: at the same time.
    let begun = Instant::now();
    let changes = claimed.iter().take(1000).map(|one| {
        let job = one.message.envelope().job;
        world.store.advance(job, one.lease, JobState::Running, seconds(60))
    });
    for changed in futures_util::future::join_all(changes).await {
        changed.unwrap();
    }
    println!("{name}: 1000 phase changes in {:.3} s", begun.elapsed().as_secs_f64());

    // A hundred thousand jobs that are over.
    world
        .sql(&format!(
            "INSERT INTO jobs (id, forge, repository, label, priority, reply_to, state, since, \
             queued_until, created, ended, finished, delivered) \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {OVER}) \
             SELECT 'over-' || i, 'forgejo', 'team/old', '{LABEL}', 0, '', 'done', i, i, i, i, \
             '{{}}', TRUE FROM n"
        ))
        .await;
    world.sql("ANALYZE").await;
    let open = JobFilter { states: vec![JobState::Claimed], most: 10, ..JobFilter::default() };
    for (what, filter) in [("open", open), ("all", JobFilter { most: 10, ..Default::default() })] {
        let begun = Instant::now();
        assert_eq!(world.store.jobs(&filter).await.unwrap().len(), 10);
        println!("{name}: lists {what} jobs in {:.4} s", begun.elapsed().as_secs_f64());
    }
    let begun = Instant::now();
    world.claim_many(&host, host.room(), 1).await;
    println!("{name}: looks for a job in {:.4} s", begun.elapsed().as_secs_f64());
}

#[tokio::test]
#[ignore = "figures, for people"]
async fn figures_on_sqlite() {
    figures(World::sqlite().await, "sqlite").await;
}

#[tokio::test]
#[ignore = "figures, for people"]
async fn figures_on_postgres() {
    figures(World::postgres().await, "postgres").await;
}
