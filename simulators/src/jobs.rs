//! Jobs for scripted guests, and what must hold for their events.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use common::JobId;
use common::event::{EventBody, Finished, JobEvent, Stream};
use common::plan::{Containers, Dialect, PLAN_VERSION, Plan, Step, StepAction, Value};
use common::request::{
    Contexts, Deadlines, Envelope, Forge, JobBody, JobRequest, MachineSize, PROTOCOL_VERSION,
};

/// A job with a label whose steps are scripts, one text for each step.
#[must_use]
pub fn job(label: &str, scripts: &[&str]) -> JobRequest {
    let steps = scripts.iter().zip(0..).map(|(script, index)| step(index, script)).collect();
    let plan = Plan {
        version: PLAN_VERSION,
        dialect: Dialect::Github,
        server_version: None,
        job: "job".to_owned(),
        name: "job".to_owned(),
        env: Vec::new(),
        defaults: Vec::new(),
        containers: Containers::default(),
        steps,
        outputs: Value::empty_mapping(),
        timeout_minutes: None,
        file: None,
    };
    JobRequest {
        envelope: Envelope {
            version: PROTOCOL_VERSION,
            job: JobId::new(),
            forge: Forge::Local,
            repository: "team/project".to_owned(),
            label: label.to_owned(),
            size: MachineSize::default(),
            priority: 0,
            deadlines: Deadlines::default(),
            reply_to: String::new(),
            reservation: None,
        },
        body: JobBody {
            plan,
            contexts: Contexts::default(),
            secrets: BTreeMap::new(),
            masks: Vec::new(),
            tree: None,
            has_checkout: true,
            keep: None,
            keep_frozen: false,
            actions_url: None,
            run: None,
            services: Vec::new(),
            debug: None,
        },
    }
}

fn step(index: u32, script: &str) -> Step {
    Step {
        index,
        id: None,
        name: None,
        condition: None,
        env: Value::empty_mapping(),
        continue_on_error: None,
        timeout_minutes: None,
        action: StepAction::Run {
            script: Value::literal(script),
            shell: None,
            working_directory: None,
        },
        location: None,
    }
}

/// The events of one job as somebody received them, the same ones possibly several times.
#[derive(Debug, Default)]
pub struct Received {
    tries: BTreeMap<u32, BTreeMap<u64, JobEvent>>,
}

impl Received {
    /// Takes an event. An end that another host tells again, in a try of its own, is dropped.
    ///
    /// # Panics
    /// It was received before with another content, or follows the final one and is more than that.
    pub fn take(&mut self, event: JobEvent) {
        let (number, seq) = (event.try_number, event.seq);
        if let Some((last, _)) = self.finished_at() {
            if number > last.0 {
                let tells_end = match &event.event {
                    EventBody::Log(batch) => {
                        !batch.lines.iter().any(|line| is_of_step(line.stream))
                    }
                    body => matches!(body, EventBody::Finished(_)),
                };
                assert!(tells_end, "{event:?} follows the try with the final event");
                return;
            }
            assert!((number, seq) <= last, "{event:?} follows the final event");
        }
        match self.tries.entry(number).or_default().entry(seq) {
            Entry::Vacant(place) => {
                place.insert(event);
            }
            Entry::Occupied(before) => {
                assert_eq!(*before.get(), event, "one number, two events");
            }
        }
    }

    fn finished_at(&self) -> Option<((u32, u64), &Finished)> {
        self.events().find_map(|event| match &event.event {
            EventBody::Finished(finished) => Some(((event.try_number, event.seq), finished)),
            _ => None,
        })
    }

    /// All events, each once, in order.
    pub fn events(&self) -> impl Iterator<Item = &JobEvent> {
        self.tries.values().flat_map(BTreeMap::values)
    }

    /// How the job ended, once it has.
    #[must_use]
    pub fn finished(&self) -> Option<&Finished> {
        self.finished_at().map(|(_, finished)| finished)
    }

    /// The lines that steps wrote, in order.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.text(is_of_step)
    }

    /// Every line, those of Solstice and of the console too.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.text(|_| true)
    }

    fn text(&self, wanted: impl Fn(Stream) -> bool) -> Vec<String> {
        let batches = self.events().filter_map(|event| match &event.event {
            EventBody::Log(batch) => Some(&batch.lines),
            _ => None,
        });
        let lines = batches.flatten().filter(|line| wanted(line.stream));
        lines.map(|line| line.text.to_text().into_owned()).collect()
    }

    /// How many tries were begun.
    #[must_use]
    pub fn tries(&self) -> usize {
        self.tries.len()
    }

    /// Checks what holds for every job that is over: numbers from 1 without a hole in each try,
    /// exactly one final event, and that one last.
    ///
    /// # Panics
    /// It does not hold.
    pub fn assert_whole(&self) {
        for (number, events) in &self.tries {
            let numbers: Vec<u64> = events.keys().copied().collect();
            let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
            assert_eq!(numbers, expected, "the numbers of try {number}");
        }
        let finals =
            self.events().filter(|event| matches!(event.event, EventBody::Finished(_))).count();
        assert_eq!(finals, 1, "final events among {:#?}", self.log());
        let last = self.events().last().map(|event| &event.event);
        assert!(matches!(last, Some(EventBody::Finished(_))), "{last:?} is last");
    }
}

fn is_of_step(stream: Stream) -> bool {
    matches!(stream, Stream::Stdout | Stream::Stderr)
}
