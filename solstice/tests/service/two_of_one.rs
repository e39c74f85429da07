//! Two orchestrators with one host id: a state directory that was copied.

use simulators::jobs::job;

use crate::shared::Shared;

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_host_id_is_refused_and_the_first_goes_on() {
    let shared = Shared::of_all().await;
    let (host, copy) = (shared.host(), shared.host());
    let service = host.serve().await;
    let runner = shared.runner("runner-1").await;
    drop(runner.queue.events(&runner.address, 1).await.unwrap());
    let running = runner.publish(job("scripted", &["echo begun", "sleep 1000", "echo end"])).await;
    service.wait_for(running, "begun").await;

    std::fs::create_dir_all(copy.state()).unwrap();
    std::fs::copy(host.state().join("host-id"), copy.state().join("host-id")).unwrap();
    // It waits until the first would be over, had it only been started again after a new boot.
    let (code, _, errors) = tokio::task::block_in_place(|| copy.solstice(&["orchestrator"]));
    assert_eq!(code, 2, "{errors}");
    let id = std::fs::read_to_string(host.state().join("host-id")).unwrap();
    let message = format!("another orchestrator runs with host id {}", id.trim());
    assert!(errors.contains(&message), "{errors}");
    assert!(errors.contains("remove the copied `host-id` file"), "{errors}");

    service.wait_for_error("host id").await;
    assert!(host.diagnostics().contains("was started with this host's id"));

    let after = runner.publish(job("scripted", &["echo after"])).await;
    let received = runner.finish(&[running, after]).await;
    assert_eq!(received[&running].lines(), ["begun", "end"]);
    assert_eq!(received[&running].tries(), 1);
    assert_eq!(received[&after].lines(), ["after"]);
    let hosts = service.get("/v1/hosts").await;
    assert_eq!(hosts.as_array().unwrap().len(), 1, "{hosts}");

    // With an id of its own it is a second host.
    std::fs::remove_file(copy.state().join("host-id")).unwrap();
    let second = copy.serve().await;
    let hosts = service.get("/v1/hosts").await;
    assert_eq!(hosts.as_array().unwrap().len(), 2, "{hosts}");
    second.stop().await;
    service.stop().await;
}
