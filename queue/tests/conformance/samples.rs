//! Messages to send.

use std::collections::BTreeMap;

use common::event::{EventBody, JobEvent, LogBatch, LogLine, Stream};
use common::ids::{HostId, JobId};
use common::plan::{Containers, Dialect, PLAN_VERSION, Plan, Value};
use common::request::{
    Contexts, Deadlines, Envelope, Forge, JobBody, JobRequest, MachineSize, PROTOCOL_VERSION,
};
use common::time::Timestamp;
use queue::Address;
use queue::message::{EventBatch, EventPart, JobMessage};
use queue::seal::KeyRing;

pub(crate) fn address(name: &str) -> Address {
    name.parse().unwrap()
}

/// A job of its own.
pub(crate) fn job() -> JobMessage {
    let envelope = Envelope {
        version: PROTOCOL_VERSION,
        job: JobId::new(),
        forge: Forge::Forgejo,
        repository: "team/widget".to_owned(),
        label: "debian-12".to_owned(),
        size: MachineSize::default(),
        priority: 0,
        deadlines: Deadlines::default(),
        reply_to: "runner-1".to_owned(),
        reservation: None,
    };
    let plan = Plan {
        version: PLAN_VERSION,
        dialect: Dialect::Forgejo,
        server_version: None,
        job: "build".to_owned(),
        name: "build".to_owned(),
        env: Vec::new(),
        defaults: Vec::new(),
        containers: Containers::default(),
        steps: Vec::new(),
        outputs: Value::empty_mapping(),
        timeout_minutes: None,
        file: None,
    };
    let body = JobBody {
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
    };
    JobMessage::seal(&JobRequest { envelope, body }, &KeyRing::ephemeral()).unwrap()
}

/// Events of a job of its own: one log line of so many bytes.
pub(crate) fn batch(host: HostId, bytes: usize) -> EventBatch {
    let time = Timestamp::from_micros(1_700_000_000_000_000);
    let line = LogLine { time, stream: Stream::Stdout, text: vec![b'x'; bytes].into() };
    let log = LogBatch { step: Some(0), lines: vec![line] };
    let event =
        JobEvent { job: JobId::new(), try_number: 1, seq: 1, time, event: EventBody::Log(log) };
    EventBatch { host, parts: vec![EventPart::seal(&[event], &KeyRing::ephemeral()).unwrap()] }
}
