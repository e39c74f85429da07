//! The actions and repositories that cases use: those of `workflow-runner/tests/actions`.
//!
//! The folder of an action is named as the case names it, without the path inside and without
//! `https://`: `own/steps@v1`, `forge.example/own/hello@v1`. That of a repository has no version.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::call::{
    Ask, CALL_DATA_BYTES, CALL_ROOM_BYTES, CallAnswer, CallError, CallErrorKind, ForwardWish,
    HostCall, Reply, TreeWish,
};
use common::frame::{Decoder, encode};
use common::guest::{FromGuest, ToGuest};
use common::plan::{Plan, Value};
use lz4_flex::frame::FrameEncoder;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::sync::Mutex;
use workflow_runner::host::{Answered, Fetched, Host, HostError, NoHost};
use workflow_runner::system::{Owner, Pending};

/// The commit of everything.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Where programs are beside the `node` of a case.
const PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A `node` that runs a file as a script of `sh`. Shells drop variables whose names have hyphens, so
/// scripts find what was given to it in `/proc/$NODE/environ`.
pub(super) const NODE: &str = "#!/bin/sh\nNODE=$$\nexport NODE\nsh \"$@\"\nexit $?\n";

/// Lets a job find the `node` of a directory.
pub(super) fn put_node(plan: &mut Plan, directory: &str) {
    let path = Value::Literal(format!("{directory}:{PROGRAMS}"));
    plan.env.insert(0, Value::Mapping(vec![(Value::Literal("PATH".to_owned()), path)]));
}

/// Writes that `node` into a new directory.
pub(super) fn write_node(directory: &Path) {
    fs::create_dir(directory).unwrap();
    let node = directory.join("node");
    fs::write(&node, NODE).unwrap();
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The folder of everything.
fn all() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../workflow-runner/tests/actions")
}

/// The folder of an action or a repository, if there is one.
fn folder(name: &str) -> Option<PathBuf> {
    let folder = all().join(name.strip_prefix("https://").unwrap_or(name));
    folder.is_dir().then_some(folder)
}

/// A version of a repository with actions.
pub(super) struct Repository {
    /// `owner/name`.
    pub(super) name: String,
    pub(super) version: String,
    /// Path and text of each file.
    pub(super) files: Vec<(String, String)>,
}

impl Repository {
    /// What stands in `uses` for each of its actions that needs no `node` before the first step.
    pub(super) fn references(&self) -> Vec<String> {
        let directories = self.files.iter().filter_map(|(path, _)| {
            let path = path.strip_suffix("action.yml").or(path.strip_suffix("action.yaml"))?;
            Some(path.trim_end_matches('/'))
        });
        let runs_before = |directory: &str| {
            let script = format!("{directory}/pre.js");
            // Those made of steps that have such an action inside are named so.
            directory.starts_with("pre") || self.files.iter().any(|(path, _)| *path == script)
        };
        let Self { name, version, .. } = self;
        let reference = |directory: &str| match directory {
            "" => format!("{name}@{version}"),
            directory => format!("{name}/{directory}@{version}"),
        };
        directories.filter(|directory| !runs_before(directory)).map(reference).collect()
    }
}

/// Every version of every repository of an owner.
pub(super) fn repositories(owner: &str) -> Vec<Repository> {
    let mut files = Vec::new();
    read(&all().join(owner), owner, &mut files);
    files.sort();
    let mut repositories: Vec<Repository> = Vec::new();
    for (path, text) in files {
        // The versions below `feature` are the only ones with a slash.
        let (name, rest) = path.split_once('@').unwrap();
        let version = match rest.strip_prefix("feature/") {
            Some(rest) => format!("feature/{}", rest.split('/').next().unwrap()),
            None => rest.split('/').next().unwrap().to_owned(),
        };
        let file = (rest[version.len() + 1..].to_owned(), text);
        match repositories.last_mut() {
            Some(last) if last.name == name && last.version == version => last.files.push(file),
            _ => {
                repositories.push(Repository { name: name.to_owned(), version, files: vec![file] });
            }
        }
    }
    repositories
}

