//! The keys of a catalogue entry and what each may be.

use std::path::PathBuf;
use std::time::Duration;

use common::limits::{GIB, MACHINE_CPUS, MIB};
use common::size::ByteSize;

use super::entry::{
    Checkout, Compression, DiskFormat, DiskModel, Entry, Hardware, Preparation, SeedDevice, Source,
    SourceDigest, Templating,
};
use super::personalise;
use super::reader::{CatalogueError, Layers, Placed};
use super::recipe::RECIPES;

/// Memory of a default size: less boots nothing, more is a slip.
const MEMORY: std::ops::RangeInclusive<u64> = 64 * MIB..=4096 * GIB;
/// The disk that a guest sees.
const DISK: std::ops::RangeInclusive<u64> = 64 * MIB..=16 * 1024 * GIB;
/// The longest time that a boot or a preparation may be given.
const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);
/// The longest label, in characters.
const LABEL_CHARACTERS: usize = 64;
/// The longest text of any other key, in characters.
const TEXT_CHARACTERS: usize = 1024;
/// The keys of an entry. A new one is also read below and explained here:
/// `recipe` or `url`, `digest`, `format`, `compression` say where the image comes from; `hardware`
/// is a table of its own; `like` names another image from which everything is taken that is not
/// said; `install` is the command that installs the packages of `prepare`; every other key is the
/// field of [`Entry`] with its name.
const ENTRY_KEYS: [&str; 29] = [
    "aliases",
    "architecture",
    "boot_ceiling",
    "checkout",
    "compression",
    "cpus",
    "digest",
    "disk",
    "format",
    "hardware",
    "install",
    "like",
    "memory",
    "note",
    "prepare",
    "privilege",
    "recipe",
    "run_as",
    "runner_arch",
    "runner_os",
    "shutdown",
    "system",
    "template",
    "tool_cache",
    "url",
    "user",
    "verified",
    "version",
    "work_directory",
];
/// The keys of `hardware`: the fields of [`Hardware`].
const HARDWARE_KEYS: [&str; 6] =
    ["disk", "firmware", "kernel_command_line", "machine", "network", "seed"];

/// The keys of `template`: the fields of [`Templating`].
const TEMPLATE_KEYS: [&str; 2] = ["port", "script"];

/// The keys of `prepare`: what becomes a [`Preparation`].
const PREPARE_KEYS: [&str; 3] = ["deadline", "packages", "script"];
/// How long a preparation may take that says nothing of it.
const PREPARE_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// The longest script, in bytes.
const SCRIPT_BYTES: usize = 64 * 1024;

/// Reads one entry and checks all that can be checked of it alone.
pub(super) fn read_entry(label: &str, table: &Layers<'_>) -> Result<Entry, CatalogueError> {
    if !is_label(label) {
        return Err(table.error(format!(
            "{label:?} is no label; it has at most {LABEL_CHARACTERS} letters, digits and `.`, `-`, `_`, and begins with a letter or digit"
        )));
    }
    table.allow(&ENTRY_KEYS)?;
    let hardware = table.required("hardware", table.table("hardware")?)?;
    let source = read_source(table)?;
    let (architecture, runner_arch) = architecture(table)?;
    let entry = Entry {
        label: label.to_owned(),
        aliases: table
            .own()
            .texts("aliases")?
            .into_iter()
            .map(|alias| {
                alias.check(|alias| is_label(alias), "an alias follows the rules of a label")
            })
            .map(|alias| alias.map(str::to_owned))
            .collect::<Result<_, _>>()?,
        system: required_text(table, "system")?,
        version: required_text(table, "version")?,
        runner_os: table
            .required("runner_os", table.text("runner_os")?)?
            .one_of(
                "operating system of the runner",
                &["Linux", "FreeBSD", "NetBSD", "OpenBSD", "illumos"].map(|name| (name, name)),
            )?
            .to_owned(),
        runner_arch,
        architecture,
        hardware: read_hardware(table, &hardware, &source)?,
        source,
        user: table.required("user", user(table, "user")?)?,
        privilege: table
            .texts("privilege")?
            .into_iter()
            .map(|word| plain(word).map(str::to_owned))
            .collect::<Result<_, _>>()?,
        shutdown: required_text(table, "shutdown")?,
        tool_cache: directory(table, "tool_cache")?,
        work_directory: directory(table, "work_directory")?,
        run_as: user(table, "run_as")?,
        checkout: match table.text("checkout")? {
            Some(text) => text.one_of(
                "kind of checkout",
                &[("never", Checkout::Never), ("auto", Checkout::Auto)],
            )?,
            None => Checkout::default(),
        },
        cpus: cpus(table)?,
        memory: size(table, "memory", &MEMORY)?,
        disk: size(table, "disk", &DISK)?,
        boot_ceiling: boot_ceiling(table)?,
        template: read_template(table)?,
        prepare: read_preparation(table)?,
        verified: table.required("verified", table.flag("verified")?)?.value,
        note: table.text("note")?.map(plain).transpose()?.map(str::to_owned),
    };
    check_privilege(table, &entry)?;
    Ok(entry)
}

