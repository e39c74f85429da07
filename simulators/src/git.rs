//! Repositories of git over HTTP, read only: on a server of their own, or as a part of another one.
//!
//! The protocol is git's own: `git upload-pack` answers, as it does behind any forge.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Seek, Write};
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::task::AbortOnDropHandle;

/// Bytes of a request that is read at all.
const REQUEST: usize = 16 * 1024 * 1024;

/// The mark of a repository that only knows the first version of the protocol.
const OLD: &str = "solstice-old";

/// The stream (git-fast-import(1)) of a repository whose branch `main` has so many commits. Each adds
/// so many files, `src/part-0/file-0.rs` and so on, of some hundreds or thousands of bytes.
///
/// # Panics
/// Never.
#[must_use]
pub fn history(commits: usize, files: usize) -> String {
    let mut stream = String::new();
    for part in 0..commits {
        let message = format!("Part {part}");
        write!(
            stream,
            "commit refs/heads/main\ncommitter B <b@example.org> {} +0000\ndata {}\n{message}\n",
            1_700_000_000 + part,
            message.len()
        )
        .expect("a text takes it");
        for file in 0..files {
            let text = format!("// The file {file} of part {part}.\n").repeat(10 + file);
            let length = text.len();
            writeln!(stream, "M 644 inline src/part-{part}/file-{file}.rs\ndata {length}\n{text}")
                .expect("a text takes it");
        }
    }
    stream
}

/// A git server on this host with [`Repositories`]. Dropping it ends it and removes them.
#[derive(Debug)]
pub struct GitServer {
    url: String,
    repositories: Arc<Repositories>,
    _serving: AbortOnDropHandle<()>,
}

impl GitServer {
    /// Starts one without repositories.
    ///
    /// # Panics
    /// The host has no port or no room.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let repositories = Arc::new(Repositories::new());
        let router = Router::new().fallback(serve).with_state(Arc::clone(&repositories));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves for ever");
        });
        Self { url, repositories, _serving: AbortOnDropHandle::new(serving) }
    }

    /// Its address, without a final slash.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Deref for GitServer {
    type Target = Repositories;

    fn deref(&self) -> &Repositories {
        &self.repositories
    }
}

/// Repositories by their names.
#[derive(Debug)]
pub struct Repositories {
    place: TempDir,
    /// What was asked for, in order: the method and the path with its question.
    asked: Mutex<Vec<String>>,
    /// What stood in the headers for authorization.
    credentials: Mutex<Vec<String>>,
    /// Where a path sends whoever asks for it.
    redirects: Mutex<HashMap<String, String>>,
}

