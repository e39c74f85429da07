//! Whether an instance accepts an identity, without changing anything there.

use forgejo_proto::runner::UpdateLogRequest;

use crate::client::{Client, RpcError, RpcErrorKind};
use crate::settings::Connection;

/// Asks whether the identity of a connection is accepted: rows, of which there are none, for a task
/// that there is not. Whoever is known hears that (forgejo-runner-protocol 1.3), and neither labels
/// nor tasks change.
///
/// # Errors
/// The instance does not answer, or does not know the identity.
pub async fn accepted(connection: &Connection) -> Result<(), RpcError> {
    let nothing = UpdateLogRequest::default();
    match Client::new(connection)?.update_log(nothing).await {
        Ok(_) => Ok(()),
        Err(error) => match error.kind {
            RpcErrorKind::Internal | RpcErrorKind::Refused | RpcErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        },
    }
}
