//! `solstice image`: what can be booted, and what of it is on this host.

use std::io::{self, BufRead, IsTerminal, Write};
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::time::Timestamp;
use futures_util::{StreamExt, stream};
use orchestrator::Orchestrator;
use serde::Serialize;
use vm_manager::image::{
    Catalogue, Confirm, Entry, FirstPull, Image, ImageError, ImageStore, Progress, Source,
    StoreSettings,
};
use vm_manager::template::{self, StoredTemplate, TemplateError, TemplateStore};

use crate::cli::ImageCommand;
use crate::exit::{CommandError, Exit};
use crate::host::{image_directory, orchestrator_settings, template_directory};
use crate::message;
use crate::settings::Settings;
use crate::stop::Stop;
use crate::table;
use crate::waiting::Waiting;

/// Carries out a command about images.
///
/// # Errors
/// A label is unknown, or an image could not be fetched, built or removed.
pub(crate) async fn image(
    settings: &Settings,
    command: ImageCommand,
) -> Result<Exit, CommandError> {
    let catalogue = catalogue(settings)?;
    match command {
        ImageCommand::List { json } => list(settings, &catalogue, json),
        ImageCommand::Pull { labels, yes } => {
            let entries = entries(&catalogue, &labels)?;
            make(settings, &entries, yes, 1).await
        }
        ImageCommand::Build { labels } => {
            let entries = entries(&catalogue, &labels)?;
            if let Some(entry) =
                entries.iter().find(|entry| !matches!(entry.source, Source::Recipe(_)))
            {
                let label = &entry.label;
                return Err(CommandError::usage(format!("the image {label} has no recipe"))
                    .hint(format!("fetch it: solstice image pull {label}")));
            }
            // A build is the work of one core, and waits for mirrors and disks besides.
            let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
            make(settings, &entries, false, cores).await
        }
        ImageCommand::Warm { labels } => warm(settings, &entries(&catalogue, &labels)?).await,
        ImageCommand::Rm { labels } => remove(settings, &entries(&catalogue, &labels)?),
    }
}

/// The catalogue of this host.
///
/// # Errors
/// The operator's file cannot be used.
pub(crate) fn catalogue(settings: &Settings) -> Result<Catalogue, CommandError> {
    Catalogue::load(settings.catalogue.as_deref())
        .map_err(|error| CommandError::usage(error.to_string()))
}

/// The image of an entry, fetched or built if it is not here. Its user is told what happens, and
/// asked about a digest that the catalogue does not know unless `yes`.
///
/// # Errors
/// The image could not be made.
pub(crate) async fn ensure(
    settings: &Settings,
    entry: &Arc<Entry>,
    yes: bool,
) -> Result<Image, CommandError> {
    let waiting = Mutex::new(Waiting::start(&format!("image {}", entry.label)));
    ensure_saying(settings, entry, yes, &Arc::new(waiting)).await
}

/// The same; what happens is said in the line of others.
async fn ensure_saying(
    settings: &Settings,
    entry: &Arc<Entry>,
    yes: bool,
    waiting: &Arc<Mutex<Waiting>>,
) -> Result<Image, CommandError> {
    let asking = Arc::clone(waiting);
    let confirm = move |pull: &FirstPull| {
        let mut waiting = lock(&asking);
        waiting.pause();
        yes || confirm(pull)
    };
    let store = open(settings, Some(Arc::new(confirm)))?;
    let shown = Arc::clone(waiting);
    let label = entry.label.clone();
    let progress = move |step: Progress| show(&mut lock(&shown), &label, step);
    store.ensure(entry, &progress).await.map_err(|error| failed(&error))
}

fn entries(catalogue: &Catalogue, labels: &[String]) -> Result<Vec<Arc<Entry>>, CommandError> {
    let found = labels
        .iter()
        .map(|label| catalogue.get(label).map_err(|error| CommandError::usage(error.to_string())));
    found.collect()
}