impl Repositories {
    pub(crate) fn new() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        Self {
            place,
            asked: Mutex::default(),
            credentials: Mutex::default(),
            redirects: Mutex::default(),
        }
    }

    /// Adds a commit with these files to the branch `main` of a repository, which is made if it is not
    /// there; gives its id. The files of the commit before it are gone.
    ///
    /// # Panics
    /// git fails.
    pub fn commit(&self, repository: &str, files: &[(&str, &str)]) -> String {
        self.commit_with(repository, files, &[])
    }

    /// The same with submodules: the paths and commits at which they stand, whether those exist or not.
    ///
    /// # Panics
    /// git fails.
    pub fn commit_with(
        &self,
        repository: &str,
        files: &[(&str, &str)],
        submodules: &[(&str, &str)],
    ) -> String {
        let bare = self.make(repository);
        let work = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = work.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
        let tree = format!("--work-tree={}", work.path().display());
        git(&bare, &[&tree, "read-tree", "--empty"]);
        git(&bare, &[&tree, "add", "--all", "--force"]);
        for (path, commit) in submodules {
            let entry = format!("160000,{commit},{path}");
            git(&bare, &[&tree, "update-index", "--add", "--cacheinfo", &entry]);
        }
        git(&bare, &[&tree, "commit", "--quiet", "--allow-empty", "--message=test"]);
        git(&bare, &["rev-parse", "HEAD"])
    }

    /// Makes the commits that a stream describes (git-fast-import(1)), which is quicker for many; gives
    /// the last of the branch `main`.
    ///
    /// # Panics
    /// git fails.
    pub fn import(&self, repository: &str, stream: &[u8]) -> String {
        let bare = self.make(repository);
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(stream).and_then(|()| file.rewind()).expect("a file");
        let mut import = Blocking::new("git");
        import.arg("--git-dir").arg(&bare).args(["fast-import", "--quiet"]).stdin(file);
        assert!(import.status().expect("git runs").success(), "git fast-import fails");
        git(&bare, &["rev-parse", "refs/heads/main"])
    }

    /// The directory of a repository, which is made if it is not there.
    fn make(&self, repository: &str) -> PathBuf {
        let bare = self.path(repository);
        if !bare.exists() {
            std::fs::create_dir_all(&bare).expect("a directory");
            git(&bare, &["init", "--quiet", "--bare", "--initial-branch=main"]);
            git(&bare, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
        }
        bare
    }

    /// Lets a branch, such as `refs/heads/other`, or another name stand at a commit.
    ///
    /// # Panics
    /// git fails.
    pub fn name(&self, repository: &str, name: &str, commit: &str) {
        git(&self.path(repository), &["update-ref", name, commit]);
    }

    /// Removes a branch, a tag or another name.
    ///
    /// # Panics
    /// git fails.
    pub fn remove(&self, repository: &str, name: &str) {
        git(&self.path(repository), &["update-ref", "-d", name]);
    }

    /// Lets a tag stand at a commit, with a message of its own where `annotated`.
    ///
    /// # Panics
    /// git fails.
    pub fn tag(&self, repository: &str, tag: &str, commit: &str, annotated: bool) {
        let bare = self.path(repository);
        if annotated {
            git(&bare, &["tag", "--force", "--message=tag", tag, commit]);
        } else {
            git(&bare, &["tag", "--force", tag, commit]);
        }
    }

    /// From now on a repository gives out its branches and tags only, as old servers do.
    ///
    /// # Panics
    /// git fails.
    pub fn refuse_ids(&self, repository: &str) {
        let path = self.path(repository);
        git(&path, &["config", "uploadpack.allowAnySHA1InWant", "false"]);
        // Later versions of the protocol give out everything.
        std::fs::write(path.join(OLD), "").expect("a file");
    }

    /// From now on a path, such as `/owner/name/info/refs?service=git-upload-pack`, sends whoever asks
    /// for it to another address.
    pub fn redirect(&self, path: &str, to: &str) {
        self.redirects().insert(path.to_owned(), to.to_owned());
    }

    /// What was asked for so far, in order: the method and the path with its question.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What stood in the headers for authorization so far.
    #[must_use]
    pub fn credentials(&self) -> Vec<String> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn path(&self, repository: &str) -> PathBuf {
        self.place.path().join(repository)
    }

    fn redirects(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.redirects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The repository that a path of the protocol is about.
    pub(crate) fn asked_for(path: &str) -> Option<&str> {
        let ends = ["/info/refs", "/git-upload-pack"];
        let name = ends.iter().find_map(|end| path.strip_suffix(end))?.trim_start_matches('/');
        Some(name.strip_suffix(".git").unwrap_or(name))
    }

    /// Answers what git asks.
    pub(crate) async fn answer(
        &self,
        (method, uri): (&Method, &Uri),
        headers: &HeaderMap,
        body: &[u8],
    ) -> Response<Body> {
        let question = uri.path_and_query().map_or("", |both| both.as_str()).to_owned();
        let line = format!("{method} {question}");
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        if let Some(sent) = headers.get(header::AUTHORIZATION).and_then(|sent| sent.to_str().ok()) {
            let mut credentials = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
            credentials.push(sent.to_owned());
        }
        let elsewhere = self.redirects().get(&question).cloned();
        if let Some(to) = elsewhere {
            return answer(StatusCode::FOUND, &[(header::LOCATION, &to)], Body::empty());
        }
        let name = Self::asked_for(uri.path()).filter(|name| !name.contains(".."));
        let Some(path) = name.map(|name| self.path(name)).filter(|path| path.join("HEAD").exists())
        else {
            return answer(StatusCode::NOT_FOUND, &[], Body::from("not found"));
        };
        // So git sends what has more than 1024 bytes.
        let is_packed = headers.get(header::CONTENT_ENCODING).is_some_and(|kind| kind == "gzip");
        let unpacked = match is_packed {
            true => {
                let mut command = Command::new("gzip");
                command.arg("-dc");
                Some(fed(command, body).await)
            }
            false => None,
        };
        let body = unpacked.as_deref().unwrap_or(body);
        let is_question = uri.path().ends_with("/info/refs");
        let version = headers.get("git-protocol").and_then(|value| value.to_str().ok());
        let version = version.filter(|_| !path.join(OLD).exists());
        let mut arguments = vec!["upload-pack", "--stateless-rpc"];
        if is_question {
            arguments.push("--advertise-refs");
        }
        let output = upload_pack(&arguments, &path, version.unwrap_or_default(), body).await;
        let (kind, mut bytes) = if is_question {
            ("advertisement", b"001e# service=git-upload-pack\n0000".to_vec())
        } else {
            ("result", Vec::new())
        };
        bytes.extend(output);
        let kind = format!("application/x-git-upload-pack-{kind}");
        answer(StatusCode::OK, &[(header::CONTENT_TYPE, &kind)], Body::from(bytes))
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

async fn serve(
    State(repositories): State<Arc<Repositories>>,
    request: Request<Body>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, REQUEST).await.unwrap_or_default();
    repositories.answer((&parts.method, &parts.uri), &parts.headers, &body).await
}

async fn upload_pack(arguments: &[&str], path: &Path, version: &str, body: &[u8]) -> Vec<u8> {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .arg(path)
        .env("GIT_PROTOCOL", version)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*");
    fed(command, body).await
}

/// What a program makes of its input.
async fn fed(mut command: Command, input: &[u8]) -> Vec<u8> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program runs");
    let stdin = child.stdin.take();
    let feeding = async {
        if let Some(mut stdin) = stdin {
            // It may have read enough.
            drop(stdin.write_all(input).await);
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feeding);
    output.expect("the program ends").stdout
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
