//! The settings file of forgejo-runner, as far as it says which runners there are
//! (forgejo-runner-protocol 9.1).

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::request::Secret;
use reqwest::Url;
use workflow_runner::yaml::{self, Node};

use super::{IdentityError, address, duration, file, one_line, uuid};

/// A larger file is something else.
const FILE_BYTES: u64 = common::limits::MIB;
/// A file with a token has one line.
const TOKEN_BYTES: u64 = 4096;
/// What forgejo-runner's own example says of `runner.timeout`.
const EXAMPLE_TIMEOUT: Duration = Duration::from_secs(3 * 3600);

/// What forgejo-runner's settings say. What it has beside this concerns containers.
#[derive(Clone, Debug, Default)]
pub struct RunnerConfig {
    /// `server.connections`, in the order of the file.
    pub connections: Vec<ConfigConnection>,
    /// `runner.file`, the place of the `.runner` file.
    pub file: Option<PathBuf>,
    /// `runner.labels`, for connections that name none.
    pub labels: Vec<String>,
    /// `runner.capacity`.
    pub capacity: Option<u32>,
    /// `runner.fetch_interval`, for connections that name none.
    pub fetch_interval: Option<Duration>,
    /// `runner.fetch_timeout`.
    pub fetch_timeout: Option<Duration>,
    /// `runner.report_interval`.
    pub report_interval: Option<Duration>,
    /// `runner.shutdown_timeout`.
    pub shutdown: Option<Duration>,
    /// `runner.insecure`.
    pub insecure: bool,
    /// Sentences about what is not taken over.
    pub warnings: Vec<String>,
}

/// One of `server.connections`.
#[derive(Clone, Debug)]
pub struct ConfigConnection {
    /// Its key.
    pub name: String,
    /// The instance.
    pub url: Url,
    /// The runner's id.
    pub uuid: String,
    /// Its token.
    pub token: Secret,
    /// Its labels, as forgejo-runner writes them.
    pub labels: Vec<String>,
    /// How long it waits between two questions.
    pub fetch_interval: Option<Duration>,
}

/// Reads the settings of forgejo-runner; `variable` is the environment, for `token_url`.
///
/// # Errors
/// The file cannot be read, is not YAML, or a value that matters here cannot be used. The error names
/// the place and shows no token.
pub fn read(
    path: &Path,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<RunnerConfig, IdentityError> {
    let shown = path.display().to_string();
    let (text, shared) = file::read(path, FILE_BYTES).map_err(|error| {
        IdentityError::new(format!("cannot read the settings of forgejo-runner {shown}: {error}"))
            .hint("name its config.yml, and let the user of this program read it")
    })?;
    parse(&text, &shown, shared, variable)
}

fn parse(
    text: &str,
    file: &str,
    shared: bool,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<RunnerConfig, IdentityError> {
    let root = document(text, file)?;
    let reader = Reader { file, variable };
    let mut config = RunnerConfig::default();
    let root = reader.mapping(Some(&root))?;
    reader.runner(&mut config, reader.mapping(find(root, "runner"))?)?;
    let server = reader.mapping(find(root, "server"))?;
    for (name, node) in reader.mapping(find(server, "connections"))? {
        let connection = reader.connection(&mut config, name, node, shared)?;
        config.connections.push(connection);
    }
    Ok(config)
}

/// The one place that reads YAML here. Lines of the file are not shown: one may be a token's.
fn document(text: &str, file: &str) -> Result<Node, IdentityError> {
    let parsed = yaml::parse(text, file).map_err(|finding| {
        let place = finding.location.map_or_else(String::new, |at| place(at.line, at.column));
        IdentityError::new(format!("{file}{place}: {}", finding.message))
            .hint("forgejo-runner reads no such file either; correct it")
    })?;
    Ok(parsed.root)
}

fn place(line: u32, column: u32) -> String {
    format!(":{line}:{column}")
}

type Pairs = [(Node, Node)];

fn find<'a>(pairs: &'a Pairs, key: &str) -> Option<&'a Node> {
    let found = pairs.iter().find(|(name, _)| name.text() == Some(key));
    found.map(|(_, value)| value).filter(|value| !value.is_null())
}

