//! `solstice forgejo register`: an identity of an instance, and its place in the state.

use common::request::Secret;
use common::time::Timestamp;
use forgejo_runner::client::{self, Registration, RpcErrorKind};
use forgejo_runner::identity::rest::{Rest, Scope};
use forgejo_runner::identity::secret;
use forgejo_runner::identity::stored::{Identities, Stored};
use forgejo_runner::identity::{self, IdentityError};
use forgejo_runner::{Connection, Label, Trust};
use reqwest::Url;

use super::connections::{FETCH_INTERVAL, FETCH_TIMEOUT, all_labels, check_label, identities};
use super::{ask, failed, token};
use crate::cli::RegisterArgs;
use crate::client::Client;
use crate::exit::{CommandError, Exit};
use crate::image::catalogue;
use crate::message;
use crate::settings::{ConnectionKeys, Settings, is_connection_name, parse_labels};
use crate::table;

/// Where a registration token may be.
const TOKEN_VARIABLE: &str = "SOLSTICE_FORGEJO_TOKEN";
/// The longest name of a runner that servers take.
const NAME_BYTES: usize = 255;
/// Labels that the last sentence names.
const SHOWN_LABELS: usize = 5;

/// How the identity is got.
enum Way {
    /// By a registration token.
    Token(Secret),
    /// It was made on the web page.
    Made { uuid: String, token: Secret },
    /// By a secret that both sides have.
    Shared { uuid: String, secret: Secret, file: String },
    /// By the REST interface.
    Rest { token: Secret, scope: Scope },
}

/// Registers a runner and keeps its identity.
///
/// # Errors
/// The arguments are wrong, the instance refuses or does not answer, or the identity cannot be kept.
pub(super) async fn register(
    settings: &Settings,
    arguments: RegisterArgs,
) -> Result<Exit, CommandError> {
    let plan = Plan::of(settings, &arguments)?;
    let way = way(&arguments)?;
    // The instance tells a token once, so it must be clear before that the token can be kept.
    plan.identities.prepare()?;
    client::ping(&plan.url, &plan.trust).await.map_err(|error| {
        failed(&format!("{} does not answer as an instance with Actions", shown(&plan.url)), &error)
            .hint("check the URL, and that Actions are enabled there: [actions] ENABLED = true")
    })?;
    let stored = plan.identity(&way).await?;
    let connection = plan.connection(&stored);
    // What is lost if it is not kept is kept first. Of what was made elsewhere, only what is right.
    if !matches!(way, Way::Made { .. }) {
        plan.identities.save(&plan.name, &stored)?;
    }
    let accepted = match (&way, plan.declare(&connection).await) {
        (_, Ok(())) => true,
        // Either side may be the first to know a secret.
        (Way::Shared { .. }, Err(_)) => false,
        (_, Err(error)) => return Err(error),
    };
    plan.identities.save(&plan.name, &stored)?;
    plan.tell(settings, &way, &stored, accepted).await
}

/// What is to be done, as far as it is known before anybody is asked.
struct Plan {
    /// The connection.
    name: String,
    url: Url,
    trust: Trust,
    insecure: bool,
    runner: String,
    labels: Vec<Label>,
    /// Those that were asked for here, and not by the settings.
    asked: Vec<String>,
    identities: Identities,
}

impl Plan {
    fn of(settings: &Settings, arguments: &RegisterArgs) -> Result<Self, CommandError> {
        let connections = &settings.forgejo.connections;
        let given = arguments.connection.as_ref().and_then(|name| connections.get(name));
        let url = match (&arguments.url, given.and_then(|keys| keys.url.clone())) {
            (Some(text), _) => identity::address(text)
                .map_err(|problem| CommandError::usage(format!("--url: {problem}")))?,
            (None, Some(url)) => url,
            (None, None) => {
                return Err(CommandError::usage("which instance?")
                    .hint("name it: --url https://codeberg.org"));
            }
        };
        let name = arguments.connection.clone().unwrap_or_else(|| name_of(&url));
        let nothing = ConnectionKeys::default();
        let keys = connections.get(&name).unwrap_or(&nothing);
        let identities = identities(settings);
        check_free(&name, keys, &identities, arguments.replace)?;
        let catalogue = catalogue(settings)?;
        let labels = match (arguments.labels.is_empty(), &keys.labels) {
            (false, _) => parse_labels(&arguments.labels)
                .map_err(|problem| CommandError::usage(format!("--label: {problem}")))?,
            (true, Some(labels)) => labels.clone(),
            (true, None) => all_labels(settings, &catalogue),
        };
        for label in &labels {
            check_label(&catalogue, label).map_err(CommandError::usage)?;
        }
        let runner = arguments.name.clone();
        let runner = runner.unwrap_or_else(|| settings.service.host_name.clone());
        if runner.is_empty() || runner.len() > NAME_BYTES || runner.contains(char::is_control) {
            return Err(CommandError::usage(format!("--name: write 1 to {NAME_BYTES} bytes")));
        }
        let file = arguments.ca_file.as_ref().map(std::path::absolute).transpose();
        let file = file.map_err(|error| CommandError::usage(format!("--ca-file: {error}")))?;
        let insecure = arguments.insecure || (file.is_none() && keys.insecure == Some(true));
        let trust = match file.or_else(|| keys.ca_file.clone()) {
            _ if insecure => Trust::Any,
            Some(path) => Trust::Also(path),
            None => Trust::Host,
        };
        if insecure && url.scheme() == "http" {
            return Err(CommandError::usage("--insecure is for an URL with https"));
        }
        let asked = arguments.labels.clone();
        Ok(Self { name, url, trust, insecure, runner, labels, asked, identities })
    }