/// A source is of one piece: keys of a file below the one that names it do not count.
fn source_layers<'a>(entry: &Layers<'a>) -> Layers<'a> {
    entry.down_to(&["recipe", "url"])
}

fn read_source(entry: &Layers<'_>) -> Result<Source, CatalogueError> {
    let table = source_layers(entry);
    let recipe = table.text("recipe")?;
    let url = table.text("url")?;
    let digest = table.text("digest")?;
    let format = table.text("format")?;
    let compression = table.text("compression")?;
    match (recipe, url) {
        (Some(recipe), None) => {
            for (key, value) in
                [("digest", &digest), ("format", &format), ("compression", &compression)]
            {
                if let Some(value) = value {
                    return Err(value.error(format!("`{key}` goes with `url`, not with `recipe`")));
                }
            }
            let names = RECIPES.map(|name| (name, name));
            Ok(Source::Recipe(recipe.one_of("recipe", &names)?.to_owned()))
        }
        (None, Some(url)) => {
            let digest = table.required("digest", digest)?;
            let digest = match digest.value {
                "on-first-pull" => SourceDigest::OnFirstPull,
                _ => SourceDigest::Known(digest.parse()?),
            };
            Ok(Source::Download {
                url: check_url(&url)?,
                digest,
                format: table.required("format", format)?.one_of(
                    "disk format",
                    &[("qcow2", DiskFormat::Qcow2), ("raw", DiskFormat::Raw)],
                )?,
                compression: compression.map_or(Ok(Compression::None), |name| {
                    name.one_of(
                        "compression",
                        &[Compression::None, Compression::Gzip, Compression::Xz, Compression::Zstd]
                            .map(|compression| (compression.name(), compression)),
                    )
                })?,
            })
        }
        (Some(recipe), Some(_)) => {
            Err(recipe.error("an image has a `recipe` or a `url`, not both"))
        }
        (None, None) => {
            Err(table.error("an image has a `recipe` or a `url`, and this has neither"))
        }
    }
}

fn read_hardware(
    entry: &Layers<'_>,
    table: &Layers<'_>,
    source: &Source,
) -> Result<Hardware, CatalogueError> {
    table.allow(&HARDWARE_KEYS)?;
    // Whether there is a kernel for direct boot is a property of the source.
    let beside_source = source_layers(entry).table("hardware")?;
    let kernel_command_line = match &beside_source {
        Some(table) => table.text("kernel_command_line")?.map(plain).transpose()?,
        None => None,
    };
    let hardware = Hardware {
        machine: model(table, "machine")?,
        disk: table.required("disk", table.text("disk")?)?.one_of(
            "way to attach a disk",
            &[("virtio", DiskModel::Virtio), ("scsi", DiskModel::Scsi), ("ide", DiskModel::Ide)],
        )?,
        seed: table.required("seed", table.text("seed")?)?.one_of(
            "way to attach the seed",
            &[
                ("virtio", SeedDevice::Virtio),
                ("ide-cdrom", SeedDevice::IdeCdrom),
                ("scsi-cdrom", SeedDevice::ScsiCdrom),
            ],
        )?,
        network: model(table, "network")?,
        firmware: table
            .text("firmware")?
            .map(|path| path.check(|path| is_path(path), "`firmware` is an absolute path"))
            .transpose()?
            .map(PathBuf::from),
        kernel_command_line: kernel_command_line.map(str::to_owned),
    };
    let direct = hardware.kernel_command_line.is_some();
    match source {
        Source::Recipe(_) if !direct => {
            return Err(table.error(
                "the recipes make images without a boot loader: `kernel_command_line` is missing",
            ));
        }
        Source::Download { .. } if direct => {
            return Err(table.error(
                "a downloaded image boots by its own boot loader: it has no kernel for `kernel_command_line`",
            ));
        }
        _ => {}
    }
    Ok(hardware)
}

