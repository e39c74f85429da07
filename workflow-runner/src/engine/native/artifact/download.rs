//! `actions/download-artifact`.

use std::collections::HashMap;

use common::event::Conclusion;
use serde::Deserialize;
use serde_json::json;

use super::older::{Place, is_gzip};
use super::{Artifacts, Interface, Listed, number, path_of};
use crate::engine::fault::Fault;
use crate::engine::interpreter::Said;
use crate::engine::job::Job;
use crate::engine::native::places::Places;
use crate::engine::native::service::Refusal;
use crate::engine::native::{Unfit, input, stopped, switch};
use crate::engine::step::{Performed, Performing};
use crate::system::{RECEIVE, StorePlace, names_match};
use crate::workflow::{Native, Version};

/// How often an artifact is fetched whose connection is lost before its end.
const ATTEMPTS: u32 = 3;

/// What a step says of artifacts.
struct Wish {
    name: String,
    ids: Vec<u64>,
    pattern: String,
    merge: bool,
    /// Where they go.
    path: String,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    artifacts: Vec<Listed>,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(alias = "signedUrl")]
    signed_url: String,
}

impl Wish {
    fn new(with: &[(String, String)], places: &Places<'_>) -> Result<Self, Unfit> {
        if !input(with, "github-token").is_empty() {
            let text = "the input github-token of download-artifact, which asks another run or \
                        repository for artifacts, is not supported";
            return Err(Unfit::Original(text.to_owned()));
        }
        let name = input(with, "name").to_owned();
        let ids = input(with, "artifact-ids").split(',').map(str::trim).filter(|id| !id.is_empty());
        let ids: Result<Vec<u64>, _> = ids.map(str::parse).collect();
        let ids = ids.map_err(|_| {
            let given = input(with, "artifact-ids");
            format!("the input artifact-ids is {given}, and must be numbers with commas between")
        })?;
        if !name.is_empty() && !ids.is_empty() {
            return Err("the inputs name and artifact-ids exclude each other".to_owned().into());
        }
        let pattern = input(with, "pattern");
        if pattern.contains('(') || pattern.contains("..") {
            return Err(Unfit::Original(format!(
                "the pattern {pattern} of download-artifact has brackets or a range, which are not \
                 supported"
            )));
        }
        let path = match input(with, "path") {
            "" => places.workspace.to_owned(),
            path => places.absolute(path)?,
        };
        Ok(Self {
            name,
            ids,
            pattern: pattern.to_owned(),
            merge: switch(with, "merge-multiple", false)?,
            path,
        })
    }

    /// Which of these artifacts are wanted; of those with one name the newest. The error is a sentence.
    fn choose(&self, all: Vec<Listed>) -> Result<Vec<Listed>, String> {
        let mut newest: HashMap<String, Listed> = HashMap::new();
        for artifact in all {
            let id = number(&artifact.database_id);
            let is_wanted = match (&*self.name, &*self.ids, &*self.pattern) {
                ("", [], "") => true,
                ("", [], pattern) => names_match(pattern, &artifact.name),
                ("", ids, _) => ids.contains(&id),
                (name, ..) => artifact.name == name,
            };
            let older = newest.get(&artifact.name).map_or(0, |known| number(&known.database_id));
            if is_wanted && (older <= id || !newest.contains_key(&artifact.name)) {
                newest.insert(artifact.name.clone(), artifact);
            }
        }
        let mut chosen: Vec<Listed> = newest.into_values().collect();
        chosen.sort_by(|a, b| a.name.cmp(&b.name));
        if chosen.is_empty() && (!self.name.is_empty() || !self.ids.is_empty()) {
            let what = match &*self.ids {
                [] => format!("name {}", self.name),
                ids => format!("IDs {ids:?}"),
            };
            return Err(not_found(&what));
        }
        Ok(chosen)
    }

    /// The directory of an artifact's own. A service is not trusted with its name.
    fn directory_of(&self, name: &str) -> String {
        format!("{}/{}", self.path, name.replace('/', "_").replace("..", "_"))
    }

    /// Whether each artifact gets a directory of its own.
    fn has_directories(&self) -> bool {
        self.name.is_empty() && self.ids.len() != 1 && !self.merge
    }
}