/// Reads values of one file.
struct Reader<'a> {
    file: &'a str,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    fn wrong(&self, node: &Node, problem: &str) -> IdentityError {
        let place = place(node.location.line, node.location.column);
        IdentityError::new(format!("{}{place}: {problem}", self.file))
            .hint("correct it in the settings of forgejo-runner")
    }

    fn mapping<'n>(&self, node: Option<&'n Node>) -> Result<&'n Pairs, IdentityError> {
        match node {
            None => Ok(&[]),
            Some(node) if node.is_null() => Ok(&[]),
            Some(node) => node
                .as_mapping()
                .ok_or_else(|| self.wrong(node, "here must be keys with their values")),
        }
    }

    /// The text of a key; `None` where it is absent or empty.
    fn text<'n>(&self, pairs: &'n Pairs, key: &str) -> Result<Option<&'n str>, IdentityError> {
        let Some(node) = find(pairs, key) else { return Ok(None) };
        let text = node.text();
        let text = text.ok_or_else(|| self.wrong(node, &format!("`{key}` is not a text")))?;
        Ok((!text.is_empty()).then_some(text))
    }

    fn time(
        &self,
        config: &mut RunnerConfig,
        pairs: &Pairs,
        key: &str,
    ) -> Result<Option<Duration>, IdentityError> {
        let (Some(text), Some(node)) = (self.text(pairs, key)?, find(pairs, key)) else {
            return Ok(None);
        };
        let parsed = duration::parse(text);
        let parsed = parsed.map_err(|why| self.wrong(node, &format!("`{key}`: {why}")))?;
        if parsed.is_none() {
            let file = self.file;
            config.warnings.push(format!("`{key}` of {file} is negative, and not taken over"));
        }
        Ok(parsed)
    }

    /// A length of time of which nothing means that it is not said.
    fn interval(
        &self,
        config: &mut RunnerConfig,
        pairs: &Pairs,
        key: &str,
    ) -> Result<Option<Duration>, IdentityError> {
        Ok(self.time(config, pairs, key)?.filter(|time| !time.is_zero()))
    }

    fn runner(&self, config: &mut RunnerConfig, pairs: &Pairs) -> Result<(), IdentityError> {
        config.file = self.text(pairs, "file")?.map(PathBuf::from);
        config.labels = self.labels(pairs)?;
        config.capacity = self.capacity(pairs)?;
        config.fetch_interval = self.interval(config, pairs, "fetch_interval")?;
        config.fetch_timeout = self.interval(config, pairs, "fetch_timeout")?;
        config.report_interval = self.interval(config, pairs, "report_interval")?;
        config.shutdown = self.time(config, pairs, "shutdown_timeout")?;
        if let Some(node) = find(pairs, "insecure") {
            config.insecure = node
                .as_bool()
                .ok_or_else(|| self.wrong(node, "`insecure` is neither true nor false"))?;
        }
        let timeout = self.interval(config, pairs, "timeout")?;
        if timeout.is_some_and(|timeout| timeout != EXAMPLE_TIMEOUT) {
            config.warnings.push(format!(
                "`runner.timeout` of {} is not taken over: a job ends by its own timeout-minutes, \
                 and by the server's ENDLESS_TASK_TIMEOUT",
                self.file
            ));
        }
        Ok(())
    }

    fn capacity(&self, pairs: &Pairs) -> Result<Option<u32>, IdentityError> {
        let Some(node) = find(pairs, "capacity") else { return Ok(None) };
        match node.as_int() {
            // What forgejo-runner takes for nothing said.
            Some(number) if number <= 0 => Ok(None),
            Some(number) => u32::try_from(number)
                .map(Some)
                .map_err(|_| self.wrong(node, "`capacity` is too large")),
            None => Err(self.wrong(node, "`capacity` is not a number")),
        }
    }

    fn connection(
        &self,
        config: &mut RunnerConfig,
        name: &Node,
        node: &Node,
        shared: bool,
    ) -> Result<ConfigConnection, IdentityError> {
        let pairs = self.mapping(Some(node))?;
        let needed = |key: &str| {
            let text = self.text(pairs, key)?;
            let text = text.ok_or_else(|| self.wrong(name, &format!("`{key}` is missing")))?;
            Ok::<_, IdentityError>((text, find(pairs, key).unwrap_or(node)))
        };
        let (url, at) = needed("url")?;
        let url = address(url).map_err(|problem| self.wrong(at, &format!("`url`: {problem}")))?;
        let (id, at) = needed("uuid")?;
        let uuid = uuid(id).map_err(|problem| self.wrong(at, &format!("`uuid`: {problem}")))?;
        if shared && find(pairs, "token").is_some() {
            let warning =
                format!("others may read the token in {0}; run chmod 600 on it", self.file);
            if !config.warnings.contains(&warning) {
                config.warnings.push(warning);
            }
        }
        Ok(ConfigConnection {
            name: name.text().unwrap_or_default().to_owned(),
            url,
            uuid,
            token: self.token(name, pairs)?,
            labels: self.labels(pairs)?,
            fetch_interval: self.interval(config, pairs, "fetch_interval")?,
        })
    }

    fn token(&self, name: &Node, pairs: &Pairs) -> Result<Secret, IdentityError> {
        match (self.text(pairs, "token")?, self.text(pairs, "token_url")?) {
            (Some(text), None) => one_line(text).map_err(|problem| {
                self.wrong(find(pairs, "token").unwrap_or(name), &format!("`token`: {problem}"))
            }),
            (None, Some(url)) => self.token_of(url).map_err(|problem| {
                let at = find(pairs, "token_url").unwrap_or(name);
                self.wrong(at, &format!("`token_url`: {problem}"))
            }),
            (Some(_), Some(_)) => {
                Err(self.wrong(name, "it has `token` and `token_url`; one is enough"))
            }
            (None, None) => Err(self.wrong(name, "`token` and `token_url` are missing")),
        }
    }

    /// The token at `file:PATH`. Variables in the path are those of systemd's credentials.
    fn token_of(&self, url: &str) -> Result<Secret, String> {
        let path = url.strip_prefix("file:").ok_or("it does not begin with file:")?;
        let path = self.expand(path)?;
        let path = match path.strip_prefix("//") {
            Some(rest) => rest.find('/').map_or("", |start| &rest[start..]),
            None => &path,
        };
        let cannot = |error: std::io::Error| format!("cannot read {path}: {error}");
        let (text, _) = file::read(Path::new(path), TOKEN_BYTES).map_err(cannot)?;
        one_line(&text).map_err(|problem| format!("{path}: {problem}"))
    }

    /// A text with `$NAME` and `${NAME}` replaced by the environment's values.
    fn expand(&self, text: &str) -> Result<String, String> {
        let mut parts = text.split('$');
        let mut expanded = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let (name, rest) = match part.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
                Some(found) => found,
                None => part.split_at(part.find(|c| !word(c)).unwrap_or(part.len())),
            };
            let value = (self.variable)(name)
                .ok_or_else(|| format!("the environment variable {name:?} is not set"))?;
            expanded.push_str(&value);
            expanded.push_str(rest);
        }
        Ok(expanded)
    }

    /// Labels as a list of texts, or as names with a backend and its options.
    fn labels(&self, pairs: &Pairs) -> Result<Vec<String>, IdentityError> {
        let Some(node) = find(pairs, "labels") else { return Ok(Vec::new()) };
        if let Some(items) = node.as_sequence() {
            let text = |item: &Node| {
                let text = item.text().map(str::to_owned);
                text.ok_or_else(|| self.wrong(item, "a label is not a text"))
            };
            return items.iter().map(text).collect();
        }
        let Some(pairs) = node.as_mapping() else {
            return Err(self.wrong(node, "`labels` is neither a list nor a mapping"));
        };
        pairs.iter().map(|(name, node)| self.label(name, node)).collect()
    }

    fn label(&self, name: &Node, node: &Node) -> Result<String, IdentityError> {
        let pairs = self.mapping(Some(node))?;
        let mut label = name.text().unwrap_or_default().to_owned();
        label.push(':');
        label.push_str(self.text(pairs, "backend")?.unwrap_or("docker"));
        let options = self.mapping(find(pairs, "backend-options"))?;
        if let Some(image) = self.text(options, "image")? {
            label.push_str("://");
            label.push_str(image);
        }
        let mut mark = '?';
        for (key, value) in options {
            if let (Some(key), Some(value)) = (key.text(), value.text())
                && key != "image"
            {
                label.push(mark);
                label.push_str(key);
                label.push('=');
                label.push_str(value);
                mark = '&';
            }
        }
        Ok(label)
    }
}

#[cfg(test)]
mod tests;