    /// Gets the identity.
    async fn identity(&self, way: &Way) -> Result<Stored, CommandError> {
        let (uuid, token, id, scope) = match way {
            Way::Made { uuid, token } => (uuid.clone(), token.clone(), None, None),
            Way::Shared { uuid, secret, .. } => (uuid.clone(), secret.clone(), None, None),
            Way::Rest { token, scope } => {
                let rest = Rest::new(&self.url, &self.trust, token.clone())?;
                let made = rest.create(scope, &self.runner).await?;
                (checked(&made.uuid)?, made.token, Some(made.id), Some(scope.to_string()))
            }
            Way::Token(token) => {
                let registration = Registration {
                    token: token.clone(),
                    name: self.runner.clone(),
                    labels: self.names(),
                    ephemeral: false,
                };
                let made = client::register(&self.url, &self.trust, &registration).await;
                let made = made.map_err(|error| self.not_registered(&error))?;
                (checked(&made.uuid)?, made.token, Some(made.id), None)
            }
        };
        Ok(Stored {
            url: shown(&self.url),
            uuid,
            token,
            name: self.runner.clone(),
            id,
            registered: Timestamp::now(),
            labels: self.asked.clone(),
            scope,
            ca_file: match &self.trust {
                Trust::Also(path) => Some(path.clone()),
                _ => None,
            },
            insecure: self.insecure,
        })
    }

    fn not_registered(&self, error: &client::RpcError) -> CommandError {
        let pages = [Scope::Admin, Scope::User].map(|scope| scope.page(&self.url));
        let hint = match error.kind {
            RpcErrorKind::Refused | RpcErrorKind::Unauthenticated => format!(
                "take a registration token from {} or {}, or from the settings of an organization \
                 or a repository (Actions, Runners)",
                pages[0], pages[1]
            ),
            _ => "try again; the log of the server says more".to_owned(),
        };
        failed("the instance does not register the runner", error).hint(hint)
    }

