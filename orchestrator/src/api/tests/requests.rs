//! Every path: what it answers, and what it refuses.

use common::event::JobResult;
use common::ids::JobId;
use common::limits::{JOB_REQUEST_BYTES, MIB};
use common::plan::{Containers, Dialect, PLAN_VERSION, Plan, Value};
use common::request::{Contexts, JobBody, JobRequest, PROTOCOL_VERSION, Secret};
use serde_json::json;

use super::backend::{detail, envelope, finished, host};
use super::http::{Answer, exchange, get, post, request};
use super::{Service, service, within};
use crate::api::{ApiError, ApiErrorKind};
use crate::store::JobState;

fn job_request() -> JobRequest {
    let contexts = Contexts {
        github: json!({ "event": { "n": 1, "list": [null, true, 1.5, "x"] } })
            .as_object()
            .unwrap()
            .clone(),
        ..Contexts::default()
    };
    JobRequest {
        envelope: envelope(JobId::new()),
        body: JobBody {
            plan: plan(Value::literal("x")),
            contexts,
            secrets: [("TOKEN".to_owned(), Secret::new("hunter2"))].into(),
            masks: vec![Secret::new("other")],
            tree: Some("/srv/project".into()),
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

fn plan(env: Value) -> Plan {
    Plan {
        version: PLAN_VERSION,
        dialect: Dialect::Forgejo,
        server_version: None,
        job: "build".to_owned(),
        name: "build".to_owned(),
        env: vec![Value::Mapping(vec![(Value::literal("A"), env)])],
        defaults: Vec::new(),
        containers: Containers::default(),
        steps: Vec::new(),
        outputs: Value::Mapping(Vec::new()),
        timeout_minutes: None,
        file: None,
    }
}

fn pack(request: &JobRequest) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmp_serde::encode::write_named(&mut bytes, request).unwrap();
    bytes
}

fn said(service: &Service) -> Vec<String> {
    std::mem::take(&mut service.backend.state().said)
}

#[tokio::test]
async fn jobs_are_listed_by_what_is_asked_for() {
    let service = service();
    let mut other = detail(JobState::Queued);
    other.job.repository = "me/other".to_owned();
    let queued = service.backend.add(other);
    let running = service.backend.add(detail(JobState::Running));
    let socket = service.socket();
    let listed = async |query: &str| -> Vec<String> {
        let answer = get(&socket, &format!("/v1/jobs{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.error());
        let jobs = answer.json();
        jobs.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
    };
    let (queued, running) = (queued.to_string(), running.to_string());
    let (queued, running) = (queued.as_str(), running.as_str());
    assert_eq!(listed("").await, [running, queued]);
    assert_eq!(listed("?most=1").await, [running]);
    assert_eq!(listed("?state=queued").await, [queued]);
    assert_eq!(listed("?state=queued,running").await, [running, queued]);
    assert_eq!(listed("?repository=me%2Fother").await, [queued]);
    assert_eq!(listed("?label=windows").await, [""; 0]);
    let detail = get(&socket, &format!("/v1/jobs/{running}")).await.json();
    assert_eq!(detail["job"]["state"], "running");
    assert_eq!(detail["envelope"]["reply_to"], "forgejo-1");
    service.stop().await;
}

#[tokio::test]
async fn a_job_arrives_as_it_was_sent() {
    let service = service();
    let request = job_request();
    let answer = post(&service.socket(), "/v1/jobs", &pack(&request)).await;
    assert_eq!((answer.status, &answer.json()["job"]), (201, &json!(request.envelope.job)));
    assert_eq!(service.backend.state().submitted, [request]);
    service.stop().await;
}

#[tokio::test]
async fn jobs_are_ended_and_run_again() {
    let service = service();
    let socket = service.socket();
    let mut leased = detail(JobState::Booting);
    let host = host("builder-1").report.host;
    leased.job.host = Some(host);
    let leased = service.backend.add(leased);
    let queued = service.backend.add(detail(JobState::Queued));
    let done = service.backend.add(detail(JobState::Running));
    service.backend.happen(done, [finished(JobResult::Success)]);
    let unknown = JobId::new();
    for (job, outcome, host) in [
        (leased, "ending", json!(host)),
        (queued, "was_queued", json!(null)),
        (done, "was_done", json!(null)),
        (unknown, "remembered", json!(null)),
    ] {
        let answer = post(&socket, &format!("/v1/jobs/{job}/cancel"), b"").await;
        assert_eq!(answer.json(), json!({ "outcome": outcome, "host": host }));
        assert_eq!(said(&service), [format!("cancel {job}")]);
    }
    post(&socket, &format!("/v1/jobs/{leased}/cancel?now=true"), b"").await;
    let destroy = format!("destroy {leased}");
    within(service.backend.until(|state| state.said.contains(&destroy))).await;
    let answer = post(&socket, &format!("/v1/jobs/{done}/retry"), b"").await;
    assert_eq!(answer.status, 201);
    assert!(answer.json()["job"].as_str().unwrap().parse::<JobId>().is_ok());
    assert_eq!(post(&socket, &format!("/v1/jobs/{queued}/retry"), b"").await.status, 409);
    assert_eq!(post(&socket, &format!("/v1/jobs/{unknown}/retry"), b"").await.status, 404);
    service.stop().await;
}

#[tokio::test]
async fn hosts_labels_and_draining() {
    let service = service();
    let socket = service.socket();
    let other = host("builder-2");
    let id = other.report.host;
    service.backend.change(|state| state.hosts.push(other));
    let draining = async || -> Vec<bool> {
        let hosts = get(&socket, "/v1/hosts").await.json();
        let rows = hosts.as_array().unwrap().iter();
        rows.map(|row| row["report"]["draining"].as_bool().unwrap()).collect()
    };
    let labels = get(&socket, "/v1/labels").await.json();
    assert_eq!(labels[0], json!({ "label": "tiny", "size": { "cpus": 1, "memory": 1 << 30 } }));
    assert_eq!(post(&socket, "/v1/drain", br#"{"on": true}"#).await.status, 200);
    assert_eq!(draining().await, [true, false]);
    let body = json!({ "host": id, "on": true }).to_string();
    assert_eq!(post(&socket, "/v1/drain", body.as_bytes()).await.json(), json!({}));
    assert_eq!(draining().await, [true, true]);
    assert_eq!(post(&socket, "/v1/drain", br#"{"on": false}"#).await.status, 200);
    assert_eq!(draining().await, [false, true]);
    let body = json!({ "host": JobId::new(), "on": true }).to_string();
    assert_eq!(post(&socket, "/v1/drain", body.as_bytes()).await.status, 404);
    service.stop().await;
}

#[tokio::test]
async fn every_response_names_the_versions() {
    let service = service();
    for target in ["/health", "/v1/jobs", "/v1/nothing", "/v1/jobs/x"] {
        let answer = get(&service.socket(), target).await;
        let version = format!("solstice-version: {}\r\n", env!("CARGO_PKG_VERSION"));
        assert!(answer.head.contains(&version), "{target}: {}", answer.head);
        let protocol = format!("solstice-protocol: {PROTOCOL_VERSION}\r\n");
        assert!(answer.head.contains(&protocol), "{target}: {}", answer.head);
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    }
    service.stop().await;
}

#[tokio::test]
async fn clients_of_another_protocol_are_told_so() {
    let service = service();
    let ask = async |version: &str| {
        let header = format!("solstice-protocol: {version}\r\n");
        exchange(&service.socket(), &request("GET", "/v1/jobs", &header, b"")).await
    };
    assert_eq!(ask(&PROTOCOL_VERSION.to_string()).await.status, 200);
    let newer = ask("7").await;
    assert_eq!(newer.status, 400);
    assert_eq!(
        newer.error(),
        "the client speaks protocol version 7, this service (version 0.1.0) speaks 1 / upgrade the \
         service"
    );
    assert!(ask("0").await.error().ends_with("/ upgrade the client"));
    assert_eq!(ask("one").await.error(), "solstice-protocol is not a number / -");
    // The version inside counts as well: a request may have been kept.
    let mut request = job_request();
    request.envelope.version = 2;
    let answer = post(&service.socket(), "/v1/jobs", &pack(&request)).await;
    assert!(answer.error().starts_with("the client speaks protocol version 2"));
    assert!(service.backend.state().submitted.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_a_sentence() {
    let service = service();
    let socket = service.socket();
    let check = async |method: &str, target: &str, body: &str, status: u16, error: &str| {
        let answer = exchange(&socket, &request(method, target, "", body.as_bytes())).await;
        assert_eq!(answer.status, status, "{method} {target}");
        assert!(answer.error().starts_with(error), "{method} {target}: {}", answer.error());
    };
    let job = JobId::new();
    check("DELETE", "/v1/jobs", "", 405, "/v1/jobs does not know DELETE / -").await;
    check("GET", &format!("/v1/jobs/{job}/cancel"), "", 405, "/v1/jobs/").await;
    check("GET", "/v2/jobs", "", 404, "there is no /v2/jobs / a newer client").await;
    check("GET", "/", "", 404, "there is no / / ").await;
    check("GET", "/v1/jobs/x", "", 400, "\"x\" is not the id of a job / -").await;
    check("GET", "/v1/jobs/..%2f..", "", 400, "\"../..\" is not the id").await;
    check("GET", &format!("/v1/jobs/{job}"), "", 404, &format!("there is no job {job} / `sol"))
        .await;
    check("GET", "/v1/jobs?state=dead", "", 400, "\"dead\" is not the state of a job / the").await;
    check("GET", "/v1/jobs?most=-1", "", 400, "Failed to deserialize query string").await;
    check("GET", "/v1/jobs?stat=done", "", 400, "Failed to deserialize query string").await;
    check("GET", &format!("/v1/jobs/{job}/events?after=1"), "", 400, "after: write a place").await;
    check("GET", &format!("/v1/jobs/{job}/events?until=x"), "", 400, "Failed").await;
    check("POST", &format!("/v1/jobs/{job}/cancel?now=2"), "", 400, "Failed").await;
    check("POST", "/v1/drain", "", 400, "the body is not what belongs here: EOF").await;
    check("POST", "/v1/drain", "{\"on\": true, \"of\": 1}", 400, "the body is not").await;
    check("POST", "/v1/jobs", "{}", 400, "the body is not a JobRequest as MessagePack").await;
    service.backend.change(|state| {
        state.refusal = Some(ApiError::new(ApiErrorKind::Unavailable, "the database is away"));
    });
    check("GET", "/v1/jobs", "", 503, "the database is away / -").await;
    assert!(said(&service).is_empty());
    service.stop().await;
}

#[tokio::test]
async fn a_broken_request_is_refused_and_nothing_of_it_is_quoted() {
    let service = service();
    let whole = pack(&job_request());
    let refused = async |bytes: &[u8]| {
        let answer = post(&service.socket(), "/v1/jobs", bytes).await;
        assert_eq!(answer.status, 400);
        let text = answer.error();
        assert!(text.contains("it goes wrong at byte") && !text.contains("hunter2"), "{text}");
    };
    refused(b"").await;
    refused(&whole[..whole.len() / 2]).await;
    refused(&[&whole[..], b"\0"].concat()).await;
    // A text where a mapping of secrets belongs.
    let secrets = whole.windows(7).position(|at| at == b"secrets").unwrap() + 7;
    let mut changed = whole.clone();
    changed.splice(secrets..=secrets, [0xa7].iter().chain(b"hunter2").copied());
    refused(&changed).await;
    refused(&vec![0x91; 1 << 20]).await;
    assert!(service.backend.state().submitted.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn the_deepest_request_is_read_and_a_deeper_one_refused() {
    let service = service();
    let mut request = job_request();
    let nested = |levels: usize| {
        (0..levels).fold(Value::literal("x"), |inner, _| Value::Sequence(vec![inner]))
    };
    request.body.plan = plan(nested(common::limits::YAML_DEPTH));
    let answer = post(&service.socket(), "/v1/jobs", &pack(&request)).await;
    assert_eq!(answer.status, 201);
    assert_eq!(service.backend.state().submitted, [request.clone()]);
    request.body.plan = plan(nested(10 * common::limits::YAML_DEPTH));
    let answer = post(&service.socket(), "/v1/jobs", &pack(&request)).await;
    assert_eq!(answer.status, 400);
    service.stop().await;
}

#[tokio::test]
async fn bodies_are_bounded() {
    let service = service();
    let socket = service.socket();
    let check = |answer: &Answer, limit: &str| {
        assert_eq!(answer.status, 413);
        assert_eq!(answer.error(), format!("the body is over the limit of {limit} / -"));
    };
    // Announced, and not even sent.
    let length = JOB_REQUEST_BYTES + 1;
    let head = format!("POST /v1/jobs HTTP/1.0\r\ncontent-length: {length}\r\n\r\n");
    check(&exchange(&socket, head.as_bytes()).await, "16 MiB");
    check(&post(&socket, "/v1/drain", &vec![b' '; 65 * 1024]).await, "64 KiB");
    // Not announced.
    let mut bytes = b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                      transfer-encoding: chunked\r\n\r\n"
        .to_vec();
    let chunk = vec![b'x'; MIB as usize];
    for _ in 0..=JOB_REQUEST_BYTES / MIB {
        bytes.extend_from_slice(format!("{MIB:x}\r\n").as_bytes());
        bytes.extend_from_slice(&chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    check(&exchange(&socket, &bytes).await, "16 MiB");
    service.stop().await;
}

#[tokio::test]
async fn what_is_no_http_ends_its_own_connection_only() {
    let service = service();
    let answer = exchange(&service.socket(), b"\x16\x03\x01 SSH-2.0-x\r\n\r\n").await;
    assert_eq!(answer.status, 400);
    assert_eq!(get(&service.socket(), "/health").await.status, 200);
    service.stop().await;
}
