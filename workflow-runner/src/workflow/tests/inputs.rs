//! The inputs of `workflow_dispatch`.

use serde_json::{Value as Json, json};

use super::workflow;
use crate::workflow::inputs_from;

const FILE: &str = "on:
  push:
  workflow_dispatch:
    inputs:
      text: {default: 3.10}
      flag: {type: boolean, default: true}
      count: {type: number, default: 2}
      level: {type: choice, options: [low, high], default: high}
      place: {type: environment}
      must: {required: true}
      bare:
jobs: {a: {runs-on: tiny, steps: [run: make]}}
";

fn inputs(given: &[(&str, &str)]) -> Result<Json, String> {
    let given: Vec<_> = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let workflow = workflow(FILE);
    inputs_from(&workflow, "workflow_dispatch", &given)
        .map(Json::Object)
        .map_err(|error| error.to_string())
}

#[test]
fn defaults_have_the_type_of_their_input() {
    assert_eq!(
        inputs(&[("must", "x")]),
        Ok(json!({
            "text": "3.1", "flag": true, "count": 2, "level": "high", "place": "", "must": "x",
            "bare": "",
        }))
    );
}

#[test]
fn what_is_given_counts() {
    let given = [
        ("text", "${{ secrets.CANARY }}"),
        ("FLAG", "False"),
        ("count", "0x10"),
        ("level", "low"),
        ("must", ""),
        ("must", "last"),
    ];
    assert_eq!(
        inputs(&given),
        Ok(json!({
            "text": "${{ secrets.CANARY }}", "flag": false, "count": 16, "level": "low",
            "place": "", "must": "last", "bare": "",
        }))
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    for (given, message) in [
        (&[][..], "the input \"must\" is required and was not given"),
        (&[("must", "x"), ("flag", "yes")], "\"flag\" must be true or false, not \"yes\""),
        (&[("must", "x"), ("count", "two")], "\"count\" must be a number, not \"two\""),
        (&[("must", "x"), ("count", "")], "\"count\" must be a number, not \"\""),
        (&[("must", "x"), ("level", "mid")], "\"level\" must be one of low, high, not \"mid\""),
        (&[("mst", "x")], "did you mean \"must\"?"),
        (&[("else", "x")], "its inputs are: text, flag,"),
    ] {
        let shown = inputs(given).expect_err(message);
        assert!(shown.contains(message), "{shown}");
    }
    let missing = inputs(&[]).expect_err("one is required");
    assert!(missing.starts_with("ci.yml:10:7:"), "{missing}");
}

#[test]
fn an_event_without_inputs_takes_none() {
    let workflow = workflow(FILE);
    assert_eq!(inputs_from(&workflow, "push", &[]), Ok(serde_json::Map::new()));
    let given = [("text".to_owned(), "x".to_owned())];
    let shown = inputs_from(&workflow, "push", &given).expect_err("no inputs").to_string();
    assert!(shown.contains("--event workflow_dispatch"), "{shown}");
}