impl Job<'_> {
    /// Does what a step of the action says.
    pub(in crate::engine) async fn download_artifact(
        &mut self,
        performing: &mut Performing<'_>,
        reference: &str,
        version: Version,
        with: &[(String, String)],
    ) -> Result<Performed, Unfit> {
        let wish = Wish::new(with, &self.places())?;
        self.announce(Native::DownloadArtifact, reference).await;
        let limits = performing.limits.clone();
        let run = performing.context("run_id");
        let fetching = async {
            match Interface::of(version) {
                Interface::Older => self.fetch_files(&wish, &run).await,
                Interface::Newer => self.fetch_artifacts(&wish).await,
            }
        };
        tokio::select! {
            fetched = fetching => fetched?,
            stop = limits.reached() => return Ok(stopped(stop)),
        }
        let path = self.containers.paths().enter(&wish.path);
        let outputs = vec![("download-path".to_owned(), path)];
        let (outcome, said) = (Conclusion::Success, Said::outputs(outputs));
        Ok(Performed { outcome, said, stop: None, disk_full: None })
    }

    async fn fetch_artifacts(&mut self, wish: &Wish) -> Result<(), Unfit> {
        let chosen = self.choose_artifacts(wish).await?;
        if chosen.is_empty() {
            self.events.say(self.system.now(), "No artifacts were found.").await;
        }
        for artifact in &chosen {
            let name = &artifact.name;
            let to = match wish.has_directories() {
                true => wish.directory_of(name),
                false => wish.path.clone(),
            };
            let files = self.fetch_artifact(artifact, &to).await?;
            let size = number(&artifact.size);
            let text = format!("Artifact {name} ({size} bytes): {files} files in {to}");
            self.events.say(self.system.now(), &text).await;
        }
        Ok(())
    }

    /// Fetches the artifacts of the older interface.
    async fn fetch_files(&mut self, wish: &Wish, run: &str) -> Result<(), Unfit> {
        let failed = |refusal: Refusal| format!("cannot list the artifacts: {refusal}");
        let mut all = self.older_artifacts(run)?.list().await.map_err(failed)?;
        all.retain(|artifact| wish.name.is_empty() || artifact.name == wish.name);
        match all.is_empty() {
            true if !wish.name.is_empty() => {
                return Err(not_found(&format!("name {}", wish.name)).into());
            }
            true => self.events.say(self.system.now(), "No artifacts were found.").await,
            false => {}
        }
        for artifact in &all {
            let name = &artifact.name;
            let to = match wish.name.is_empty() {
                true => wish.directory_of(name),
                false => wish.path.clone(),
            };
            let (files, bytes) = self.fetch_files_of(artifact, run, &to).await?;
            let text = format!("Artifact {name} ({bytes} bytes): {files} files in {to}");
            self.events.say(self.system.now(), &text).await;
        }
        Ok(())
    }

    /// Fetches the files of an artifact; gives how many there are, and their bytes.
    async fn fetch_files_of(
        &self,
        artifact: &Place,
        run: &str,
        to: &str,
    ) -> Result<(u64, u64), Unfit> {
        let name = &artifact.name;
        let failed = |why: String| failed(name, &why);
        let artifacts = self.older_artifacts(run)?;
        let items = artifacts.items(artifact).await;
        let items = items.map_err(|refusal| unfit(name, &refusal))?;
        let (mut files, mut bytes) = (0, 0);
        for item in &items {
            let Some(path) = item.path_in(name) else { continue };
            let mut attempt = 1;
            bytes += loop {
                let answered = artifacts.content(item).await;
                let answered = answered.map_err(|refusal| unfit(name, &refusal))?;
                let place = StorePlace {
                    directory: to.to_owned(),
                    name: path.to_owned(),
                    owner: self.facts.owner,
                    is_gzip: is_gzip(&answered),
                };
                match self.system.store(answered.body, place).await {
                    Ok(bytes) => break bytes,
                    Err(error) if error.is_disk_full() => return Err(Fault::from(error).into()),
                    Err(error) if attempt == ATTEMPTS || error.operation != RECEIVE => {
                        return Err(failed(error.to_string()).into());
                    }
                    Err(_) => attempt += 1,
                }
            };
            files += 1;
        }
        Ok((files, bytes))
    }

    async fn choose_artifacts(&self, wish: &Wish) -> Result<Vec<Listed>, Fault> {
        let list = self.artifacts()?.call::<List>("ListArtifacts", &[]).await;
        let all = match list {
            Ok(List { artifacts }) => artifacts,
            // A run without artifacts.
            Err(refusal) if refusal.status() == Some(404) => Vec::new(),
            Err(refusal) => return Err(format!("cannot list the artifacts: {refusal}").into()),
        };
        Ok(wish.choose(all)?)
    }

    /// Fetches an artifact, once more where its connection is lost; gives how many files it has.
    async fn fetch_artifact(&self, artifact: &Listed, to: &str) -> Result<u64, Unfit> {
        let (name, owner) = (&artifact.name, self.facts.owner);
        let failed = |why: String| failed(name, &why);
        let artifacts = self.artifacts()?;
        let temporary = format!("{}/artifact.zip", self.directories.temp);
        let mut attempt = 1;
        loop {
            let body = artifacts.content(artifact).await;
            let body = body.map_err(|refusal| unfit(name, &refusal))?;
            match self.system.unzip(body, &temporary, to, owner).await {
                Ok(packed) => return Ok(packed.files),
                Err(error) if error.is_disk_full() => return Err(Fault::from(error).into()),
                Err(error) if attempt == ATTEMPTS => return Err(failed(error.to_string()).into()),
                Err(_) => attempt += 1,
            }
        }
    }
}