    /// Declares the labels, which shows whether the identity is accepted.
    async fn declare(&self, connection: &Connection) -> Result<(), CommandError> {
        match client::declare(connection, &self.names()).await {
            Ok(_) => Ok(()),
            // Servers that know no Declare took the labels at registration.
            Err(error) if error.kind == RpcErrorKind::Unimplemented => Ok(()),
            Err(error) => {
                Err(failed("the instance does not accept the runner", &error).hint(format!(
                    "compare the UUID and the token with the runner's page on the instance; then \
                     see `solstice forgejo status` for {}",
                    self.name
                )))
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.labels.iter().map(|label| label.name.clone()).collect()
    }

    fn connection(&self, stored: &Stored) -> Connection {
        Connection {
            name: self.name.clone(),
            url: self.url.clone(),
            uuid: stored.uuid.clone(),
            token: stored.token.clone(),
            labels: self.labels.clone(),
            capacity: 1,
            fetch_interval: FETCH_INTERVAL,
            fetch_timeout: FETCH_TIMEOUT,
            trust: self.trust.clone(),
        }
    }

    /// Says what was done and what comes next.
    async fn tell(
        &self,
        settings: &Settings,
        way: &Way,
        stored: &Stored,
        accepted: bool,
    ) -> Result<Exit, CommandError> {
        let Stored { name, url, uuid, .. } = stored;
        let mut lines = vec![format!("{} is the runner {name:?} of {url} ({uuid})", self.name)];
        if let (Way::Shared { file, .. }, false) = (way, accepted) {
            let name = quoted(name);
            lines.push(format!(
                "The instance does not know it yet: there its administrator registers the secret\n  forgejo forgejo-cli \
                 actions register --name {name} --secret-file {file}\nwith --scope OWNER or --scope \
                 OWNER/REPOSITORY where it is not for all repositories."
            ));
        }
        let labels = self.names();
        lines.push(format!("Workflows use it by\n  runs-on: {}", labels[0]));
        if labels.len() > 1 {
            let others = &labels[1..labels.len().min(SHOWN_LABELS)];
            let more = labels.len() - 1 - others.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines.push(format!("or by {}{more}.", others.join(", ")));
        }
        let running = match Client::open(&settings.socket_path()) {
            Ok(client) => client.health().await.is_ok(),
            Err(_) => false,
        };
        lines.push(if running {
            "Start the service of this host again to take jobs.".to_owned()
        } else {
            "Start `solstice serve` to take jobs.".to_owned()
        });
        if self.url.scheme() == "http" {
            message::warning("the token goes over http, where others on the way can read it");
        }
        table::print_text(&(lines.join("\n") + "\n"))
    }
}

/// A word of a shell's command line.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn shown(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// An id that a server gave.
fn checked(uuid: &str) -> Result<String, CommandError> {
    identity::uuid(uuid).map_err(|problem| {
        CommandError::infrastructure(format!(
            "the instance made a runner whose id is none: {problem}"
        ))
    })
}

/// A connection's name by that of the instance.
fn name_of(url: &Url) -> String {
    let port = url.port().map_or_else(String::new, |port| format!("-{port}"));
    let name = url.host_str().unwrap_or_default().to_ascii_lowercase() + &port;
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = name.chars().map(plain).collect();
    let name: String = name.trim_matches('-').chars().take(30).collect();
    if is_connection_name(&name) { name } else { "forgejo".to_owned() }
}

/// Whether a connection may get an identity now.
fn check_free(
    name: &str,
    keys: &ConnectionKeys,
    identities: &Identities,
    replace: bool,
) -> Result<(), CommandError> {
    for (key, given) in [
        ("uuid", keys.uuid.is_some()),
        ("runner_file", keys.runner_file.is_some()),
        ("runner_config", keys.runner_config.is_some()),
    ] {
        if given {
            let place = keys.origins.get(key).unwrap_or(&keys.place);
            let text = format!("{place}: forgejo.{name} has an identity by `{key}` already");
            return Err(CommandError::usage(text)
                .hint("choose another name with --connection, or remove that key"));
        }
    }
    let taken = match identities.load(name) {
        // A damaged one is no reason not to replace it.
        Err(_) if replace => return Ok(()),
        loaded => loaded?,
    };
    match taken {
        Some(stored) if !replace => {
            let text = format!("{name} is a runner of {} already ({})", stored.url, stored.uuid);
            Err(CommandError::usage(text).hint(
                "choose another name with --connection, or forget that runner with --replace",
            ))
        }
        _ => Ok(()),
    }
}

/// The way of the arguments; without one, a registration token from the environment or the terminal.
fn way(arguments: &RegisterArgs) -> Result<Way, CommandError> {
    if let (Some(uuid), Some(file)) = (&arguments.uuid, &arguments.runner_token_file) {
        let uuid = identity::uuid(uuid);
        let uuid = uuid.map_err(|problem| CommandError::usage(format!("--uuid: {problem}")))?;
        return Ok(Way::Made { uuid, token: token(file)? });
    }
    if let Some(file) = &arguments.secret_file {
        let secret = token(file)?;
        let file = file.display().to_string();
        let uuid = secret::uuid_of(secret.expose())
            .map_err(|problem| CommandError::usage(format!("{file}: {problem}")))?;
        return Ok(Way::Shared { uuid, secret, file });
    }
    if let (Some(file), Some(scope)) = (&arguments.api_token_file, &arguments.scope) {
        return Ok(Way::Rest { token: token(file)?, scope: scope.clone() });
    }
    if let Some(file) = &arguments.token_file {
        return Ok(Way::Token(token(file)?));
    }
    let given = |what: &str, text: &str| {
        let secret = identity::one_line(text);
        secret
            .map_err(|problem| CommandError::from(IdentityError::new(format!("{what}: {problem}"))))
    };
    if let Some(text) = &arguments.token {
        message::warning("every user of this host can read the token on a command line");
        return given("--token", text).map(Way::Token);
    }
    if let Some(text) = std::env::var(TOKEN_VARIABLE).ok().filter(|text| !text.is_empty()) {
        return given(TOKEN_VARIABLE, &text).map(Way::Token);
    }
    ask("registration token")?.map(Way::Token).ok_or_else(|| {
        CommandError::usage("there is no registration token, and no terminal to ask at").hint(
            format!("give --token-file F, or set {TOKEN_VARIABLE}; --help shows the other ways"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_named_after_its_instance() {
        for (url, name) in [
            ("https://codeberg.org", "codeberg-org"),
            ("http://127.0.0.1:3000/git", "127-0-0-1-3000"),
            ("https://[::1]:3000", "1--3000"),
            (
                "https://a.very.long.name.of.an.instance.example.org",
                "a-very-long-name-of-an-instanc",
            ),
        ] {
            let url = identity::address(url).unwrap();
            assert_eq!(name_of(&url), name);
            assert!(is_connection_name(name));
        }
    }

    #[test]
    fn names_are_words_of_a_shell() {
        assert_eq!(quoted("build-1.example"), "build-1.example");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
