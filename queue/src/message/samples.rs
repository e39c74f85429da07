//! Messages for tests, the same in every run.

use std::collections::BTreeMap;
use std::time::Duration;

use common::event::{
    Conclusion, DebugSession, EventBody, Finished, JobEvent, JobResult, LogBatch, LogLine,
    StepFinished, StepStarted, Stream,
};
use common::ids::JobId;
use common::infrastructure::{Cause, Infrastructure};
use common::plan::{Containers, Dialect, PLAN_VERSION, Plan, Step, StepAction, Value};
use common::request::{
    Contexts, Deadlines, DebugWish, Envelope, Forge, JobBody, JobRequest, MachineSize,
    PROTOCOL_VERSION, Secret, Service,
};
use common::size::ByteSize;
use common::time::Timestamp;
use serde_json::json;

use super::{Control, Progress, Release, Reserve, Reserved};

pub(super) const JOB: &str = "01890000-0000-7000-8000-000000000001";
pub(super) const HOST: &str = "01890000-0000-7000-8000-000000000002";
const RESERVATION: &str = "01890000-0000-7000-8000-000000000003";

pub(super) fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(super) fn time(seconds: u64) -> Timestamp {
    Timestamp::from_micros((1_700_000_000 + seconds) * 1_000_000)
}

pub(super) fn request() -> JobRequest {
    let envelope = Envelope {
        version: PROTOCOL_VERSION,
        job: id(JOB),
        forge: Forge::Forgejo,
        repository: "team/wídget".to_owned(),
        label: "debian-12_x.y".to_owned(),
        size: MachineSize { cpus: Some(2), memory: Some(ByteSize(2 << 30)) },
        priority: -3,
        deadlines: Deadlines::default(),
        reply_to: "forgejo-1".to_owned(),
        reservation: Some(id(RESERVATION)),
    };
    let script = Value::Sequence(vec![Value::Template("echo ${{ github.ref }}".to_owned())]);
    let env = Value::Mapping(vec![
        (Value::literal("A"), Value::Expression("secrets.TOKEN".to_owned())),
        (Value::Insert, Value::Expression("vars".to_owned())),
    ]);
    let step = Step {
        index: 0,
        id: None,
        name: Some(Value::literal("test")),
        condition: Some("always()".to_owned()),
        env,
        continue_on_error: None,
        timeout_minutes: Some(Value::literal("5")),
        action: StepAction::Run { script, shell: None, working_directory: None },
        location: None,
    };
    let plan = Plan {
        version: PLAN_VERSION,
        dialect: Dialect::Forgejo,
        server_version: Some("11.0.1".to_owned()),
        job: "build".to_owned(),
        name: "build".to_owned(),
        env: Vec::new(),
        defaults: Vec::new(),
        containers: Containers::default(),
        steps: vec![step],
        outputs: Value::empty_mapping(),
        timeout_minutes: None,
        file: Some(".forgejo/workflows/ci.yml".to_owned()),
    };
    let event = json!({ "number": 7, "big": u64::MAX, "half": 0.5, "list": [null, true, "ä"] });
    let contexts = Contexts {
        github: [("event".to_owned(), event)].into_iter().collect(),
        ..Contexts::default()
    };
    let body = JobBody {
        plan,
        contexts,
        secrets: BTreeMap::from([("TOKEN".to_owned(), Secret::new("hunter2"))]),
        masks: vec![Secret::new("hunter3")],
        tree: None,
        has_checkout: true,
        keep: Some(Duration::from_secs(60)),
        keep_frozen: false,
        actions_url: None,
        run: None,
        services: vec![Service {
            name: "cache".to_owned(),
            base_url: "https://forge.example/cache".to_owned(),
            token: Some("TOKEN".to_owned()),
            paths: vec!["/_apis/".to_owned()],
        }],
        debug: Some(DebugWish { keys: vec!["ssh-ed25519 AAAA".to_owned()] }),
    };
    JobRequest { envelope, body }
}

/// The events of one try, the final one among them.
pub(super) fn events() -> Vec<JobEvent> {
    let line =
        |text: &[u8]| LogLine { time: time(2), stream: Stream::Stdout, text: text.to_vec().into() };
    let started = StepStarted { step: 0, name: "test".to_owned(), time: time(1) };
    let finished = StepFinished {
        step: 0,
        name: "test".to_owned(),
        outcome: Conclusion::Failure,
        conclusion: Conclusion::Success,
        took: Duration::from_millis(1_500),
        time: time(3),
    };
    let end = Finished {
        result: JobResult::Failure,
        infrastructure: Some(Infrastructure::new(Cause::ALL[0], "no answer")),
    };
    let bodies = [
        EventBody::StepStarted(started),
        EventBody::Log(LogBatch { step: Some(0), lines: vec![line(b"one"), line(b"t\xc3\xa4wo")] }),
        EventBody::StepFinished(finished),
        EventBody::Outputs(BTreeMap::from([("a".to_owned(), "b".to_owned())])),
        EventBody::Debug(DebugSession::Opened {
            command: "ssh job@gateway".to_owned(),
            until: time(1800),
        }),
        EventBody::Debug(DebugSession::Closed),
        EventBody::Finished(end),
    ];
    numbered(id(JOB), 2, 1, bodies)
}

/// Gives events their places.
pub(super) fn numbered(
    job: JobId,
    try_number: u32,
    first: u64,
    bodies: impl IntoIterator<Item = EventBody>,
) -> Vec<JobEvent> {
    let place = |(event, seq)| JobEvent { job, try_number, seq, time: time(seq), event };
    bodies.into_iter().zip(first..).map(place).collect()
}

pub(super) fn controls() -> [(&'static str, Control); 3] {
    let progress = Progress { job: id(JOB), try_number: 2, seq: 5 };
    let release = Release { id: id(RESERVATION), count: 3 };
    [
        ("cancel", Control::Cancel { job: id(JOB), time: time(9) }),
        ("progress", Control::Progress(progress)),
        ("release", Control::Release(release)),
    ]
}

pub(super) fn reserve() -> Reserve {
    Reserve {
        id: id(RESERVATION),
        runner: "forgejo-1".to_owned(),
        labels: vec!["debian-12".to_owned(), "omnios".to_owned()],
        want: 4,
    }
}

pub(super) fn reserved() -> Reserved {
    Reserved {
        id: id(RESERVATION),
        count: 3,
        labels: vec!["debian-12".to_owned()],
        expires: time(15),
    }
}
