//! The list of images that can be booted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::entry::Entry;
use super::reader::{CatalogueError, CatalogueFile, Layers, nearest};
use super::schema;

/// The catalogue in the binary.
const EMBEDDED: &str = include_str!("../../../images/catalogue.toml");
/// What errors call it.
const EMBEDDED_NAME: &str = "images/catalogue.toml";
/// The largest catalogue of an operator's, in bytes. A larger file is refused.
const FILE_BYTES: u64 = common::limits::MIB;

/// The images that can be booted, by label. Valid as a whole: no label or alias stands for two
/// images, and every entry is complete.
#[derive(Clone, Debug)]
pub struct Catalogue {
    entries: Vec<Arc<Entry>>,
    /// Every label and alias in lower case, and the index of its entry.
    names: BTreeMap<String, usize>,
}

/// No image has this label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no image has the label {label:?}{}; `solstice image list` shows them all", hint(.nearest))]
pub struct UnknownLabel {
    /// What was asked for.
    pub label: String,
    /// The label most like it, if one is.
    pub nearest: Option<String>,
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|label| format!(", did you mean {label:?}?")).unwrap_or_default()
}

impl Catalogue {
    /// Reads the catalogue in the binary and, above it, a file of the operator's.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or one of the two has an unknown key, a value of the wrong type or
    /// out of range, an incomplete entry, or a name that two entries claim; with its place.
    pub fn load(extra: Option<&Path>) -> Result<Self, CatalogueError> {
        let mut files = Vec::new();
        if let Some(path) = extra {
            files.push(read_file(path)?);
        }
        files.push(CatalogueFile { name: EMBEDDED_NAME.to_owned(), text: EMBEDDED.to_owned() });
        Self::from_files(&files)
    }

    /// Merges the files, of which the first counts most.
    fn from_files(files: &[CatalogueFile]) -> Result<Self, CatalogueError> {
        let mut parsed = Vec::new();
        for file in files {
            parsed.push((file, file.parse()?));
        }
        // The embedded catalogue's order first, then what the operator added.
        let mut tables: Vec<(&str, Layers<'_>)> = Vec::new();
        for (_, document) in parsed.iter().rev() {
            let mut keys: Vec<_> = document.get_ref().keys().collect();
            keys.sort_by_key(|key| key.span().start);
            for key in keys {
                let label = key.get_ref().as_ref();
                if !tables.iter().any(|(other, _)| *other == label) {
                    tables.push((label, Layers::new(format!("image `{label}`"))));
                }
            }
        }
        for (label, layers) in &mut tables {
            for (file, document) in &parsed {
                if let Some((key, value)) = document.get_ref().get_key_value(*label) {
                    layers.push(file, &key.span(), value)?;
                }
            }
        }
        let others = tables.clone();
        for (_, layers) in &mut tables {
            let Some(like) = layers.text("like")? else { continue };
            let other = others.iter().find(|(label, _)| *label == like.value);
            let Some((_, other)) = other else {
                let names = others.iter().map(|(label, _)| *label);
                let hint = hint(&nearest(like.value, names).map(str::to_owned));
                return Err(like.error(format!("no image has the label {:?}{hint}", like.value)));
            };
            if other.text("like")?.is_some() {
                let text = format!("`{}` is itself like another image; name that one", like.value);
                return Err(like.error(text));
            }
            layers.be_like(other);
        }
        let mut catalogue = Self { entries: Vec::new(), names: BTreeMap::new() };
        for (label, layers) in &tables {
            let entry = schema::read_entry(label, layers)?;
            catalogue.add(entry).map_err(|message| layers.error(message))?;
        }
        Ok(catalogue)
    }

    fn add(&mut self, entry: Entry) -> Result<(), String> {
        let index = self.entries.len();
        for name in std::iter::once(&entry.label).chain(&entry.aliases) {
            if let Some(other) = self.names.insert(name.to_ascii_lowercase(), index) {
                let other = if other == index { &entry } else { &*self.entries[other] };
                return Err(format!(
                    "`{name}` already stands for the image `{}`; labels and aliases are unique, whatever their case",
                    other.label
                ));
            }
        }
        self.entries.push(Arc::new(entry));
        Ok(())
    }

    /// The image with this label or alias, in whatever case.
    ///
    /// # Errors
    ///
    /// No image has it.
    pub fn get(&self, label: &str) -> Result<Arc<Entry>, UnknownLabel> {
        match self.names.get(&label.to_ascii_lowercase()) {
            Some(index) => Ok(Arc::clone(&self.entries[*index])),
            None => Err(UnknownLabel {
                label: label.to_owned(),
                nearest: nearest(label, self.names.keys().map(String::as_str)).map(str::to_owned),
            }),
        }
    }

    /// Every label and alias.
    #[must_use]
    pub fn labels(&self) -> BTreeSet<String> {
        self.entries()
            .flat_map(|entry| std::iter::once(&entry.label).chain(&entry.aliases))
            .cloned()
            .collect()
    }

    /// All images: those of the binary in their order, then the operator's.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter()
    }
}

