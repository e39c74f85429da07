//! The borders between the crates, as docs/architecture.md states them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn cargo(arguments: &[&str]) -> String {
    let done = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Which crates of the workspace each crate of the workspace links.
fn links() -> BTreeMap<String, BTreeSet<String>> {
    let metadata: Value = serde_json::from_str(&cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
    ]))
    .unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let members: BTreeSet<String> = packages.iter().map(|package| text(&package["name"])).collect();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
            let names = normal.map(|dependency| text(&dependency["name"]));
            (text(&package["name"]), names.filter(|name| members.contains(name)).collect())
        })
        .collect()
}

/// Every crate that a program links or builds with, this one included.
fn tree(package: &str, edges: &str) -> BTreeSet<String> {
    let tree = cargo(&["tree", "--offline", "-p", package, "-e", edges, "--prefix", "none"]);
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// Every file at or below these places.
fn files(mut places: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    while let Some(place) = places.pop() {
        if place.is_dir() {
            places.extend(std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files.push(place);
        }
    }
    files
}

/// A source file without its comments.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn each_crate_links_only_what_it_may_know() {
    let allowed: &[(&str, &[&str])] = &[
        ("common", &[]),
        ("workflow-runner", &["common"]),
        ("vm-manager", &["common"]),
        ("queue", &["common"]),
        ("orchestrator", &["common", "queue", "vm-manager"]),
        ("forgejo-proto", &[]),
        ("forgejo-runner", &["common", "forgejo-proto", "queue", "workflow-runner"]),
        (
            "solstice",
            &["common", "forgejo-runner", "orchestrator", "queue", "vm-manager", "workflow-runner"],
        ),
        ("simulators", &["common", "forgejo-proto"]),
    ];
    let links = links();
    assert_eq!(
        links.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        allowed.iter().map(|(name, _)| *name).collect(),
        "every crate has a row here"
    );
    for (name, allowed) in allowed {
        for linked in &links[*name] {
            assert!(allowed.contains(&linked.as_str()), "{name} must not know {linked}");
        }
    }
}

#[test]
fn the_guest_program_has_no_c_and_no_tls() {
    let forbidden =
        ["cc", "cmake", "bindgen", "rustls", "ring", "aws-lc-rs", "openssl", "native-tls"];
    for name in tree("workflow-runner", "normal,build") {
        assert!(!forbidden.contains(&name.as_str()), "the guest program depends on {name}");
        assert!(
            !name.ends_with("-sys") || name == "linux-raw-sys",
            "the guest program links the C library behind {name}"
        );
    }
}

#[test]
fn only_vm_manager_speaks_ssh() {
    for package in ["common", "workflow-runner"] {
        let tree = tree(package, "normal");
        assert!(!tree.contains("russh"), "{package} depends on russh");
    }
    for package in ["orchestrator", "solstice"] {
        let direct = cargo(&["tree", "--offline", "-p", package, "-e", "normal", "--depth", "1"]);
        assert!(!direct.contains("russh"), "{package} uses russh itself");
    }
}

#[test]
fn only_vm_manager_starts_qemu_and_speaks_to_it() {
    let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).canonicalize().unwrap();
    let links = links();
    let others = links.keys().filter(|name| !["vm-manager", "simulators"].contains(&name.as_str()));
    let sources = files(others.map(|name| workspace.join(name).join("src")).collect());
    let mut naming = BTreeSet::new();
    let mut read = 0;
    for path in sources {
        let name = path.strip_prefix(&workspace).unwrap().to_str().unwrap();
        if name.ends_with("/tests.rs") || name.contains("/tests/") {
            continue;
        }
        let code = code(&path);
        for word in ["-qmp", "qmp_capabilities"] {
            assert!(!code.contains(word), "{name} has {word}");
        }
        if code.contains("qemu-system") {
            naming.insert(name.to_owned());
        }
        read += 1;
    }
    assert!(read > 100, "{read} files");
    // In words only: the example of the setting, what the doctor says to install, and the default
    // that vm-manager is handed.
    let words = ["src/config.rs", "src/doctor/checks.rs", "src/host.rs"];
    assert_eq!(naming, words.map(|path| format!("solstice/{path}")).into());
}

/// docs/development.md says what each crate of the dependency table is here for, and no other.
#[test]
fn every_dependency_has_a_reason() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let table = manifest["workspace"]["dependencies"].as_table().unwrap();
    let used: BTreeSet<&str> = table
        .iter()
        .filter(|(_, source)| source.get("path").is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    let page = read("docs/development.md");
    let (_, rows) = page.split_once("| crate | what for |\n| --- | --- |\n").unwrap();
    let names = rows.lines().map_while(|row| row.strip_prefix("| ")?.split_once(" |"));
    let explained: BTreeSet<&str> =
        names.flat_map(|(names, _)| names.split(", ")).map(|name| name.trim_matches('`')).collect();
    assert_eq!(explained, used);
}

/// `solstice run` gets its machines from the orchestrator, like everybody.
#[test]
fn run_and_the_client_of_the_service_know_no_machine() {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let places = ["run.rs", "run", "client.rs", "client", "render.rs", "render"];
    let sources = files(places.map(|name| source.join(name)).into());
    assert!(sources.len() > 10, "{sources:?}");
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("vm_manager"), "{}", path.display());
    }
}
