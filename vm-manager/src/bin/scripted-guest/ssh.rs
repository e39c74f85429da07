//! The guest's SSH server.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::Algorithm;
use russh::server::{self, Auth, ChannelOpenHandle, Config, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Preferred, SshId};
use tokio::net::TcpStream;

use crate::command;
use crate::machine::Machine;
use crate::sftp::Sftp;

/// How long accepting connections rests after it failed.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// Serves the forwarded port for the life of the guest. With `refuse`, nobody is let in.
pub(crate) async fn serve(machine: Arc<Machine>, forward: TcpListener, refuse: bool) {
    let listener = match tokio::net::TcpListener::from_std(forward) {
        Ok(listener) => listener,
        Err(error) => return machine.panic(&format!("no SSH server: {error}")),
    };
    let config = Arc::new(config(&machine));
    loop {
        machine.network.opened().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let login =
                    Login { machine: Arc::clone(&machine), refuse, channels: HashMap::new() };
                tokio::spawn(connection(Arc::clone(&config), stream, login));
            }
            Err(_) => tokio::time::sleep(ACCEPT_REST).await,
        }
    }
}

async fn connection(config: Arc<Config>, stream: TcpStream, login: Login) {
    drop(stream.set_nodelay(true));
    let cable = login.machine.network.connect(stream);
    // How a connection ends is the host's affair.
    if let Ok(session) = server::run_stream(config, cable, login).await {
        drop(session.await);
    }
}

fn config(machine: &Machine) -> Config {
    Config {
        server_id: SshId::Standard("SSH-2.0-scripted_guest".into()),
        methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
        auth_rejection_time: Duration::ZERO,
        keys: vec![machine.seed.host_key.clone()],
        preferred: Preferred { key: vec![Algorithm::Ed25519].into(), ..Preferred::default() },
        inactivity_timeout: None,
        ..Config::default()
    }
}

/// One connection.
struct Login {
    machine: Arc<Machine>,
    refuse: bool,
    /// Channels on which nothing was started yet.
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl server::Handler for Login {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        let seed = &self.machine.seed;
        let known = key.public_key.key_data() == seed.login_key.key_data();
        let allowed = user == "root" || seed.default_user;
        Ok(if known && allowed && !self.refuse { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels.insert(channel.id(), channel);
        // Dropped without this, the channel would be refused.
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        drop(self.channels.remove(&id));
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(channel) = self.channels.remove(&id) else { return session.channel_failure(id) };
        session.channel_success(id)?;
        let line = String::from_utf8_lossy(line).into_owned();
        tokio::spawn(command::run(Arc::clone(&self.machine), channel, line));
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.channels.remove(&id) {
            Some(channel) if name == "sftp" => {
                session.channel_success(id)?;
                let sftp = Sftp::new(Arc::clone(&self.machine));
                russh_sftp::server::run(channel.into_stream(), sftp).await;
                Ok(())
            }
            _ => session.channel_failure(id),
        }
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        // A terminal is for people.
        session.channel_failure(id)
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(id)
    }
}
