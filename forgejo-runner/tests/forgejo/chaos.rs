//! Faults and crashes at moments of the dice, and what must hold all the same. The seed is printed,
//! and `SOLSTICE_CHAOS_SEED` gives the same story again.

use std::time::Duration;

use common::event::Conclusion;
use rand::Rng;
use rand::rngs::StdRng;
use simulators::forgejo::{Fault, Profile, Rpc, Scope, Status};

use crate::harness::{Job, PATIENCE, World};

const REPOSITORY: &str = "team/project";
const JOBS: usize = 3;
const STEPS: u32 = 3;
const LINES: usize = 12;

/// A job for each leg, with three steps.
fn workflow() -> String {
    let legs: Vec<String> = (0..JOBS).map(|leg| leg.to_string()).collect();
    let steps: String =
        (0..STEPS).map(|step| format!("      - {{ name: Step {step}, run: x }}\n")).collect();
    format!(
        "on: push\njobs:\n  job:\n    runs-on: tiny\n    strategy: {{ matrix: {{ leg: [{}] }} }}\n    \
         steps:\n{steps}",
        legs.join(", ")
    )
}

fn fault(dice: &mut StdRng) -> Fault {
    match dice.random_range(0..9) {
        0 => Fault::DropRequest,
        1 => Fault::DropResponse,
        2 => Fault::ResetInBody,
        3 => Fault::TruncateBody,
        4 => Fault::Page(502),
        5 => Fault::AckFewer(dice.random_range(0..5)),
        6 => Fault::Delay(Duration::from_millis(dice.random_range(1..30))),
        7 => Fault::Error(connectrpc::ErrorCode::Unavailable),
        _ => Fault::SlowAnswer(Duration::from_millis(dice.random_range(1..30))),
    }
}

/// Tells the next part of a job's story; false when it is over.
async fn tell_on(job: &mut Job, told: &mut usize) -> bool {
    let part = *told;
    *told += 1;
    if part == 0 {
        job.boot().await;
        return true;
    }
    let (step, within) = ((part - 1) / (LINES + 2), (part - 1) % (LINES + 2));
    let step = u32::try_from(step).unwrap();
    if step == STEPS {
        job.finish(Conclusion::Success).await;
        return false;
    }
    match within {
        0 => job.start_step(step).await,
        line if line <= LINES => job.log(Some(step), &[&format!("line {line}")]).await,
        _ => job.end_step(step, Conclusion::Success).await,
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_every_row_is_there_once() {
    let mut dice = simulators::dice();
    let profile = [Profile::V15, Profile::V17][dice.random_range(0..2)];
    let world = World::new(profile).await;
    let identity = world.forge.create_runner("solstice", Scope::Global);
    let settings = || world.settings(vec![world.connection("main", &identity)]);
    for rpc in [Rpc::FetchTask, Rpc::UpdateTask, Rpc::UpdateLog] {
        for _ in 0..dice.random_range(0..4) {
            world.forge.faults().next(rpc, fault(&mut dice));
        }
    }
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", &workflow());
    let mut runner = Some(world.start(settings()).await);
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        jobs.push((world.hosts.job().await, 0));
    }
    while !jobs.is_empty() {
        let chosen = dice.random_range(0..jobs.len());
        let (job, told) = &mut jobs[chosen];
        let goes_on = tell_on(job, told).await;
        match dice.random_range(0..30) {
            0 => {
                drop(runner.take());
                runner = Some(world.start(settings()).await);
            }
            1 => job.tell_again().await,
            2 => {
                world.forge.faults().next(Rpc::UpdateLog, fault(&mut dice));
            }
            3 => {
                world.forge.faults().next(Rpc::UpdateTask, fault(&mut dice));
            }
            4 => job.taken().await,
            _ => {}
        }
        if !goes_on {
            jobs.remove(chosen);
        }
    }
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.status, Status::Success, "{view}");
    let expected: Vec<String> = (1..=LINES).map(|line| format!("line {line}")).collect();
    for job in &view.jobs {
        for step in 0..STEPS {
            assert_eq!(job.step(&format!("Step {step}")).lines(), expected, "{view}");
        }
        assert!(job.log_closed);
    }
    world.end_after_crashes(runner.take().unwrap()).await;
}
