//! What can be booted, and where it lies on this host.
//!
//! [`Catalogue`] is the list of images, read from `images/catalogue.toml` (which is part of the
//! binary) and a file of the operator's; [`Entry`] is one of them: all that is particular to a
//! guest is data there and nowhere code. [`ImageStore`] fetches or builds what an entry describes,
//! once per host however many processes ask, and hands out an [`Image`]: immutable files.
//!
//! This module knows neither QEMU's processes nor SSH; of QEMU's tools it calls `qemu-img`.

mod build;
mod catalogue;
mod convert;
mod digest;
mod entry;
mod error;
mod fetch;
mod first_pull;
mod lock;
mod personalise;
mod process;
mod progress;
mod reader;
mod recipe;
mod schema;
mod space;
mod store;
mod unpack;

pub use catalogue::{Catalogue, UnknownLabel};
pub use digest::{Digest, DigestAlgorithm, ParseDigestError};
pub use entry::{
    Checkout, Compression, DiskFormat, DiskModel, Entry, Hardware, Image, Preparation, SeedDevice,
    Source, SourceDigest, Templating,
};
pub use error::ImageError;
pub use first_pull::FirstPull;
pub(crate) use lock::{ImageLock, WorkDirectory, remove_stale};
pub use process::helper_path;
pub use progress::Progress;
pub use reader::CatalogueError;
pub use recipe::RECIPES;
pub use space::FreeSpace;
pub use store::{Confirm, ImageStore, StoreSettings, StoredImage};