/// Why an artifact was not downloaded; the original goes wherever it lies.
fn unfit(name: &str, refusal: &Refusal) -> Unfit {
    let text = failed(name, &refusal.to_string());
    match refusal {
        Refusal::Elsewhere(_) => Unfit::Original(text),
        _ => text.into(),
    }
}

fn failed(name: &str, why: &str) -> String {
    format!("cannot download the artifact {name}: {why}")
}

/// What to do where an artifact is not there.
fn not_found(what: &str) -> String {
    format!(
        "Unable to download artifact(s): Artifact not found for {what}. Look whether the job that \
         uploads it is among the needs of this one, whether it has expired, and whether that job uses \
         a version before 4 of the action: what those upload later ones do not find"
    )
}

impl Artifacts<'_> {
    async fn content(
        &self,
        artifact: &Listed,
    ) -> Result<Box<dyn tokio::io::AsyncRead + Send + Unpin>, Refusal> {
        let about = (&*artifact.workflow_run_backend_id, &*artifact.workflow_job_run_backend_id);
        let name = [("name", json!(artifact.name))];
        let Signed { signed_url } = self.call_about(about, "GetSignedArtifactURL", &name).await?;
        let path = path_of(self.known, &signed_url)?;
        Ok(self.service.ask("GET", &path, &[], &[]).await?.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::container::PathMap;

    fn wish(with: &[(&str, &str)]) -> Wish {
        let with: Vec<_> = with.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        let container = PathMap::default();
        let places = Places { workspace: "/w", home: "/home/me", container: &container };
        Wish::new(&with, &places).unwrap_or_else(|unfit| panic!("{unfit:?}"))
    }

    fn chosen(with: &[(&str, &str)]) -> Result<Vec<u64>, String> {
        let listed = |name: &str, id: &str| Listed {
            workflow_run_backend_id: String::new(),
            workflow_job_run_backend_id: String::new(),
            database_id: json!(id),
            name: name.to_owned(),
            size: json!("1"),
        };
        let all = vec![listed("a", "1"), listed("a", "12"), listed("b-1", "3"), listed("b-2", "4")];
        let chosen = wish(with).choose(all)?;
        Ok(chosen.iter().map(|artifact| number(&artifact.database_id)).collect())
    }

    #[test]
    fn artifacts_are_chosen_by_name_pattern_and_number() {
        assert_eq!(chosen(&[]), Ok(vec![12, 3, 4]));
        assert_eq!(chosen(&[("name", "a")]), Ok(vec![12]));
        assert_eq!(chosen(&[("pattern", "b-*")]), Ok(vec![3, 4]));
        assert_eq!(chosen(&[("pattern", "none*")]), Ok(vec![]));
        assert_eq!(chosen(&[("artifact-ids", "3, 4")]), Ok(vec![3, 4]));
        assert!(chosen(&[("name", "none")]).unwrap_err().contains("not found for name none"));
    }

    #[test]
    fn several_artifacts_get_directories() {
        assert!(wish(&[]).has_directories());
        assert!(wish(&[("pattern", "*")]).has_directories());
        assert!(!wish(&[("name", "a")]).has_directories());
        assert!(!wish(&[("artifact-ids", "3")]).has_directories());
        assert!(!wish(&[("merge-multiple", "true")]).has_directories());
        assert_eq!(wish(&[("path", "out")]).path, "/w/out");
    }
}