/// Fetches or builds images, some of them at the same time. The first that fails ends the others.
async fn make(
    settings: &Settings,
    entries: &[Arc<Entry>],
    yes: bool,
    at_once: usize,
) -> Result<Exit, CommandError> {
    let stop = Stop::on_signals()
        .map_err(|error| CommandError::infrastructure(format!("cannot handle signals: {error}")))?;
    let begun = |entry: &Arc<Entry>| format!("image {}", entry.label);
    let Some(first) = entries.first() else { return Ok(Exit::Passed) };
    let waiting = Arc::new(Mutex::new(Waiting::start(&begun(first))));
    let made = stream::iter(entries).map(|entry| {
        lock(&waiting).say(&begun(entry));
        ensure_saying(settings, entry, yes, &waiting)
    });
    let mut made = made.buffer_unordered(at_once);
    loop {
        let image = tokio::select! {
            image = made.next() => image,
            () = stop.cancel.cancelled() => return Err(CommandError::cancelled("cancelled")),
        };
        let Some(image) = image.transpose()? else { return Ok(Exit::Passed) };
        lock(&waiting).pause();
        message::notice(&format!("the image {} is here: {}", image.entry.label, image.digest));
    }
}

/// Makes the templates of images, which are fetched or built first.
async fn warm(settings: &Settings, entries: &[Arc<Entry>]) -> Result<Exit, CommandError> {
    let stop = Stop::on_signals()
        .map_err(|error| CommandError::infrastructure(format!("cannot handle signals: {error}")))?;
    let orchestrator = Orchestrator::new(orchestrator_settings(settings))
        .map_err(|error| CommandError::usage(error.to_string()))?;
    for entry in entries {
        let label = &entry.label;
        let made = async {
            let image = ensure(settings, entry, false).await?;
            let tell = |text: &'static str| message::notice(&format!("image {label}: {text}"));
            let warmed = orchestrator.warm(image, &tell).await;
            warmed.map_err(|reason| {
                CommandError::infrastructure(format!("no template of the image {label}: {reason}"))
            })
        };
        let made = tokio::select! {
            made = made => made,
            () = stop.cancel.cancelled() => Err(CommandError::cancelled("cancelled")),
        };
        if let Err(error) = made {
            orchestrator.shutdown().await;
            return Err(error);
        }
        message::notice(&format!("the template of the image {label} is here"));
    }
    orchestrator.shutdown().await;
    Ok(Exit::Passed)
}

fn remove(settings: &Settings, entries: &[Arc<Entry>]) -> Result<Exit, CommandError> {
    let store = open(settings, None)?;
    let templates = open_templates(settings)?;
    for entry in entries {
        for (store, template) in all_of(templates.as_ref(), &entry.label)? {
            store.remove(&template.key).map_err(|error| template_failed(&error))?;
            let (label, bytes) = (&entry.label, template.bytes);
            message::notice(&format!("removed a template of the image {label} ({bytes})"));
        }
        let removed = store.remove(&entry.label).map_err(|error| failed(&error))?;
        if removed.is_empty() {
            message::notice(&format!("the image {} is not on this host", entry.label));
        }
        for image in removed {
            message::notice(&format!("removed the image {} ({})", image.label, image.digest));
        }
    }
    Ok(Exit::Passed)
}

/// The templates of this host; looking must not make the directories of a store.
fn open_templates(settings: &Settings) -> Result<Option<TemplateStore>, CommandError> {
    let directory = template_directory(settings);
    if !directory.is_dir() {
        return Ok(None);
    }
    let limits =
        template::StoreSettings { quota: settings.template_quota, reserve: settings.disk_reserve };
    TemplateStore::open(&directory, limits).map(Some).map_err(|error| template_failed(&error))
}

/// Those of a label, with their store.
fn all_of<'a>(
    store: Option<&'a TemplateStore>,
    label: &str,
) -> Result<Vec<(&'a TemplateStore, StoredTemplate)>, CommandError> {
    let Some(store) = store else { return Ok(Vec::new()) };
    let all = store.list().map_err(|error| template_failed(&error))?;
    let of_label = all.into_iter().filter(|template| template.facts.label == label);
    Ok(of_label.map(|template| (store, template)).collect())
}

fn template_failed(error: &TemplateError) -> CommandError {
    CommandError::infrastructure(error.to_string())
}

/// A row of `image list`.
#[derive(Debug, Serialize)]
struct Row {
    label: String,
    aliases: Vec<String>,
    system: String,
    version: String,
    architecture: String,
    cpus: u32,
    memory: u64,
    disk: u64,
    /// Whether a guest of it was booted by the project's own tests.
    verified: bool,
    /// Whether it is on this host.
    present: bool,
    digest: Option<String>,
    /// The templates from which its machines start.
    templates: Vec<TemplateRow>,
    note: Option<String>,
}

/// A template, in a row of `image list --json`.
#[derive(Debug, Serialize)]
struct TemplateRow {
    key: String,
    cpus: u32,
    memory: u64,
    bytes: u64,
    made: Timestamp,
    used: Timestamp,
}

