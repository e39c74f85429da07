//! A git server: repositories of bare files, over git's smart HTTP, read only.
//!
//! The protocol is git's own: `git upload-pack` answers, as it does behind any forge.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use http::{Request, Response, StatusCode, header};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::task::AbortOnDropHandle;

/// Bytes of a request that is read at all.
const REQUEST: usize = 16 * 1024 * 1024;

/// A git server on this host. Dropping it ends it and removes its repositories.
#[derive(Debug)]
pub struct GitServer {
    url: String,
    shared: Arc<Shared>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    place: TempDir,
    /// What was asked for, in order: the method and the path with its question.
    asked: Mutex<Vec<String>>,
    /// Where a path sends whoever asks for it.
    redirects: Mutex<HashMap<String, String>>,
}

impl GitServer {
    /// Starts one without repositories.
    ///
    /// # Panics
    /// The host has no port or no room.
    pub async fn start() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let shared =
            Arc::new(Shared { place, asked: Mutex::default(), redirects: Mutex::default() });
        let router = Router::new().fallback(serve).with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves for ever");
        });
        Self { url, shared, _serving: AbortOnDropHandle::new(serving) }
    }

    /// Its address, without a final slash.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Adds a commit with these files to the branch `main` of a repository, which is made if it is not
    /// there; gives its id. What the commit before it had is gone.
    ///
    /// # Panics
    /// git fails.
    pub fn commit(&self, repository: &str, files: &[(&str, &str)]) -> String {
        let bare = self.shared.path(repository);
        if !bare.exists() {
            std::fs::create_dir_all(&bare).expect("a directory");
            git(&bare, &["init", "--quiet", "--bare", "--initial-branch=main"]);
            git(&bare, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
        }
        let work = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = work.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
        let tree = format!("--work-tree={}", work.path().display());
        git(&bare, &[&tree, "read-tree", "--empty"]);
        git(&bare, &[&tree, "add", "--all", "--force"]);
        git(&bare, &[&tree, "commit", "--quiet", "--allow-empty", "--message=test"]);
        git(&bare, &["rev-parse", "HEAD"])
    }

    /// Lets a tag stand at a commit, with a message of its own where `annotated`.
    ///
    /// # Panics
    /// git fails.
    pub fn tag(&self, repository: &str, tag: &str, commit: &str, annotated: bool) {
        let bare = self.shared.path(repository);
        if annotated {
            git(&bare, &["tag", "--force", "--message=tag", tag, commit]);
        } else {
            git(&bare, &["tag", "--force", tag, commit]);
        }
    }

    /// From now on a path, such as `/owner/name/info/refs?service=git-upload-pack`, sends whoever asks
    /// for it to another address.
    pub fn redirect(&self, path: &str, to: &str) {
        self.shared.redirects().insert(path.to_owned(), to.to_owned());
    }

    /// What was asked for so far, in order: the method and the path with its question.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn path(&self, repository: &str) -> PathBuf {
        self.place.path().join(repository)
    }

    fn redirects(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.redirects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// git without the configuration of whoever runs the tests.
fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Blocking::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.bare=false"])
        .args(["-c", "commit.gpgSign=false"])
        .arg("--git-dir")
        .arg(directory)
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let uri = request.uri().clone();
    let question = uri.path_and_query().map_or("", |both| both.as_str()).to_owned();
    let line = format!("{} {question}", request.method());
    shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    if let Some(to) = shared.redirects().get(&question) {
        return answer(StatusCode::FOUND, &[(header::LOCATION, to)], Body::empty());
    }
    let found = [("/info/refs", true), ("/git-upload-pack", false)].into_iter().find_map(
        |(end, is_question)| {
            let name = uri.path().strip_suffix(end)?;
            let name = name.trim_start_matches('/');
            let path = shared.path(name.strip_suffix(".git").unwrap_or(name));
            (!name.contains("..") && path.join("HEAD").exists()).then_some((path, is_question))
        },
    );
    let Some((path, is_question)) = found else {
        return answer(StatusCode::NOT_FOUND, &[], Body::from("not found"));
    };
    let version = request.headers().get("git-protocol").and_then(|value| value.to_str().ok());
    let version = version.unwrap_or_default().to_owned();
    let body = to_bytes(request.into_body(), REQUEST).await.unwrap_or_default();
    let mut arguments = vec!["upload-pack", "--stateless-rpc"];
    if is_question {
        arguments.push("--advertise-refs");
    }
    let output = upload_pack(&arguments, &path, &version, &body).await;
    let (kind, mut bytes) = if is_question {
        ("advertisement", b"001e# service=git-upload-pack\n0000".to_vec())
    } else {
        ("result", Vec::new())
    };
    bytes.extend(output);
    let kind = format!("application/x-git-upload-pack-{kind}");
    answer(StatusCode::OK, &[(header::CONTENT_TYPE, &kind)], Body::from(bytes))
}

async fn upload_pack(arguments: &[&str], path: &Path, version: &str, body: &[u8]) -> Vec<u8> {
    let mut child = Command::new("git")
        .args(arguments)
        .arg(path)
        .env("GIT_PROTOCOL", version)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git runs");
    if let Some(mut stdin) = child.stdin.take() {
        // It may have read enough.
        drop(stdin.write_all(body).await);
    }
    child.wait_with_output().await.expect("git ends").stdout
}

fn answer(
    status: StatusCode,
    headers: &[(header::HeaderName, &str)],
    body: Body,
) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, *value);
    }
    response.body(body).expect("the headers are plain")
}
