//! `actions/cache`, and its two halves.

use common::call::{CACHE_PATH, CACHE_SERVICE};
use common::event::Conclusion;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::system::SystemError;
use crate::workflow::Native;

use super::places::Places;
use super::service::{JSON, Refusal, Service, quote};
use super::{Unfit, input, lines, stopped, switch};
use crate::engine::action::Later;
use crate::engine::fault::Fault;
use crate::engine::interpreter::Said;
use crate::engine::job::Job;
use crate::engine::step::{Performed, Performing};

/// How much of a cache is sent at once: it is kept until the service has it.
const PART_BYTES: usize = 4 * 1024 * 1024;

/// How often a cache is fetched whose connection is lost before its end.
const ATTEMPTS: u32 = 3;

/// The characters of a key (the originals' limit).
const KEY_CHARACTERS: usize = 512;
/// The keys of one step, the first included (the originals' limit).
const KEYS: usize = 10;

/// How the content is packed, which is a part of the version: it is not that of the originals, which
/// compress it.
const PACKING: &str = "solstice-tar|1.0";

/// What a step says of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    key: String,
    restore_keys: Vec<String>,
    /// The files, by absolute patterns.
    patterns: Vec<String>,
    /// Which files, and how they are packed.
    version: String,
}

/// A cache to be saved.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Saving {
    wish: Wish,
    /// The key of what was restored.
    restored: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hit {
    archive_location: String,
    cache_key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reserved {
    cache_id: u64,
}

/// Why a cache could not be restored or saved.
enum Trouble {
    /// The service or the archive: a sentence. The originals warn and go on.
    Service(String),
    /// There is nothing to be done in this machine.
    Machine(Fault),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Service(refusal.to_string())
    }
}

impl From<SystemError> for Trouble {
    fn from(error: SystemError) -> Self {
        match error.is_disk_full() {
            true => Self::Machine(error.into()),
            false => Self::Service(error.to_string()),
        }
    }
}

impl Wish {
    fn new(with: &[(String, String)], places: &Places<'_>) -> Result<Self, Unfit> {
        let paths = lines(input(with, "path"));
        let key = input(with, "key").to_owned();
        let restore_keys = lines(input(with, "restore-keys"));
        for (name, is_missing) in [("path", paths.is_empty()), ("key", key.is_empty())] {
            if is_missing {
                return Err(format!("Input required and not supplied: {name}").into());
            }
        }
        if restore_keys.len() >= KEYS {
            return Err(format!("Key Validation Error: {KEYS} keys at most").into());
        }
        for key in std::iter::once(&key).chain(&restore_keys) {
            if key.contains(',') || key.chars().count() > KEY_CHARACTERS {
                return Err(format!(
                    "Key Validation Error: {key} must have no comma, and {KEY_CHARACTERS} \
                     characters at most"
                )
                .into());
            }
        }
        let patterns = paths.iter().map(|path| places.absolute(path)).collect::<Result<_, _>>()?;
        let whole = format!("{}|{PACKING}", paths.join("|"));
        let version = hex::encode(Sha256::digest(whole.as_bytes()));
        Ok(Self { key, restore_keys, patterns, version })
    }

    fn keys(&self) -> Vec<&str> {
        std::iter::once(&self.key).chain(&self.restore_keys).map(String::as_str).collect()
    }
}

