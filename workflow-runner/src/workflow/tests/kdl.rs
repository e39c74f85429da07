//! Workflows in KDL.

use common::plan::{Dialect, StepAction, Value};
use serde_json::json;

use super::super::{Leg, expand, inspect, labels, plan, secrets_used_by};
use super::*;

const WHOLE: &str = r#"
name "ci"
env { LEVEL 3 }

job "test" {
    name "Test on ${{ matrix.os }}"
    os "omnios-bloody" "debian-12"
    needs "lint"
    if "success() && github.ref_name == 'main'"
    timeout-minutes 30
    env COLOR="always"
    setup "pkg install developer/gcc13" if="matrix.os == 'omnios-bloody'"
    setup "apt-get install -y gcc" if="matrix.os != 'omnios-bloody'"
    step "Build" {
        run "cargo build --release"
        shell "bash"
        env { KEY "${{ secrets.KEY }}"; DEBUG #true }
        working-directory "src"
    }
    step """
        cargo test
        echo done
        """
    step "cargo bench" if="always()" name="Bench" timeout-minutes=5
}

job "lint" {
    runs-on "tiny"
    step run="cargo fmt --check"
}
"#;

fn kdl(text: &str) -> Workflow {
    let inspection = inspect(text, "workflow.kdl", Dialect::Github);
    let errors: Vec<String> = inspection.errors.iter().map(ToString::to_string).collect();
    inspection.workflow.unwrap_or_else(|| panic!("{}", errors.join("\n")))
}

/// The script of each step, after the checkout.
fn scripts(job: &Job) -> Vec<&Value> {
    let steps = job.steps().iter().skip(1).map(|step| match &step.action {
        StepAction::Run { script, .. } => script,
        other => panic!("{other:?}"),
    });
    steps.collect()
}

#[test]
fn a_whole_workflow_is_read() {
    let workflow = kdl(WHOLE);
    assert_eq!(workflow.name.as_deref(), Some("ci"));
    assert_eq!(workflow.order(), ["lint", "test"]);
    let job = workflow.job("test").expect("it is there");
    let StepAction::Uses { reference, .. } = &job.steps()[0].action else { panic!("no checkout") };
    assert_eq!(reference, "actions/checkout@v4");
    assert_eq!(
        scripts(job),
        [
            &Value::literal("pkg install developer/gcc13"),
            &Value::literal("apt-get install -y gcc"),
            &Value::literal("cargo build --release"),
            &Value::literal("cargo test\necho done"),
            &Value::literal("cargo bench"),
        ]
    );
    let names: Vec<_> = job.steps().iter().map(|step| step.name.clone()).collect();
    let name = |text: &str| Some(Value::literal(text));
    assert_eq!(
        names,
        [name("Check out"), name("Set up"), name("Set up"), name("Build"), None, name("Bench")]
    );
    let indexes: Vec<u32> = job.steps().iter().map(|step| step.index).collect();
    assert_eq!(indexes, [0, 1, 2, 3, 4, 5]);
    assert_eq!(job.steps()[1].condition.as_deref(), Some("matrix.os == 'omnios-bloody'"));
    assert_eq!(job.steps()[5].timeout_minutes, Some(Value::literal("5")));
    let secrets = secrets_used_by(&workflow, "test");
    assert_eq!(secrets.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["KEY"]);
    assert!(secrets_used_by(&workflow, "lint").is_empty());
}

#[test]
fn each_system_is_a_leg_on_its_label() {
    let workflow = kdl(WHOLE);
    let job = workflow.job("test").expect("it is there");
    let legs: Vec<Leg> = expand(job, &scope()).expect("there are legs");
    let found: Vec<_> = legs
        .iter()
        .map(|leg| {
            let mut contexts = contexts();
            contexts.matrix = leg.matrix.clone();
            let scope = JobScope::new(&contexts, Dialect::Github).with_leg(leg);
            let plan = plan(&workflow, "test", leg, &contexts, Dialect::Github).expect("a plan");
            (labels(job, &scope).expect("labels"), plan.name, leg.matrix.clone())
        })
        .collect();
    let leg = |os: &str| (vec![os.to_owned()], format!("Test on {os}"), json!({"os": os}));
    assert_eq!(found, [leg("omnios-bloody"), leg("debian-12")]);
}

#[test]
fn a_short_workflow_is_read() {
    let workflow = kdl("job test { runs-on tiny; step make }\n");
    let job = workflow.job("test").expect("it is there");
    assert_eq!(scripts(job), [&Value::literal("make")]);
    assert_eq!(labels(job, &scope()).expect("labels"), ["tiny"]);
    assert_eq!(workflow.name, None);
}

#[test]
fn text_with_an_expression_is_a_template_and_no_other() {
    let workflow =
        kdl("job a { runs-on tiny; step \"echo ${{ github.sha }}\"; step #\"echo \"$\"\"# }\n");
    let job = workflow.job("a").expect("it is there");
    assert_eq!(
        scripts(job),
        [&Value::Template("echo ${{ github.sha }}".to_owned()), &Value::literal("echo \"$\"")]
    );
}

#[test]
fn what_nests_too_deep_is_refused() {
    let deep = "a {".repeat(5000);
    let inspection = inspect(&deep, "x.kdl", Dialect::Github);
    assert!(inspection.errors[0].to_string().contains("nests deeper"));
}
