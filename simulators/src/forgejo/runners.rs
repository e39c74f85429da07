//! Identities of runners (forgejo-runner-protocol 3).

use std::collections::HashSet;

use connectrpc::ConnectError;
use forgejo_proto::runner::{RegisterRequest, Runner as RunnerMessage};

use super::state::{Runner, Scope, State, hexadecimal};

/// What a runner needs to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `x-runner-uuid`.
    pub uuid: String,
    /// `x-runner-token`.
    pub token: String,
}

impl State {
    /// Adds a runner that has declared nothing.
    pub(super) fn add_runner(&mut self, name: &str, scope: Scope, ephemeral: bool) -> i64 {
        let uuid = uuid::Uuid::new_v4().to_string();
        self.add_known_runner(name, scope, ephemeral, Identity { uuid, token: hexadecimal() })
    }

    fn add_known_runner(
        &mut self,
        name: &str,
        scope: Scope,
        ephemeral: bool,
        identity: Identity,
    ) -> i64 {
        let id = self.new_id();
        let runner = Runner {
            id,
            uuid: identity.uuid,
            token: identity.token,
            name: name.to_owned(),
            version: String::new(),
            scope,
            labels: Vec::new(),
            ephemeral: ephemeral && self.profile.has_ephemeral(),
            last_online: None,
            last_active: None,
            last_fetch: None,
            answered_keys: HashSet::new(),
        };
        self.runners.insert(id, runner);
        id
    }

    /// Answers `Register`.
    pub(super) fn register(
        &mut self,
        request: &RegisterRequest,
    ) -> Result<RunnerMessage, ConnectError> {
        if request.token.is_empty() || request.name.is_empty() {
            return Err(ConnectError::invalid_argument("missing runner token, name"));
        }
        let scope = self.registration_tokens.get(&request.token).cloned();
        let scope = scope
            .ok_or_else(|| ConnectError::invalid_argument("runner registration token not found"))?;
        let id = self.add_runner(&request.name, scope, request.ephemeral);
        let ephemeral = self.profile.has_ephemeral();
        let runner = self.runners.get_mut(&id).expect("it was just added");
        runner.labels.clone_from(&request.labels);
        runner.version.clone_from(&request.version);
        Ok(runner.message(ephemeral))
    }

    /// What `forgejo-cli actions register --secret` does: adds the runner of a secret, or moves it
    /// (forgejo-runner-protocol 3.4).
    pub(super) fn register_secret(&mut self, secret: &str, scope: Scope) -> Identity {
        let identity = identity_of(secret);
        match self.runners.values_mut().find(|runner| runner.uuid == identity.uuid) {
            Some(runner) => {
                runner.scope = scope;
                runner.token.clone_from(&identity.token);
            }
            None => {
                self.add_known_runner("runner", scope, false, identity.clone());
            }
        }
        identity
    }
}

/// The identity of a shared secret: the first 16 characters are the bytes of the uuid.
///
/// # Panics
/// The secret is not 40 hexadecimal characters, which the server refuses.
fn identity_of(secret: &str) -> Identity {
    let valid = secret.len() == 40 && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(valid, "{secret:?} is not 40 hexadecimal characters");
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&secret.as_bytes()[..16]);
    let uuid = uuid::Uuid::from_bytes(bytes).to_string();
    Identity { uuid, token: secret.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_an_identity() {
        let secret = "00112233445566778899aabbccddeeff01234567";
        let identity = identity_of(secret);
        assert_eq!(identity.uuid, "30303131-3232-3333-3434-353536363737");
        assert_eq!(identity.token, secret);
    }
}