impl Job<'_> {
    /// Does what a step of the cache action says.
    pub(super) async fn run_cache(
        &mut self,
        performing: &mut Performing<'_>,
        reference: &str,
        native: Native,
        with: &[(String, String)],
    ) -> Result<Performed, Unfit> {
        let wish = Wish::new(with, &self.places())?;
        let must_hit = switch(with, "fail-on-cache-miss", false)?;
        let only_looks = switch(with, "lookup-only", false)?;
        let always = switch(with, "save-always", false)?;
        self.announce(native, reference).await;
        let limits = performing.limits.clone();
        if native == Native::SaveCache {
            let saving = Saving { wish, restored: None };
            return tokio::select! {
                saved = self.save_cache(&saving) => Ok(saved?),
                stop = limits.reached() => Ok(stopped(stop)),
            };
        }
        let restored = tokio::select! {
            restored = self.restore_cache(&wish, only_looks) => restored,
            stop = limits.reached() => return Ok(stopped(stop)),
        };
        let restored = match restored {
            Ok(restored) => restored,
            Err(Trouble::Machine(fault)) => return Err(fault.into()),
            Err(Trouble::Service(sentence)) => {
                let text = format!("Failed to restore: {sentence}");
                self.events.warning(self.system.now(), &text).await;
                None
            }
        };
        if restored.is_none() && must_hit {
            return Err(format!(
                "Failed to restore cache entry. Exiting as fail-on-cache-miss is set. Input key: {}",
                wish.key
            )
            .into());
        }
        let mut outputs = vec![("cache-primary-key".to_owned(), wish.key.clone())];
        if let Some(key) = &restored {
            let is_exact = key.eq_ignore_ascii_case(&wish.key);
            outputs.push(("cache-hit".to_owned(), is_exact.to_string()));
            outputs.push(("cache-matched-key".to_owned(), key.clone()));
        }
        if native == Native::Cache {
            let condition = if always { "always()" } else { "success()" };
            let outer = self.events.outer_step().unwrap_or(performing.step.index);
            let saving = Saving { wish, restored };
            self.later.push(Later::save_cache(performing, outer, condition, saving));
        }
        let (outcome, said) = (Conclusion::Success, Said::outputs(outputs));
        Ok(Performed { outcome, said, stop: None, disk_full: None })
    }

    fn cache_service(&self) -> Service<'_> {
        Service { host: self.host, name: CACHE_SERVICE }
    }

    /// Restores a cache, or only says whether there is one; gives its key.
    async fn restore_cache(
        &mut self,
        wish: &Wish,
        only_looks: bool,
    ) -> Result<Option<String>, Trouble> {
        let keys: Vec<String> = wish.keys().into_iter().map(quote).collect();
        let path = format!("{CACHE_PATH}cache?keys={}&version={}", keys.join(","), wish.version);
        let service = self.cache_service();
        let answered = service.ask("GET", &path, &[], &[]).await?;
        if answered.status == 204 {
            let text = format!("Cache not found for input keys: {}", wish.keys().join(", "));
            self.events.say(self.system.now(), &text).await;
            return Ok(None);
        }
        let hit: Hit = service.json(answered).await?;
        let text = match only_looks {
            true => format!("Cache found and can be restored from key: {}", hit.cache_key),
            false => {
                self.fetch_cache(&hit.archive_location).await?;
                format!("Cache restored from key: {}", hit.cache_key)
            }
        };
        self.events.say(self.system.now(), &text).await;
        Ok(Some(hit.cache_key))
    }

    async fn fetch_cache(&self, place: &str) -> Result<(), Trouble> {
        let path = place.find(CACHE_PATH).map(|at| &place[at..]);
        let path =
            path.ok_or_else(|| Trouble::Service(format!("{place} is no place of a cache")))?;
        let mut attempt = 1;
        loop {
            let answered = self.cache_service().ask("GET", path, &[], &[]).await?;
            let (base, owner) = (&self.directories.workspace, self.facts.owner);
            match self.system.unpack(answered.body, base, owner).await {
                Ok(()) => return Ok(()),
                Err(error) if attempt == ATTEMPTS || error.is_disk_full() => {
                    return Err(error.into());
                }
                Err(_) => attempt += 1,
            }
        }
    }

    /// Saves a cache; what goes wrong is a warning, as with the original.
    pub(in crate::engine) async fn save_cache(
        &mut self,
        saving: &Saving,
    ) -> Result<Performed, Fault> {
        let Saving { wish, restored } = saving;
        let key = &wish.key;
        if restored.as_ref().is_some_and(|restored| restored.eq_ignore_ascii_case(key)) {
            let text = format!("Cache hit occurred on the primary key {key}, not saving cache.");
            self.events.say(self.system.now(), &text).await;
        } else {
            match self.send_cache(wish).await {
                Ok(text) => self.events.say(self.system.now(), &text).await,
                Err(Trouble::Service(sentence)) => {
                    let text = format!("Failed to save: {sentence}");
                    self.events.warning(self.system.now(), &text).await;
                }
                Err(Trouble::Machine(fault)) => return Err(fault),
            }
        }
        let (outcome, said) = (Conclusion::Success, Said::default());
        Ok(Performed { outcome, said, stop: None, disk_full: None })
    }

    /// Packs and sends what a cache is to have; gives what came of it, in a sentence.
    async fn send_cache(&self, wish: &Wish) -> Result<String, Trouble> {
        let packing = self.system.pack(&self.directories.workspace, &wish.patterns);
        let mut archive = packing.archive;
        let mut part = next_part(&mut archive).await?;
        // A short archive is complete now, and may be of nothing.
        let mut result = Some(packing.result);
        if part.len() < PART_BYTES
            && let Some(result) = result.take()
            && result.await?.files == 0
        {
            return Err(Trouble::Service(
                "Path Validation Error: Path(s) specified in the action for caching do(es) not \
                 exist, hence no cache is being saved."
                    .to_owned(),
            ));
        }
        let service = self.cache_service();
        let wanted = json!({ "key": wish.key, "version": wish.version });
        let reserved = service.call::<Reserved>(&format!("{CACHE_PATH}caches"), &wanted).await;
        let number = match reserved {
            Ok(Reserved { cache_id }) => cache_id,
            Err(refusal) if refusal.status() == Some(409) => {
                return Ok(format!(
                    "Failed to save: Unable to reserve cache with key {}, another job may be \
                     creating this cache. {refusal}",
                    wish.key
                ));
            }
            Err(refusal) => return Err(refusal.into()),
        };
        let place = format!("{CACHE_PATH}caches/{number}");
        let mut sent = 0;
        while !part.is_empty() {
            let range = format!("bytes {sent}-{}/*", sent + part.len() as u64 - 1);
            let headers =
                [("content-type", "application/octet-stream"), ("content-range", range.as_str())];
            service.ask("PATCH", &place, &headers, &part).await?;
            sent += part.len() as u64;
            part = next_part(&mut archive).await?;
        }
        if let Some(result) = result {
            result.await?;
        }
        let size = json!({ "size": sent }).to_string();
        service.ask("POST", &place, JSON, size.as_bytes()).await?;
        let megabytes = sent / 1_000_000;
        Ok(format!("Cache saved with key: {} ({megabytes} MB, {sent} B)", wish.key))
    }
}

