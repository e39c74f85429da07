//! Questions for a reservation.

use std::collections::BTreeMap;

use common::ids::{HostId, ReservationId};
use common::time::Timestamp;
use queue::message::{Reserve, Reserved};
use queue::{Heard, Queue, QueueError};

use crate::on_both;
use crate::world::{World, patient, within};

on_both! {
    every_question_has_its_own_answer,
    one_host_hears_a_question,
    without_an_answer_the_asker_is_told,
    an_answer_that_nobody_waits_for_harms_nothing,
}

pub(crate) fn question(want: u32) -> Reserve {
    Reserve {
        id: ReservationId::new(),
        runner: "runner-1".to_owned(),
        labels: vec!["debian-12".to_owned()],
        want,
    }
}

pub(crate) fn answer(question: &Reserve) -> Reserved {
    Reserved {
        id: question.id,
        count: question.want,
        labels: question.labels.clone(),
        expires: Timestamp::now(),
    }
}

/// Answers so many questions, last one first, and gives how many of them this host heard.
async fn host(queue: Queue, count: usize) -> usize {
    let mut receiver = within(queue.control(HostId::new())).await;
    let mut waiting = Vec::new();
    while waiting.len() < count {
        let Heard::Reserve(question, replier) = within(receiver.next()).await else {
            panic!("not a question");
        };
        waiting.push((question, replier));
    }
    for (question, replier) in waiting.into_iter().rev() {
        replier.answer(answer(&question)).await;
    }
    count
}

async fn every_question_has_its_own_answer(world: World) {
    const COUNT: u32 = 20;
    let answering = tokio::spawn(host(world.process().await, COUNT as usize));
    let asking = world.process().await;
    let mut tasks = tokio::task::JoinSet::new();
    for want in 1..=COUNT {
        let queue = asking.clone();
        tasks.spawn(async move {
            let question = question(want);
            (queue.reserve(&question).await, question)
        });
    }
    while let Some(result) = patient(tasks.join_next()).await {
        let (answer, question) = result.unwrap();
        let answer = answer.unwrap();
        assert_eq!((answer.id, answer.count), (question.id, question.want));
    }
    assert_eq!(patient(answering).await.unwrap(), COUNT as usize);
}

async fn one_host_hears_a_question(world: World) {
    const COUNT: usize = 10;
    let asking = world.process().await;
    let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel();
    let mut hosts = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let mut receiver = within(world.process().await.control(HostId::new())).await;
        let heard = heard.clone();
        hosts.spawn(async move {
            while let Ok(Heard::Reserve(question, replier)) = receiver.next().await {
                heard.send(question.id).unwrap();
                replier.answer(answer(&question)).await;
            }
        });
    }
    for _ in 0..COUNT {
        within(asking.reserve(&question(1))).await;
    }
    let mut times = BTreeMap::new();
    while let Ok(id) = hearing.try_recv() {
        *times.entry(id).or_insert(0) += 1;
    }
    assert_eq!(times.len(), COUNT);
    assert!(times.values().all(|&count| count == 1), "{times:?}");
    hosts.abort_all();
}

async fn without_an_answer_the_asker_is_told(world: World) {
    let asking = world.process().await;
    let mut receiver = within(world.process().await.control(HostId::new())).await;
    let question = question(1);
    let (result, heard) = tokio::join!(patient(asking.reserve(&question)), async {
        // Heard, and kept without an answer until the asker has given up.
        within(receiver.next()).await
    });
    assert!(matches!(result, Err(QueueError::NoAnswer { .. })), "{result:?}");
    assert!(matches!(heard, Heard::Reserve(heard, _) if heard == question));
}

async fn an_answer_that_nobody_waits_for_harms_nothing(world: World) {
    let asking = world.process().await;
    let mut receiver = within(world.process().await.control(HostId::new())).await;
    let abandoned = question(1);
    let replier = tokio::select! {
        result = asking.reserve(&abandoned) => panic!("answered by nobody: {result:?}"),
        heard = receiver.next() => match heard.unwrap() {
            Heard::Reserve(_, replier) => replier,
            Heard::Control(delivery) => panic!("unexpected {delivery:?}"),
        },
    };
    patient(replier.answer(answer(&abandoned))).await;
    let second = question(2);
    let (result, ()) = tokio::join!(patient(asking.reserve(&second)), async {
        let Heard::Reserve(question, replier) = within(receiver.next()).await else {
            panic!("not a question");
        };
        replier.answer(answer(&question)).await;
    });
    assert_eq!(result.unwrap().id, second.id);
}
