//! Which submodules a commit has: what stands in `.gitmodules` is the word of a stranger, and git never
//! follows it here.

use std::collections::BTreeMap;
use std::path::Path;

use common::call::{CallError, CallErrorKind};
use common::limits::KIB;

use super::git;
use super::refs::is_commit;
use super::{Origin, Repository};

/// The most submodules of one tree, those of submodules included.
pub(super) const SUBMODULES: usize = 250;

/// The bytes of `.gitmodules`.
const FILE_BYTES: u64 = 256 * KIB;

/// The bytes of a path, a name or an address in it.
const TEXT_BYTES: usize = 2048;

/// The file that says where submodules are (gitmodules(5)).
const FILE: &str = ".gitmodules";

/// The kind of an entry that is a submodule.
const LINK: &[u8] = b"160000 ";

/// A submodule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) name: String,
    /// Where it is placed.
    pub(super) path: String,
    /// Its address, which may be relative.
    pub(super) url: String,
    pub(super) commit: String,
}

/// Reads the submodules of a repository's index.
///
/// # Errors
/// There are too many, or what stands there must not be followed.
pub(super) async fn read(directory: &Path) -> Result<Vec<Module>, CallError> {
    let wanted = |record: &[u8]| {
        record.starts_with(LINK) || record.ends_with([b"\t", FILE.as_bytes()].concat().as_slice())
    };
    let entries = git::records(directory, &["ls-files", "--stage", "-z"], wanted).await?;
    let entries = entries.ok_or_else(too_many)?;
    let (mut links, mut file) = (BTreeMap::new(), None);
    for entry in entries {
        let (kind, id, path) = entry_of(&entry).map_err(refused)?;
        match kind {
            "160000" => drop(links.insert(path.to_owned(), id.to_owned())),
            // It may be the end of another name only.
            _ if path != FILE => {}
            "100644" | "100755" => file = Some(id.to_owned()),
            _ => return Err(refused(format!("{FILE} is no file"))),
        }
    }
    if links.len() > SUBMODULES {
        return Err(too_many());
    }
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let known = match file {
        Some(id) => parse(&content(directory, &id).await?).map_err(refused)?,
        None => BTreeMap::new(),
    };
    choose(&known, links).map_err(refused)
}

pub(super) fn refused(why: String) -> CallError {
    CallError::new(CallErrorKind::Refused, why)
}

pub(super) fn too_many() -> CallError {
    refused(format!("there are more than {SUBMODULES} submodules; fetch them in a \"run\" step"))
}

/// The kind, id and path of an entry of the index.
fn entry_of(entry: &[u8]) -> Result<(&str, &str, &str), String> {
    let odd = || format!("the submodule {} cannot be placed", entry.escape_ascii());
    let (facts, path) =
        str::from_utf8(entry).ok().and_then(|e| e.split_once('\t')).ok_or_else(odd)?;
    match facts.split(' ').collect::<Vec<_>>()[..] {
        [kind, id, _] if is_commit(id) => Ok((kind, id, path)),
        _ => Err(odd()),
    }
}

/// The settings in a file.
async fn content(directory: &Path, id: &str) -> Result<Vec<Vec<u8>>, CallError> {
    let large = || refused(format!("{FILE} has more than {FILE_BYTES} bytes"));
    let size = git::run(directory, &git::local(), &["cat-file", "-s", id]).await?;
    if size.trim().parse().map_or(true, |size: u64| size > FILE_BYTES) {
        return Err(large());
    }
    // What it would include lies on this host.
    let blob = format!("--blob={id}");
    let arguments = ["config", "--no-includes", "-z", &blob, "--list"];
    let settings = git::records(directory, &arguments, |_| true).await;
    let settings =
        settings.map_err(|error| refused(format!("{FILE} cannot be read: {}", error.message)))?;
    settings.ok_or_else(large)
}

/// What stands about a submodule.
#[derive(Debug, Default)]
struct Known {
    path: Option<String>,
    url: Option<String>,
    update: Option<String>,
}

/// Reads settings, such as `submodule.NAME.path`, a line feed and the value: the first of each counts.
fn parse(settings: &[Vec<u8>]) -> Result<BTreeMap<String, Known>, String> {
    let mut all: BTreeMap<String, Known> = BTreeMap::new();
    for setting in settings {
        let setting =
            str::from_utf8(setting).map_err(|_| format!("{FILE} is not written in UTF-8"))?;
        let (key, value) = setting.split_once('\n').unwrap_or((setting, ""));
        let Some((name, what)) =
            key.strip_prefix("submodule.").and_then(|rest| rest.rsplit_once('.'))
        else {
            continue;
        };
        let known = all.entry(name.to_owned()).or_default();
        let slot = match what {
            "path" => &mut known.path,
            "url" => &mut known.url,
            "update" => &mut known.update,
            _ => continue,
        };
        slot.get_or_insert_with(|| value.to_owned());
    }
    for (name, known) in &all {
        let path = known.path.as_deref().unwrap_or(name);
        for (what, text) in [("name", name.as_str()), ("path", path)] {
            if !is_plain(text) {
                return Err(format!(
                    "{FILE} has the {what} {text:?}, which leads elsewhere; correct it"
                ));
            }
        }
    }
    Ok(all)
}

/// Whether a path leads to a place below, and into no repository.
fn is_plain(path: &str) -> bool {
    let part = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.eq_ignore_ascii_case(super::export::GIT)
    };
    let odd = |c: char| c.is_control() || c == '\\';
    path.len() <= TEXT_BYTES && !path.contains(odd) && path.split('/').all(part)
}