fn read_template(entry: &Layers<'_>) -> Result<Option<Templating>, CatalogueError> {
    let Some(table) = entry.table("template")? else { return Ok(None) };
    table.allow(&TEMPLATE_KEYS)?;
    let port = table.required("port", table.text("port")?)?;
    let port = port.check(|port| is_path(port), "`port` is the path of a device in the guest")?;
    let script = table.required("script", table.text("script")?)?;
    let script = script.one_of("script", &personalise::SCRIPTS)?;
    Ok(Some(Templating { port: port.to_owned(), script }))
}

/// Packages and script become one script.
fn read_preparation(entry: &Layers<'_>) -> Result<Option<Preparation>, CatalogueError> {
    let install = entry.text("install")?.map(plain).transpose()?;
    let Some(table) = entry.table("prepare")? else { return Ok(None) };
    table.allow(&PREPARE_KEYS)?;
    let mut script = "set -e\n".to_owned();
    let packages = table.texts("packages")?;
    if let (Some(first), None) = (packages.first(), install) {
        return Err(first.error("the image does not say how packages are installed: give it `install`, the command in front of their names"));
    }
    let mut names = Vec::new();
    for package in packages {
        let rule =
            "a package is named by letters, digits and `+`, `-`, `.`, `_`, `/`, `@`, `:`, `=`";
        names.push(package.check(|name| is_package(name), rule)?);
    }
    if let (Some(install), false) = (install, names.is_empty()) {
        script.push_str(install);
        script.extend(names.iter().flat_map(|name| [" ", name]));
        script.push('\n');
    }
    let own = table.text("script")?;
    if let Some(own) = own {
        let rule = format!("`script` has some text, and at most {SCRIPT_BYTES} bytes");
        let fits = |text: &&str| !text.trim().is_empty() && text.len() <= SCRIPT_BYTES;
        script.push_str(own.check(fits, rule)?);
        script.push('\n');
    } else if names.is_empty() {
        return Err(table.error("`prepare` has `packages`, `script` or both"));
    }
    let deadline = match table.text("deadline")? {
        Some(text) => time("deadline", text)?,
        None => PREPARE_DEADLINE,
    };
    Ok(Some(Preparation { script, deadline }))
}

fn is_package(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-._/@:=".contains(c);
    !name.is_empty() && name.len() <= 200 && !name.starts_with('-') && name.chars().all(allowed)
}

fn architecture(table: &Layers<'_>) -> Result<(String, String), CatalogueError> {
    const PAIRS: [(&str, &str); 2] = [("x86_64", "X64"), ("aarch64", "ARM64")];
    let architecture = table.required("architecture", table.text("architecture")?)?;
    let expected = architecture.one_of("architecture", &PAIRS)?;
    let found = table.required("runner_arch", table.text("runner_arch")?)?;
    let found = found.check(
        |found| *found == expected,
        format!("`runner_arch` is {expected:?} on {}", architecture.value),
    )?;
    Ok((architecture.value.to_owned(), found.to_owned()))
}

fn cpus(table: &Layers<'_>) -> Result<u32, CatalogueError> {
    let cpus = table.required("cpus", table.number("cpus")?)?.check(
        |cpus| (1..=u64::from(MACHINE_CPUS)).contains(cpus),
        format!("`cpus` is from 1 to {MACHINE_CPUS}"),
    )?;
    Ok(u32::try_from(cpus).expect("it was compared with a smaller number"))
}

