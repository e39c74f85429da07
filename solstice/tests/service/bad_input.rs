//! What the service is sent by mistake or malice.

use simulators::jobs::job;

use crate::harness::Host;
use crate::shared::Shared;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_comes_again_runs_once_and_another_with_its_id_is_refused() {
    let host = Host::new();
    let service = host.serve().await;
    let request = job("scripted", &["echo once"]);
    let id = service.submit(&request).await;
    assert_eq!(service.finish(id).await.lines(), ["once"]);
    let mut other = request.clone();
    other.envelope.repository = "team/other".to_owned();
    let refused = service.try_submit(&other).await.unwrap_err();
    assert!(refused.starts_with("409"), "{refused}");
    assert_eq!(service.finish(id).await.lines(), ["once"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_with_strange_characters_are_refused() {
    let host = Host::new();
    let service = host.serve().await;
    for label in ["../x", "a b", "$(id)", "", "-x"] {
        let mut request = job("scripted", &["echo never"]);
        request.envelope.label = label.to_owned();
        let refused = service.try_submit(&request).await;
        assert!(refused.is_err(), "{label:?}");
    }
    let id = service.submit(&job("scripted", &["echo fine"])).await;
    assert_eq!(service.finish(id).await.lines(), ["fine"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_database_is_refused_and_left_alone() {
    let host = Host::new();
    host.serve().await.stop().await;
    let path = host.state().join("solstice.db");
    let before = raise_version(&path);
    let (code, _, errors) = host.solstice(&["serve"]);
    assert_eq!(code, 2);
    assert!(errors.contains("newer"), "{errors}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_shared_database_is_refused_and_left_alone() {
    let shared = Shared::of_all().await;
    let host = shared.host();
    host.serve().await.stop().await;
    shared.query("UPDATE solstice_schema SET version = 9999").await;
    let tables = "SELECT table_name, column_name, data_type FROM information_schema.columns \
                  WHERE table_schema = 'public' ORDER BY 1, 2";
    let before = shared.query(tables).await;
    let (code, _, errors) = host.solstice(&["orchestrator"]);
    assert_eq!(code, 2);
    assert!(errors.contains("the database has version 9999"), "{errors}");
    assert!(errors.contains("start the newer program again"), "{errors}");
    assert_eq!(shared.query(tables).await, before);
    assert_eq!(shared.query("SELECT version FROM solstice_schema").await, "9999");
    // The newer program is gone again, as after a restored backup.
    shared.query("UPDATE solstice_schema SET version = 1").await;
    let service = host.serve().await;
    let id = service.submit(&job("scripted", &["echo fine"])).await;
    assert_eq!(service.finish(id).await.lines(), ["fine"]);
    service.stop().await;
}

/// SQLite keeps the user version in bytes 60 to 63 of the file.
fn raise_version(path: &std::path::Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[60..64].copy_from_slice(&9999_u32.to_be_bytes());
    std::fs::write(path, &bytes).unwrap();
    bytes
}
