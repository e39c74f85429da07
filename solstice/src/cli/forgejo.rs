//! The arguments of `solstice forgejo` and `solstice forgejo-runner`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use forgejo_runner::identity::rest::Scope;

use crate::settings;

const REGISTER_EXAMPLES: &str = "\
Examples:
  solstice forgejo register --url https://codeberg.org      asks for the registration token
  solstice forgejo register --url URL --token-file F        one in a file of mode 0600; - is standard input
  solstice forgejo register --url URL --uuid U --runner-token-file F     made on the web page
  solstice forgejo register --url URL --secret-file F       a secret that the administrator has too
  solstice forgejo register --url URL --api-token-file F --scope org/me  made by the REST interface

The identity is kept in the state directory, for the user of the service alone; run the command as
that user. `solstice serve` is a runner of every connection that is kept or in solstice.toml.
docs/forgejo.md has the steps from here to the first green run.";

pub(super) const RUNNER_HELP: &str = "\
`solstice serve` has the runners inside. This is for installations whose runners are not on the hosts
of their machines: it needs `queue` and `seal_keys`, as every host of the installation has them.";

/// What to do with runners of instances.
#[derive(Debug, Subcommand)]
pub enum ForgejoCommand {
    /// Make a runner of an instance, or keep one that was made there.
    #[command(after_help = REGISTER_EXAMPLES)]
    Register(Box<RegisterArgs>),
    /// Show every connection, and whether its instance answers and accepts it.
    Status {
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Forget a runner, and with a token of the API delete it on its instance too.
    Unregister(UnregisterArgs),
}

/// Options of `solstice forgejo register`.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// The instance's address [default: by the settings of the connection].
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// The connection's name in settings and messages [default: by the instance's].
    #[arg(long, value_name = "CONN", value_parser = connection)]
    pub connection: Option<String>,

    /// The runner's name for people [default: the host's].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// What it offers, such as debian-12 or big:vm://debian-12?cpus=8&memory=16G; may be given
    /// several times [default: by the settings, else every image].
    #[arg(long = "label", value_name = "LABEL")]
    pub labels: Vec<String>,

    /// Replace the identity that is kept under this name.
    #[arg(long)]
    pub replace: bool,

    /// A file with the registration token; - is standard input.
    #[arg(long, value_name = "F", group = "way", help_heading = "By a registration token")]
    #[arg(value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,

    /// The registration token itself, which every user of this host can read meanwhile [default:
    /// SOLSTICE_FORGEJO_TOKEN in the environment, else asked without echo].
    #[arg(long, value_name = "T", group = "way", help_heading = "By a registration token")]
    pub token: Option<String>,

    /// The runner's UUID.
    #[arg(long, value_name = "U", group = "way", requires = "runner_token_file")]
    #[arg(help_heading = "Made on the web page (Forgejo 15 or later)")]
    pub uuid: Option<String>,

    /// A file with the runner's token; - is standard input.
    #[arg(long, value_name = "F", requires = "uuid", value_hint = ValueHint::FilePath)]
    #[arg(help_heading = "Made on the web page (Forgejo 15 or later)")]
    pub runner_token_file: Option<PathBuf>,

    /// A file with 40 hexadecimal digits; - is standard input.
    #[arg(long, value_name = "F", group = "way", value_hint = ValueHint::FilePath)]
    #[arg(help_heading = "By a secret that the administrator has too")]
    pub secret_file: Option<PathBuf>,

    /// A file with a user's token of the API; - is standard input.
    #[arg(long, value_name = "F", group = "way", requires = "scope")]
    #[arg(help_heading = "By the REST interface (Forgejo 15 or later)")]
    #[arg(value_hint = ValueHint::FilePath)]
    pub api_token_file: Option<PathBuf>,

    /// For which repositories: admin, org/NAME, user or OWNER/REPOSITORY.
    #[arg(long, value_name = "SCOPE", requires = "api_token_file")]
    #[arg(help_heading = "By the REST interface (Forgejo 15 or later)")]
    pub scope: Option<Scope>,

    /// A PEM file of certificates that are believed, too [default: by the settings].
    #[arg(long, value_name = "F", conflicts_with = "insecure", value_hint = ValueHint::FilePath)]
    #[arg(help_heading = "TLS")]
    pub ca_file: Option<PathBuf>,

    /// Believe any certificate.
    #[arg(long, help_heading = "TLS")]
    pub insecure: bool,
}

/// Options of `solstice forgejo unregister`.
#[derive(Debug, Args)]
pub struct UnregisterArgs {
    /// The connection.
    #[arg(value_name = "CONN")]
    pub connection: String,

    /// A file with a user's token of the API, to delete the runner on the instance; - is standard
    /// input.
    #[arg(long, value_name = "F", value_hint = ValueHint::FilePath)]
    pub api_token_file: Option<PathBuf>,

    /// Where the runner is: admin, org/NAME, user or OWNER/REPOSITORY [default: where it was made].
    #[arg(long, value_name = "SCOPE", requires = "api_token_file")]
    pub scope: Option<Scope>,
}

/// Options of `solstice forgejo-runner`.
#[derive(Debug, Args)]
pub struct ForgejoRunnerArgs {
    /// Take one job, report it and end; the exit code is 2 if there was none.
    #[arg(long)]
    pub one_job: bool,

    /// Take the job attempt with this handle (Forgejo 15 or later).
    #[arg(long, value_name = "H", requires = "one_job")]
    pub handle: Option<String>,

    /// Wait until there is a job; a signal ends that, and cancels the job where there is one.
    #[arg(long, requires = "one_job")]
    pub wait: bool,

    /// Of this connection [default: the only one].
    #[arg(long, value_name = "CONN", requires = "one_job")]
    pub connection: Option<String>,
}

fn connection(text: &str) -> Result<String, String> {
    if settings::is_connection_name(text) {
        Ok(text.to_owned())
    } else {
        Err(settings::name_rule())
    }
}
