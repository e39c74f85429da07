//! Templates: guests that were booted once and frozen, of which machines are copy-on-write clones.
//!
//! ```text
//! templates/
//!   ready/<key>/      memory, device, disk.qcow2, template.json; `used` was touched by the last clone
//!   locks/<key>.lock  held by whoever makes that template
//!   partial/<id>/     a template in the making; partial/<id>.lock is held by its maker
//!   failed/<key>.json why it could not be made, a short while ago
//! ```
//!
//! A template becomes one in a single step, the renaming of its directory into `ready`. Its key is a
//! digest of everything that a clone must have in common with it: image, shape, QEMU and its command
//! line, guest program, preparation. So a change of any of them is another template, and the old one is removed
//! when it is the least recently used. Running clones go on without it: they have its files open.
//!
//! A template holds no job's secret. The private key by which its maker logged in is never written
//! down, and no clone lets it in; the host key is replaced in every clone before anybody connects.

mod dirtied;
mod error;
mod facts;
pub(crate) mod files;
mod key;
mod making;
mod name;
mod store;

pub use error::TemplateError;
pub use facts::Facts;
pub use key::{KeyParts, TemplateKey};
pub use making::Making;
pub use store::{StoreSettings, StoredTemplate, Template, TemplateStore};