impl TemplateRow {
    fn of(template: &StoredTemplate) -> Self {
        Self {
            key: template.key.to_string(),
            cpus: template.facts.cpus,
            memory: template.facts.memory.0,
            bytes: template.bytes.0,
            made: template.facts.made,
            used: template.used.into(),
        }
    }
}

fn list(settings: &Settings, catalogue: &Catalogue, json: bool) -> Result<Exit, CommandError> {
    // Looking must not make the directories of a store.
    let store = if image_directory(settings).is_dir() { Some(open(settings, None)?) } else { None };
    let templates = open_templates(settings)?;
    let mut rows = Vec::new();
    for entry in catalogue.entries() {
        let found = all_of(templates.as_ref(), &entry.label)?;
        let image = match &store {
            Some(store) => store.find(entry).map_err(|error| failed(&error))?,
            None => None,
        };
        rows.push(Row {
            label: entry.label.clone(),
            aliases: entry.aliases.clone(),
            system: entry.system.clone(),
            version: entry.version.clone(),
            architecture: entry.architecture.clone(),
            cpus: entry.cpus,
            memory: entry.memory.0,
            disk: entry.disk.0,
            verified: entry.verified,
            present: image.is_some(),
            digest: image.map(|image| image.digest),
            templates: found.iter().map(|(_, template)| TemplateRow::of(template)).collect(),
            note: entry.note.clone(),
        });
    }
    if json { table::print_json(&rows) } else { table::print(&HEADINGS, rows.iter().map(cells)) }
}

const HEADINGS: [&str; 8] =
    ["LABEL", "SYSTEM", "CPUS", "MEMORY", "HERE", "TEMPLATES", "VERIFIED", "DIGEST"];

fn cells(row: &Row) -> [String; 8] {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    [
        row.label.clone(),
        format!("{} {} {}", row.system, row.version, row.architecture),
        row.cpus.to_string(),
        common::size::ByteSize(row.memory).to_string(),
        yes(row.present),
        match row.templates.iter().map(|template| template.bytes).sum() {
            0 => "-".to_owned(),
            bytes => common::size::ByteSize(bytes).to_string(),
        },
        yes(row.verified),
        row.digest.as_deref().map_or("-", short).to_owned(),
    ]
}

/// Enough of a digest to recognise it.
fn short(digest: &str) -> &str {
    const SHOWN: usize = "sha256:".len() + 12;
    digest.get(..SHOWN).unwrap_or(digest)
}

fn open(settings: &Settings, confirm: Option<Confirm>) -> Result<ImageStore, CommandError> {
    let store =
        StoreSettings { reserve: settings.disk_reserve, confirm, ..StoreSettings::default() };
    ImageStore::open(&image_directory(settings), store).map_err(|error| failed(&error))
}

fn failed(error: &ImageError) -> CommandError {
    CommandError::infrastructure(error.to_string())
}

fn show(waiting: &mut Waiting, label: &str, step: Progress) {
    match step {
        Progress::Waiting => {
            waiting.say(&format!("image {label}: another process is at it, waiting"));
        }
        Progress::Downloading { done, total } => {
            waiting.bytes(&format!("image {label}: downloading"), done, total);
        }
        Progress::Verifying => waiting.say(&format!("image {label}: verifying")),
        Progress::Unpacking => waiting.say(&format!("image {label}: unpacking")),
        Progress::Converting => waiting.say(&format!("image {label}: converting")),
        Progress::Building { line } => waiting.say(&format!("image {label}: {line}")),
    }
}

/// Asks the person at the terminal whether a digest is the right one.
fn confirm(pull: &FirstPull) -> bool {
    let FirstPull { label, url, digest, bytes } = pull;
    let size = common::size::ByteSize(*bytes);
    message::notice(&format!(
        "the catalogue knows no digest of the image {label}\n  from   {url}\n  size   {size}\n  \
         digest {digest}\ncompare the digest with what the image's makers publish; it is recorded \
         and later changes are refused"
    ));
    if !io::stdin().is_terminal() {
        message::notice("there is no terminal to ask at; accept it with --yes");
        return false;
    }
    let mut stderr = io::stderr();
    if stderr.write_all(b"accept it? [y/N] ").and_then(|()| stderr.flush()).is_err() {
        return false;
    }
    let mut answer = String::new();
    match io::stdin().lock().read_line(&mut answer) {
        Ok(_) => matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"),
        Err(_) => false,
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