/// The submodules that are in the tree.
fn choose(
    known: &BTreeMap<String, Known>,
    links: BTreeMap<String, String>,
) -> Result<Vec<Module>, String> {
    let mut modules = Vec::new();
    for (path, commit) in links {
        let mut found = known.iter().filter(|(_, known)| known.path.as_ref() == Some(&path));
        let (Some((name, known)), second) = (found.next(), found.next()) else {
            return Err(format!("{FILE} does not say where the submodule {path} is; correct it"));
        };
        if second.is_some() {
            return Err(format!("{FILE} names the submodule {path} twice; correct it"));
        }
        if !is_plain(&path) {
            return Err(format!("the submodule {path:?} cannot be placed"));
        }
        if known.update.as_deref() == Some("none") {
            continue;
        }
        let url = known.url.as_ref().ok_or_else(|| {
            format!("{FILE} has no address of the submodule {path}; write its `url`")
        })?;
        modules.push(Module { name: name.clone(), path, url: url.clone(), commit });
    }
    for one in &modules {
        let inside = format!("{}/", one.name);
        if let Some(other) = modules.iter().find(|other| other.name.starts_with(&inside)) {
            let (one, other) = (&one.name, &other.name);
            return Err(format!(
                "the repository of the submodule {other} would lie in that of {one}; name one of \
                 them in another way"
            ));
        }
    }
    Ok(modules)
}

/// Where a submodule is, by its address and the repository above it; the error is a sentence.
pub(super) fn locate(url: &str, above: &Repository, forge: &Origin) -> Result<Repository, String> {
    let odd = |c: char| c.is_control() || c.is_whitespace();
    if url.len() > TEXT_BYTES || url.contains(odd) || url.starts_with('-') {
        return Err("its address has odd characters or is too long".to_owned());
    }
    if url.starts_with("./") || url.starts_with("../") {
        let base = above.url();
        let mut parts: Vec<&str> = base.path().trim_matches('/').split('/').collect();
        let mut rest = url;
        loop {
            if let Some(below) = rest.strip_prefix("../") {
                if parts.pop().is_none() {
                    return Err(format!("the address {url} leads out of its server"));
                }
                rest = below;
            } else if let Some(below) = rest.strip_prefix("./") {
                rest = below;
            } else {
                break;
            }
        }
        parts.push(rest);
        return Repository::at(&format!("{}{}", base_of(above.origin()), parts.join("/")));
    }
    // The checkout action has git ask the job's forge by https also where it is named so.
    let host = forge.url().host_str().unwrap_or_default();
    if let Some(path) = url.strip_prefix(&format!("git@{host}:")) {
        return Repository::at(&format!("{}{path}", base_of(forge)));
    }
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err(format!(
            "the address {url} is none that this host asks; write https:// in front, or make it \
             relative to the repository above"
        ));
    }
    Repository::at(url)
}

fn base_of(origin: &Origin) -> &str {
    origin.url().as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(url: &str) -> Result<String, String> {
        let above = Repository::at("https://forge.example/git/own/a").unwrap();
        let forge = Origin::parse("https://forge.example").unwrap();
        locate(url, &above, &forge).map(|repository| repository.url().to_string())
    }

    #[test]
    fn addresses_are_relative_or_of_the_web() {
        for (url, expected) in [
            ("../b", "https://forge.example/git/own/b"),
            ("../../other/b.git", "https://forge.example/git/other/b.git"),
            ("../../../b", "https://forge.example/b"),
            ("./b", "https://forge.example/git/own/a/b"),
            ("https://other.example/x/y/z/", "https://other.example/x/y/z"),
            ("http://other.example/x", "http://other.example/x"),
            ("git@forge.example:own/b.git", "https://forge.example/own/b.git"),
        ] {
            assert_eq!(located(url).as_deref(), Ok(expected), "{url}");
        }
        for wrong in [
            "",
            "..",
            "../../../../b",
            "../../../../../b",
            "../b/../../c",
            "../.git/..",
            "b",
            "/etc",
            "//other.example/x",
            "file:///etc",
            "ext::sh -c id",
            "ext::id",
            "--upload-pack=id",
            "-c",
            "../--upload-pack=id",
            "ssh://git@forge.example/own/b",
            "git@other.example:own/b",
            "git@forge.example:../b",
            "git@forge.example:-oProxyCommand=id",
            "git://forge.example/own/b",
            "https://me:you@forge.example/own/b",
            "https://forge.example/own/b?x",
            "https://forge.example/own/%2e%2e/b",
            "https://forge.example/own/b\n",
            "HTTPS\\://x",
        ] {
            assert!(located(wrong).is_err(), "{wrong}: {:?}", located(wrong));
        }
    }

    #[test]
    fn paths_stay_below_and_outside_of_repositories() {
        for good in ["a", "a b/c", "-x", "..a", ".github", "modules"] {
            assert!(is_plain(good), "{good}");
        }
        let long = "x".repeat(TEXT_BYTES + 1);
        for bad in [
            "",
            ".",
            "..",
            "/a",
            "a/",
            "a//b",
            "a/../b",
            "../a",
            ".git",
            "a/.GIT/hooks",
            "a\\..\\b",
            "a\nb",
            &long,
        ] {
            assert!(!is_plain(bad), "{bad:?}");
        }
    }
}