fn check_privilege(table: &Layers<'_>, entry: &Entry) -> Result<(), CatalogueError> {
    match (entry.user.as_str(), entry.privilege.is_empty()) {
        ("root", false) => Err(table.error("`user` is root, who needs no `privilege`")),
        ("root", true) | (_, false) => Ok(()),
        (user, true) => Err(table.error(format!(
            "`user` is {user}: `privilege` says how a command is run as root, such as [\"sudo\", \"-n\"]"
        ))),
    }
}

fn required_text(table: &Layers<'_>, key: &'static str) -> Result<String, CatalogueError> {
    plain(table.required(key, table.text(key)?)?).map(str::to_owned)
}

/// A text of one line that says something.
fn plain<'a>(text: Placed<'a, &'a str>) -> Result<&'a str, CatalogueError> {
    text.check(
        |text| {
            !text.trim().is_empty()
                && text.chars().count() <= TEXT_CHARACTERS
                && !text.chars().any(char::is_control)
        },
        format!(
            "a text of one line is expected, not empty, of at most {TEXT_CHARACTERS} characters"
        ),
    )
}

/// The name of one of QEMU's machines or devices. A comma would begin an option of QEMU's.
fn model(table: &Layers<'_>, key: &'static str) -> Result<String, CatalogueError> {
    table
        .required(key, table.text(key)?)?
        .check(
            |name| is_label(name),
            format!("`{key}` is the name of a model alone: letters, digits, `.`, `-`, `_`"),
        )
        .map(str::to_owned)
}

fn user(table: &Layers<'_>, key: &'static str) -> Result<Option<String>, CatalogueError> {
    let is_user = |name: &&str| {
        name.len() <= 32
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c))
    };
    let name = table.text(key)?;
    Ok(name
        .map(|name| name.check(is_user, format!("`{key}` is the name of a user, such as `root`")))
        .transpose()?
        .map(str::to_owned))
}

fn directory(table: &Layers<'_>, key: &'static str) -> Result<String, CatalogueError> {
    table
        .required(key, table.text(key)?)?
        .check(
            |path| is_path(path) && path.len() > 1 && !path.ends_with('/'),
            format!("`{key}` is an absolute path of letters, digits, `.`, `-`, `_`, without a `/` at its end"),
        )
        .map(str::to_owned)
}

fn size(
    table: &Layers<'_>,
    key: &'static str,
    range: &std::ops::RangeInclusive<u64>,
) -> Result<ByteSize, CatalogueError> {
    let text = table.required(key, table.text(key)?)?;
    let size: ByteSize = text.parse()?;
    let (least, most) = (ByteSize(*range.start()), ByteSize(*range.end()));
    text.check(
        |_| range.contains(&size.0) && size.0.is_multiple_of(MIB),
        format!("`{key}` is a whole number of MiB from {least} to {most}"),
    )?;
    Ok(size)
}

fn boot_ceiling(table: &Layers<'_>) -> Result<Duration, CatalogueError> {
    time("boot_ceiling", table.required("boot_ceiling", table.text("boot_ceiling")?)?)
}

fn time(key: &str, text: Placed<'_, &str>) -> Result<Duration, CatalogueError> {
    let time: humantime::Duration = text
        .value
        .parse()
        .map_err(|_| text.error(format!("`{key}` is a time, such as `90s` or `5m`")))?;
    text.check(
        |_| (Duration::from_secs(1)..=LONGEST).contains(&*time),
        format!("`{key}` is from 1s to {}", humantime::format_duration(LONGEST)),
    )?;
    Ok(*time)
}

fn check_url(url: &Placed<'_, &str>) -> Result<String, CatalogueError> {
    let parsed: reqwest::Url = url.parse()?;
    if !matches!(parsed.scheme(), "https" | "http") {
        return Err(url.error("`url` is an https or http address"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(url.error("`url` holds no user and no password"));
    }
    Ok(url.value.to_owned())
}

/// Labels come from workflow files and name files: nothing that a shell or a path would read.
fn is_label(text: &str) -> bool {
    text.len() <= LABEL_CHARACTERS
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
}

fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= TEXT_CHARACTERS
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/.-_".contains(c))
        && text.split('/').all(|part| part != "..")
}
