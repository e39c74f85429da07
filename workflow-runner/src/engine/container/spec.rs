//! What a job asks of one container, evaluated.

use common::request::Secret;

use crate::expression::Value;

use super::{tool, words};

/// What nobody may set by `options`: it is decided here.
const RESERVED: [&str; 4] = ["--network", "--net", "--entrypoint", "--name"];

/// A container that a job asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spec {
    /// The name of its image.
    pub(super) image: String,
    /// For the registry of that image.
    pub(super) credentials: Option<Credentials>,
    /// Variables.
    pub(super) env: Vec<(String, String)>,
    /// `HOST:CONTAINER`, or a port of the container alone.
    pub(super) ports: Vec<String>,
    /// As the engine's `--volume` takes them.
    pub(super) volumes: Vec<String>,
    /// Further options of the engine's `create`.
    pub(super) options: Vec<String>,
}

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) password: Secret,
}

impl Spec {
    /// Reads an evaluated container; absent where it has no image. `what` is what messages call it.
    pub(super) fn read(value: &Value, what: &str) -> Result<Option<Self>, String> {
        let read = match value {
            Value::Object(_) => Self::of_mapping(value),
            value => image(value).map(|image| image.map(Self::of_image)),
        };
        read.map_err(|error| format!("{what}: {error}"))
    }

    fn of_image(image: String) -> Self {
        Self {
            image,
            credentials: None,
            env: Vec::new(),
            ports: Vec::new(),
            volumes: Vec::new(),
            options: Vec::new(),
        }
    }

    fn of_mapping(value: &Value) -> Result<Option<Self>, String> {
        let part = |name: &str| value.get(name).unwrap_or(&Value::Null);
        let Some(image) = image(part("image"))? else { return Ok(None) };
        let options = text(part("options"), "options")?;
        let options = words::split(&options).map_err(|error| format!("options: {error}"))?;
        let is_reserved = |option: &&String| {
            let name = option.split_once('=').map_or(option.as_str(), |(name, _)| name);
            RESERVED.contains(&name)
        };
        if let Some(option) = options.iter().find(is_reserved) {
            return Err(format!(
                "options: {option} cannot be set, because the job's network and its end depend on \
                 it; remove it"
            ));
        }
        Ok(Some(Self {
            credentials: credentials(part("credentials"))?,
            env: pairs(part("env"), "env")?,
            ports: list(part("ports"), "ports")?,
            volumes: list(part("volumes"), "volumes")?,
            options,
            ..Self::of_image(image)
        }))
    }
}

fn image(value: &Value) -> Result<Option<String>, String> {
    let text = text(value, "image")?;
    let name = text.trim();
    let name = name.strip_prefix("docker://").unwrap_or(name);
    if name.is_empty() {
        return Ok(None);
    }
    if !tool::is_name(name) {
        return Err(format!("image: {name:?} is no name of an image"));
    }
    Ok(Some(name.to_owned()))
}

fn credentials(value: &Value) -> Result<Option<Credentials>, String> {
    let part = |name: &str| text(value.get(name).unwrap_or(&Value::Null), name);
    let (username, password) = (part("username")?, part("password")?);
    match (username.is_empty(), password.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some(Credentials { username, password: Secret::new(password) })),
        _ => Err("credentials: username or password is empty; give both, or none".to_owned()),
    }
}

fn text(value: &Value, what: &str) -> Result<String, String> {
    match value {
        value if value.is_primitive() => Ok(value.to_text()),
        other => Err(format!("{what}: {} stands where text is needed", other.kind())),
    }
}

fn list(value: &Value, what: &str) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => {
            let texts = items.iter().map(|item| text(item, what));
            let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
            Ok(texts.into_iter().filter(|text| !text.trim().is_empty()).collect())
        }
        other => Err(format!("{what}: {} stands where a list is needed", other.kind())),
    }
}

fn pairs(value: &Value, what: &str) -> Result<Vec<(String, String)>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Object(object) => {
            let pair = |(name, value)| Ok((String::from(name), text(value, what)?));
            object.iter().map(pair).collect()
        }
        other => Err(format!("{what}: {} stands where a mapping is needed", other.kind())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: &serde_json::Value) -> Result<Option<Spec>, String> {
        Spec::read(&Value::from_json(json), "container")
    }

    #[test]
    fn an_image_alone_or_all_of_it() {
        let plain = read(&json!("docker://node:22")).unwrap().unwrap();
        assert_eq!(plain, Spec::of_image("node:22".to_owned()));
        let all = json!({
            "image": "a/b:1", "credentials": { "username": "u", "password": "p" },
            "env": { "N": 3, "b": true }, "ports": [80, "81:80/udp"], "volumes": ["v:/v"],
            "options": "--cpus 1 --health-cmd 'true it'",
        });
        let all = read(&all).unwrap().unwrap();
        assert_eq!(all.env, [("N".into(), "3".into()), ("b".into(), "true".into())]);
        assert_eq!(all.ports, ["80", "81:80/udp"]);
        assert_eq!(all.options, ["--cpus", "1", "--health-cmd", "true it"]);
        assert!(all.credentials.is_some());
        assert!(!format!("{all:?}").contains("\"p\""), "{all:?}");
    }

    #[test]
    fn no_image_is_no_container() {
        for nothing in [json!(""), json!(null), json!({ "image": "" }), json!({})] {
            assert_eq!(read(&nothing), Ok(None), "{nothing}");
        }
    }

    #[test]
    fn what_is_wrong_is_a_sentence() {
        for (wrong, expected) in [
            (json!(["a"]), "image: a list stands where text"),
            (json!("-x"), "is no name of an image"),
            (json!({ "image": "a", "options": "--network=host" }), "--network=host cannot be set"),
            (json!({ "image": "a", "options": "'x" }), "is not closed"),
            (json!({ "image": "a", "ports": 80 }), "ports: a number stands where a list"),
            (json!({ "image": "a", "env": [1] }), "env: a list stands where a mapping"),
            (json!({ "image": "a", "credentials": { "username": "u" } }), "give both, or none"),
        ] {
            let error = read(&wrong).unwrap_err();
            assert!(error.starts_with("container: ") && error.contains(expected), "{error}");
        }
    }
}