fn read_file(path: &Path) -> Result<CatalogueFile, CatalogueError> {
    let error = |source| CatalogueError::Read { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(error)?.len();
    if size > FILE_BYTES {
        let message = format!("it has {size} bytes, and {FILE_BYTES} is the limit");
        return Err(error(std::io::Error::other(message)));
    }
    let text = std::fs::read_to_string(path).map_err(error)?;
    Ok(CatalogueFile { name: path.display().to_string(), text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Compression, DiskFormat, SeedDevice, Source, SourceDigest};

    fn with(extra: &str) -> Result<Catalogue, CatalogueError> {
        Catalogue::from_files(&[
            CatalogueFile { name: "extra.toml".to_owned(), text: extra.to_owned() },
            CatalogueFile { name: EMBEDDED_NAME.to_owned(), text: EMBEDDED.to_owned() },
        ])
    }

    #[test]
    fn the_catalogue_in_the_binary_is_valid() {
        let catalogue = Catalogue::load(None).unwrap();
        let verified: Vec<_> = catalogue.entries().filter(|e| e.verified).collect();
        assert_eq!(
            verified.iter().map(|e| e.label.as_str()).collect::<Vec<_>>(),
            ["debian-12", "debian-12-node", "debian-12-podman", "tiny"]
        );
        for entry in catalogue.entries() {
            assert!(entry.verified || entry.note.is_some(), "{} says why not", entry.label);
        }
        let omnios = catalogue.get("omnios").unwrap();
        assert_eq!(omnios.runner_os, "illumos");
        assert_eq!(omnios.hardware.seed, SeedDevice::IdeCdrom);
        let Source::Download { digest, format, compression, .. } = &omnios.source else {
            panic!("{:?}", omnios.source)
        };
        assert_eq!(
            (digest, *format, *compression),
            (&SourceDigest::OnFirstPull, DiskFormat::Raw, Compression::Zstd)
        );
    }

    #[test]
    fn labels_and_aliases_in_any_case() {
        let catalogue = Catalogue::load(None).unwrap();
        assert_eq!(catalogue.get("Debian-12").unwrap().label, "debian-12");
        assert_eq!(catalogue.get("DEBIAN-BOOKWORM").unwrap().label, "debian-12");
    }

    #[test]
    fn an_unknown_label_names_the_nearest() {
        let catalogue = Catalogue::load(None).unwrap();
        let error = catalogue.get("debain-12").unwrap_err();
        assert_eq!(error.nearest.as_deref(), Some("debian-12"));
        assert!(error.to_string().contains("did you mean \"debian-12\"?"), "{error}");
        let error = catalogue.get("windows-latest").unwrap_err();
        assert_eq!(error.nearest, None);
        assert!(!error.to_string().contains("did you mean"), "{error}");
    }

    #[test]
    fn an_operators_file_replaces_single_keys() {
        let catalogue =
            with("[tiny]\nmemory = \"1G\"\n[tiny.hardware]\nmachine = \"pc\"\n").unwrap();
        let tiny = catalogue.get("tiny").unwrap();
        assert_eq!(tiny.memory.to_string(), "1 GiB");
        assert_eq!(tiny.hardware.machine, "pc");
        assert_eq!(tiny.hardware.network, "virtio-net-pci");
        assert_eq!(tiny.source, Source::Recipe("tiny".to_owned()));
    }

    #[test]
    fn an_operators_file_replaces_a_source_as_a_whole() {
        let catalogue = with(
            "[tiny]\nurl = \"https://images.example/tiny.qcow2\"\ndigest = \"on-first-pull\"\nformat = \"qcow2\"\n",
        )
        .unwrap();
        assert!(matches!(
            &catalogue.get("tiny").unwrap().source,
            Source::Download { compression: Compression::None, .. }
        ));
        let digest = "sha512:".to_owned() + &"0a".repeat(64);
        let catalogue = with(&format!("[omnios-r151056]\ndigest = \"{digest}\"\n")).unwrap();
        let Source::Download { url, digest: found, .. } = &catalogue.get("omnios").unwrap().source
        else {
            panic!("still a download")
        };
        assert!(url.contains("omnios"));
        assert_eq!(*found, SourceDigest::Known(digest.parse().unwrap()));
    }

    #[test]
    fn an_image_may_be_like_another_and_prepared() {
        let catalogue = with(
            "[debian-12-c]\nlike = \"debian-12\"\nmemory = \"2G\"\n[debian-12-c.prepare]\n\
             packages = [\"gcc\", \"libc6-dev\"]\nscript = \"ldconfig\"\ndeadline = \"5m\"\n",
        )
        .unwrap();
        let (one, other) =
            (catalogue.get("debian-12-c").unwrap(), catalogue.get("debian-12").unwrap());
        assert_eq!((&one.source, &one.hardware.machine), (&other.source, &other.hardware.machine));
        assert_eq!((one.memory.to_string().as_str(), one.aliases.len()), ("2 GiB", 0));
        let prepare = one.prepare.as_ref().unwrap();
        assert!(prepare.script.ends_with("install gcc libc6-dev\nldconfig\n"), "{prepare:?}");
        assert_eq!((prepare.deadline.as_secs(), &other.prepare), (300, &None));
    }

    #[test]
    fn an_operators_file_adds_an_image_after_the_others() {
        let text = EMBEDDED
            .split("\n[tiny]")
            .nth(1)
            .and_then(|rest| rest.split("\n# The address").next())
            .unwrap();
        let text = format!("[mine]{}", text.replace("[tiny.hardware]", "[mine.hardware]"));
        let catalogue = with(&text).unwrap();
        assert_eq!(catalogue.entries().last().unwrap().label, "mine");
        assert_eq!(catalogue.get("mine").unwrap().disk.to_string(), "2 GiB");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Catalogue::load(Some(Path::new("/nonexistent/images.toml"))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/images.toml"), "{error}");
    }
}
