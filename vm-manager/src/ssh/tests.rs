//! The connection against a real OpenSSH server, and against a server that misbehaves.

mod bytes;
mod commands;
mod files;
mod login;
mod misbehaving;
mod scripted;
mod sshd;
mod terminals;

use std::time::Duration;

/// The longest that anything in these tests may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Callers work with these from several tasks.
#[expect(dead_code, reason = "it is there to be compiled")]
fn everything_moves_between_tasks(guest: &super::Guest) {
    fn sync<T: Send + Sync>(_: &T) {}
    fn send<T: Send>(_: T) {}
    sync(guest);
    send(guest.upload(tokio::io::empty(), 0, "", 0, PATIENCE));
    send(guest.download("", tokio::io::sink(), 0, PATIENCE));
    send(guest.run("", None, PATIENCE));
    send(guest.terminal(None, "", (0, 0)));
    send(async {
        let mut session = guest.exec("").await.expect("compiled only");
        drop(session.next().await);
        drop(session.into_split().0.finish().await);
    });
}