async fn next_part(archive: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Vec<u8>, Trouble> {
    let mut part = Vec::new();
    let read = archive.take(PART_BYTES as u64).read_to_end(&mut part).await;
    read.map_err(|error| Trouble::Service(format!("cannot read what is packed: {error}")))?;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::container::PathMap;

    fn wish(with: &[(&str, &str)]) -> Result<Wish, String> {
        let with: Vec<_> = with.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        let container = PathMap::default();
        let places = Places { workspace: "/w", home: "/home/me", container: &container };
        let wish = Wish::new(&with, &places);
        wish.map_err(|unfit| Fault::from(unfit).sentence())
    }

    #[test]
    fn inputs_are_read_as_the_original_reads_them() {
        let wish = wish(&[
            ("path", "target\n~/.cargo\n!target/tmp\n/var/x\n\n"),
            ("key", "k"),
            ("restore-keys", "k-\n\nl"),
        ]);
        let wish = wish.unwrap();
        assert_eq!(wish.patterns, ["/w/target", "/home/me/.cargo", "!/w/target/tmp", "/var/x"]);
        assert_eq!(wish.keys(), ["k", "k-", "l"]);
    }

    #[test]
    fn the_version_says_which_files() {
        let version = |path| wish(&[("path", path), ("key", "k")]).unwrap().version;
        assert_eq!(version("a"), version("a\n"));
        assert_ne!(version("a"), version("b"));
        assert_eq!(version("a").len(), 64);
    }

    #[test]
    fn what_is_wrong_is_a_sentence() {
        let long = "k".repeat(513);
        let many = "k\n".repeat(10);
        for (with, expected) in [
            (vec![("key", "k")], "not supplied: path"),
            (vec![("path", "a")], "not supplied: key"),
            (vec![("path", "a"), ("key", "a,b")], "Key Validation Error"),
            (vec![("path", "a"), ("key", long.as_str())], "Key Validation Error"),
            (vec![("path", "a"), ("key", "k"), ("restore-keys", many.as_str())], "10 keys"),
        ] {
            let error = wish(&with).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
