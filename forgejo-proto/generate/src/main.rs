//! Writes `forgejo-proto/src/generated` from `forgejo-proto/proto`: see `scripts/protocol.sh`.

use std::error::Error;
use std::path::Path;

use sha2::{Digest, Sha256};

/// The files, relative to the folder.
const FILES: [&str; 2] = ["ping/v1/ping.proto", "runner/v1/runner.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no parent")?;
    let descriptors = protox::Compiler::new([crate_directory.join("proto")])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(FILES)?
        .file_descriptor_set();
    let target = tempfile()?;
    std::fs::write(&target, prost::Message::encode_to_vec(&descriptors))?;
    connectrpc_build::Config::new()
        .descriptor_set(&target)
        .files(&FILES)
        .out_dir(crate_directory.join("src/generated"))
        .include_file("mod.rs")
        .compile()?;
    std::fs::remove_file(&target)?;
    for entry in std::fs::read_dir(crate_directory.join("src/generated"))? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(&path, with_own_name(&text))?;
    }
    std::fs::write(crate_directory.join("src/generated/sources"), sources(crate_directory)?)?;
    Ok(())
}

/// The extension trait of a service has a method `register`, and so has the service of runners.
fn with_own_name(text: &str) -> String {
    let receiver = "(\n        self: ::std::sync::Arc<Self>,";
    text.replace(&format!("fn register{receiver}"), &format!("fn add_to{receiver}"))
        .replace("ServiceExt>::register(", "ServiceExt>::add_to(")
}

/// The sums of the files, by which a test sees that what is generated is theirs.
fn sources(crate_directory: &Path) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    for file in FILES {
        let bytes = std::fs::read(crate_directory.join("proto").join(file))?;
        let sum = Sha256::digest(&bytes);
        let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{sum}  {file}\n"));
    }
    Ok(text)
}

/// A file of this process only.
fn tempfile() -> Result<std::path::PathBuf, Box<dyn Error>> {
    Ok(std::env::temp_dir().join(format!("descriptors-{}", std::process::id())))
}
