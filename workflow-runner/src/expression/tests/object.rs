//! Mappings, small and indexed, in their three ways of comparing keys.

use super::*;

/// Mappings of a few keys and of enough that they have an index.
const SIZES: [usize; 4] = [2, 8, 9, 100];

fn fill(mut object: Object, size: usize) -> Object {
    for number in 0..size {
        object.insert(format!("Key{number}"), Value::Number(number as f64));
    }
    object
}

fn shown(object: &Object, name: &str) -> Option<String> {
    object.get(name).map(show)
}

#[test]
fn keys_are_found_without_regard_to_case() {
    for size in SIZES {
        let mut object = fill(Object::new(), size);
        assert_eq!(shown(&object, "KEY1").as_deref(), Some("1"));
        assert_eq!(shown(&object, "key"), None);
        let old = object.insert("kEY1", Value::text("new"));
        assert_eq!(old.as_ref().map(show).as_deref(), Some("1"));
        assert_eq!(object.len(), size);
        let (name, value) = object.iter().nth(1).unwrap();
        assert_eq!((name, value.to_text().as_str()), ("Key1", "new"));
    }
}

#[test]
fn keys_can_be_exact() {
    for size in SIZES {
        let mut object = fill(Object::case_sensitive(), size);
        assert_eq!(shown(&object, "Key1").as_deref(), Some("1"));
        assert_eq!(shown(&object, "key1"), None);
        assert!(object.insert("key1", Value::Null).is_none());
        assert_eq!(object.len(), size + 1);
        assert_eq!(shown(&object, "Key1").as_deref(), Some("1"));
        assert_eq!(shown(&object, "key1").as_deref(), Some("null"));
    }
}

#[test]
fn keys_can_be_kept_apart() {
    for size in SIZES {
        let mut object = fill(Object::keeping_spellings(), size);
        assert!(object.insert("KEY1", Value::text("upper")).is_none());
        assert_eq!(object.len(), size + 1);
        assert_eq!(shown(&object, "KEY1").as_deref(), Some("\"upper\""));
        assert_eq!(shown(&object, "Key1").as_deref(), Some("1"));
        // Not there as written: the first that differs in case only.
        assert_eq!(shown(&object, "key1").as_deref(), Some("1"));
        assert!(object.insert("KEY1", Value::Null).is_some());
        assert_eq!(object.len(), size + 1);
    }
}

#[test]
fn order_is_kept() {
    let object = fill(Object::new(), 50);
    let names: Vec<String> = object.iter().map(|(name, _)| name.to_owned()).collect();
    let expected: Vec<String> = (0..50).map(|number| format!("Key{number}")).collect();
    assert_eq!(names, expected);
}

#[test]
fn values_become_json_and_come_back() {
    let json =
        json!({"b": [1, -2.5, 1e300, "x", null, true], "a": {"c": {}}, "n": 9007199254740992_i64});
    assert_eq!(Value::from_json(&json).to_json().to_string(), json.to_string());
    assert_eq!(Value::Number(f64::NAN).to_json(), Json::Null);
    assert_eq!(Value::Number(f64::NEG_INFINITY).to_json(), Json::Null);
    assert_eq!(Value::Number(-0.0).to_json().to_string(), "0");
}
