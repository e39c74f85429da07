//! The legs of a matrix.

use serde_json::{Map, Value};

use super::expression::{Scope, Unknown, display};
use super::yaml::Node;

/// The values of one leg.
pub(super) type Leg = Vec<(String, Node)>;

/// The legs of a `strategy.matrix`, in the order of their names. Without a matrix there is one leg
/// without values.
pub(super) fn legs(matrix: Option<&Node>, scope: &Scope) -> Result<Vec<Leg>, Unknown> {
    let Some(matrix) = matrix else { return Ok(vec![Vec::new()]) };
    let matrix = resolve(matrix, scope)?;
    let mut legs: Vec<Leg> = vec![Vec::new()];
    let dimensions =
        || matrix.entries().iter().filter(|(key, _)| key != "include" && key != "exclude");
    for (key, values) in dimensions() {
        let values = resolve(values, scope)?;
        let values = match &values {
            Node::List(items) => items.as_slice(),
            single => std::slice::from_ref(single),
        };
        legs = legs
            .iter()
            .flat_map(|leg| {
                values.iter().map(move |value| {
                    let mut leg = leg.clone();
                    leg.push((key.clone(), value.clone()));
                    leg
                })
            })
            .collect();
    }
    let listed = |key| matrix.get(key).map(|node| resolve(node, scope)).transpose();
    let exclude = listed("exclude")?;
    let excluded = exclude.iter().flat_map(Node::items).collect::<Vec<_>>();
    legs.retain(|leg| {
        !excluded.iter().any(|exclude| {
            exclude.entries().iter().all(|(key, value)| {
                leg.iter().any(|(name, has)| name == key && has.value() == value.value())
            })
        })
    });
    let include = listed("include")?;
    if include.is_some() && dimensions().next().is_none() {
        legs.clear();
    }
    let original = legs.clone();
    for include in include.iter().flat_map(Node::items) {
        let mut joined = false;
        for (leg, original) in legs.iter_mut().zip(&original) {
            let fits = include.entries().iter().all(|(key, value)| {
                original.iter().all(|(name, has)| name != key || has.value() == value.value())
            });
            if fits {
                joined = true;
                for (key, value) in include.entries() {
                    leg.retain(|(name, _)| name != key);
                    leg.push((key.clone(), value.clone()));
                }
            }
        }
        if !joined {
            legs.push(include.entries().to_vec());
        }
    }
    if legs.is_empty() {
        legs.push(Vec::new());
    }
    legs.sort_by_key(name);
    Ok(legs)
}

/// What stands behind the name of a job: the leg's values in the order of their keys.
pub(super) fn name(leg: &Leg) -> String {
    let mut sorted: Vec<_> = leg.iter().collect();
    sorted.sort_by_key(|(key, _)| key);
    let values: Vec<_> = sorted.iter().map(|(_, value)| display(&value.value())).collect();
    format!("({})", values.join(", "))
}

/// A leg as the `matrix` context.
pub(super) fn context(leg: &Leg) -> Value {
    Value::Object(
        leg.iter().map(|(key, value)| (key.clone(), value.value())).collect::<Map<_, _>>(),
    )
}

/// A leg as the matrix of a payload: each dimension a list of one (forgejo-runner-protocol 7.1).
pub(super) fn reduced(leg: &Leg) -> Node {
    Node::Map(
        leg.iter().map(|(key, value)| (key.clone(), Node::List(vec![value.clone()]))).collect(),
    )
}

/// A node that may be an expression.
fn resolve(node: &Node, scope: &Scope) -> Result<Node, Unknown> {
    match node.text() {
        Some(text) if text.contains("${{") => scope.template(text).map(|value| Node::of(&value)),
        _ => Ok(node.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expand(source: &str) -> Vec<Value> {
        let scope = Scope::default().with("vars", json!({"OS": "[\"a\", \"b\"]"}));
        let legs = legs(Some(&Node::parse(source).unwrap()), &scope).unwrap();
        legs.iter().map(context).collect()
    }

    #[test]
    fn legs_are_products_with_exceptions() {
        assert_eq!(legs(None, &Scope::default()), Ok(vec![Vec::new()]));
        assert_eq!(
            expand("os: [a, b]\nv: [1, 2]\nexclude: [{os: b, v: 1}]\n"),
            [json!({"os": "a", "v": 1}), json!({"os": "a", "v": 2}), json!({"os": "b", "v": 2})]
        );
        assert_eq!(
            expand("os: [a, b]\ninclude: [{os: a, x: 1}, {os: c, x: 2}, {y: 3}]\n"),
            [
                json!({"os": "a", "x": 1, "y": 3}),
                json!({"os": "b", "y": 3}),
                json!({"os": "c", "x": 2})
            ]
        );
        assert_eq!(expand("include: [{a: 1}, {a: 2}]"), [json!({"a": 1}), json!({"a": 2})]);
        assert_eq!(
            expand("os: ${{ fromJSON(vars.OS) }}"),
            [json!({"os": "a"}), json!({"os": "b"})]
        );
    }

    #[test]
    fn a_leg_has_a_name_and_lists_of_one() {
        let matrix = Node::parse("node: ['20']\nimage: [bookworm]").unwrap();
        let leg = legs(Some(&matrix), &Scope::default()).unwrap().remove(0);
        assert_eq!(name(&leg), "(bookworm, 20)");
        assert_eq!(reduced(&leg).value(), json!({"node": ["20"], "image": ["bookworm"]}));
    }
}
