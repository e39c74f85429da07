//! Labels of forgejo-runner's files, which stand for containers, as labels of here.

use std::collections::BTreeMap;

use crate::label::Label;

/// What else is said of labels of other kinds, and what is known here.
#[derive(Clone, Copy)]
pub struct Mapping<'a> {
    /// By the settings: the image of each label of another kind, as a label writes it behind
    /// `vm://`.
    pub images: &'a BTreeMap<String, String>,
    /// Whether an image has this label.
    pub is_image: &'a dyn Fn(&str) -> bool,
}

/// The labels that are offered of those of a file; a sentence for each other one.
#[must_use]
pub fn offered(labels: &[String], file: &str, mapping: Mapping<'_>) -> (Vec<Label>, Vec<String>) {
    let mut offered: Vec<Label> = Vec::new();
    let mut warnings = Vec::new();
    for text in labels {
        match one(text.trim(), file, mapping) {
            // A file may name a label twice; so may two of its labels after they were mapped.
            Ok(label) if offered.iter().any(|other| other.name == label.name) => {}
            Ok(label) => offered.push(label),
            Err(warning) => warnings.push(warning),
        }
    }
    (offered, warnings)
}

fn one(text: &str, file: &str, mapping: Mapping<'_>) -> Result<Label, String> {
    let (name, kind) = text.split_once(':').map_or((text, None), |(n, kind)| (n, Some(kind)));
    if let Some(image) = mapping.images.get(name) {
        let image = image.strip_prefix("vm://").unwrap_or(image);
        return format!("{name}:vm://{image}").parse().map_err(|error| {
            format!("the label {name:?} of {file} is not offered: [forgejo_labels]: {error}")
        });
    }
    match kind {
        Some(kind) if kind == "vm" || kind.starts_with("vm:") => text
            .parse()
            .map_err(|error| format!("the label {name:?} of {file} is not offered: {error}")),
        None if (mapping.is_image)(name) => {
            text.parse().map_err(|error| format!("a label of {file} is not offered: {error}"))
        }
        kind => Err(unmapped(name, kind, file, mapping)),
    }
}

fn unmapped(name: &str, kind: Option<&str>, file: &str, mapping: Mapping<'_>) -> String {
    let kind = kind.map_or(String::new(), |kind| format!(" ({kind})"));
    let image = if (mapping.is_image)(name) { name } else { "IMAGE" };
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let key = if name.chars().all(bare) { name.to_owned() } else { format!("{name:?}") };
    format!(
        "the label {name:?}{kind} of {file} is not offered; to offer it, add to solstice.toml: \
         [forgejo_labels] {key} = \"{image}\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[&str], images: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let images = images.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let is_image = |name: &str| name == "debian-12";
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let mapping = Mapping { images: &images, is_image: &is_image };
        let (labels, warnings) = offered(&labels, "/srv/.runner", mapping);
        (labels.iter().map(ToString::to_string).collect(), warnings)
    }

    #[test]
    fn labels_of_machines_stay_and_others_are_mapped() {
        let labels = [
            "a:vm://debian-12?cpus=4",
            "docker:docker://node:22",
            "debian-12",
            "docker:docker://node:20",
            "big:host",
        ];
        let images = [("docker", "debian-12"), ("big", "vm://debian-12?memory=8G")];
        let (labels, warnings) = of(&labels, &images);
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(
            labels,
            [
                "a:vm://debian-12?cpus=4",
                "docker:vm://debian-12",
                "debian-12",
                "big:vm://debian-12?memory=8G"
            ]
        );
    }

    #[test]
    fn what_is_not_mapped_is_shown_with_the_line_to_add() {
        let labels = ["docker:docker://node:22", "ubuntu-22.04", "debian-12:docker://debian:12"];
        let (labels, warnings) = of(&labels, &[]);
        assert!(labels.is_empty());
        let of = "of /srv/.runner is not offered; to offer it, add to solstice.toml: \
                  [forgejo_labels]";
        assert_eq!(
            warnings,
            [
                format!("the label \"docker\" (docker://node:22) {of} docker = \"IMAGE\""),
                format!("the label \"ubuntu-22.04\" {of} \"ubuntu-22.04\" = \"IMAGE\""),
                format!(
                    "the label \"debian-12\" (docker://debian:12) {of} debian-12 = \"debian-12\""
                ),
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_offered() {
        let (labels, warnings) = of(&["a:vm://x?disk=1", "b:host"], &[("b", "x?disk=1")]);
        assert!(labels.is_empty());
        assert!(warnings[0].contains("\"disk\" is unknown"), "{warnings:?}");
        assert!(warnings[1].contains("[forgejo_labels]: "), "{warnings:?}");
    }
}