fn read(folder: &Path, name: &str, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{name}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read(&entry.path(), &name, files);
        } else {
            files.push((name, fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

/// Whoever fetches for jobs on this host.
#[derive(Debug)]
pub(super) struct Shelf;

impl Shelf {
    fn place(name: &str, to: &str) -> Result<Fetched, HostError> {
        let absent = || {
            let text = format!("cannot fetch {name}: it does not exist");
            HostError::new(CallErrorKind::NotFound, text)
        };
        copy(&folder(name).ok_or_else(absent)?, Path::new(to)).unwrap();
        Ok(Fetched { commit: COMMIT.to_owned() })
    }
}

impl Host for Shelf {
    fn fetch_action<'a>(
        &'a self,
        reference: &'a str,
        to: &'a str,
        _owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>> {
        Box::pin(async move { Self::place(reference, to) })
    }

    fn fetch_tree<'a>(
        &'a self,
        wish: &'a TreeWish,
        to: &'a str,
        _owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>> {
        Box::pin(async move { Self::place(&wish.repository, to) })
    }

    fn ask<'a>(
        &'a self,
        wish: ForwardWish,
        body: &'a [u8],
    ) -> Pending<'a, Result<Answered, HostError>> {
        NoHost.ask(wish, body)
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Answers the calls of a guest program. What it says otherwise goes on to the stream that this gives,
/// and what comes from there goes to the guest.
pub(super) fn answering(
    guest: (impl AsyncRead + Send + Unpin + 'static, impl AsyncWrite + Send + Unpin + 'static),
) -> DuplexStream {
    let (ours, theirs) = duplex(64 * 1024);
    let (mut reader, writer) = guest;
    tokio::spawn(async move {
        let writer = Mutex::new(writer);
        let (mut from_host, mut to_host) = split(theirs);
        let up = async {
            let mut decoder = Decoder::default();
            while let Some(frame) = next::<FromGuest>(&mut reader, &mut decoder).await {
                match frame {
                    FromGuest::Call { call, ask: Ask::Begin(wish) } => {
                        for reply in replies(wish) {
                            let frame = ToGuest::Call { call, reply };
                            send(&mut *writer.lock().await, &frame).await?;
                        }
                    }
                    // An answer fits into the room that a guest gives without being asked.
                    FromGuest::Call { .. } => {}
                    frame => send(&mut to_host, &frame).await?,
                }
            }
            io::Result::Ok(())
        };
        let down = async {
            let mut decoder = Decoder::default();
            while let Some(frame) = next::<ToGuest>(&mut from_host, &mut decoder).await {
                send(&mut *writer.lock().await, &frame).await?;
            }
            io::Result::Ok(())
        };
        // One side is gone: the other one sees it.
        tokio::select! {
            _ = up => {}
            _ = down => {}
        }
    });
    ours
}

async fn send<T: serde::Serialize>(
    writer: &mut (impl AsyncWrite + Unpin),
    frame: &T,
) -> io::Result<()> {
    writer.write_all(&encode(frame).unwrap()).await?;
    writer.flush().await
}

async fn next<T: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
) -> Option<T> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        if let Some(frame) = decoder.next_frame().unwrap() {
            return Some(frame);
        }
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => decoder.push(&buffer[..count]),
        }
    }
}

fn replies(wish: HostCall) -> Vec<Reply> {
    let commit = COMMIT.to_owned();
    let wish = match wish {
        HostCall::Packed(wish) => *wish,
        wish => wish,
    };
    let (name, head) = match wish {
        HostCall::Packed(_) => panic!("a call is packed twice"),
        HostCall::Action { reference } => (reference, CallAnswer::Action { commit }),
        HostCall::Tree(wish) => (wish.repository, CallAnswer::Tree { commit }),
        HostCall::Forward(wish) => {
            let text = format!("there is no service {}", wish.service);
            return vec![Reply::Head(Err(CallError::new(CallErrorKind::Refused, text)))];
        }
    };
    let Some(folder) = folder(&name) else {
        let error = CallError::new(CallErrorKind::NotFound, format!("{name} does not exist"));
        return vec![Reply::Head(Err(error))];
    };
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", folder).unwrap();
    let mut packed = FrameEncoder::new(Vec::new());
    packed.write_all(&archive.into_inner().unwrap()).unwrap();
    let archive = packed.finish().unwrap();
    assert!(archive.len() <= CALL_ROOM_BYTES as usize, "{name} is too large");
    let data = archive.chunks(CALL_DATA_BYTES).map(|data| Reply::Data(data.to_vec()));
    std::iter::once(Reply::Head(Ok(head))).chain(data).chain([Reply::End]).collect()
}
