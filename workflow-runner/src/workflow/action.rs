//! An action as its file says it, with expressions not yet evaluated.

use common::plan::{Dialect, Step, Value};

use super::decode;
use crate::diagnostic::Diagnostic;
use crate::yaml;

/// What an action is.
#[derive(Clone, Debug)]
pub struct Action {
    /// `name`.
    pub name: Option<String>,
    /// `inputs`, in the order of the file.
    pub inputs: Vec<ActionInput>,
    /// `outputs` that have a value: a mapping, which means something for composite actions only.
    pub outputs: Value,
    /// `runs`.
    pub runs: Runs,
}

/// An input of an action.
#[derive(Clone, Debug)]
pub struct ActionInput {
    /// Its name.
    pub name: String,
    /// `default`.
    pub default: Option<Value>,
    /// `required`, which only warns.
    pub required: bool,
    /// `deprecationMessage`.
    pub deprecation: Option<String>,
}

/// What an action runs.
#[derive(Clone, Debug)]
pub enum Runs {
    /// Steps.
    Composite(Vec<Step>),
    /// JavaScript, or on Forgejo a shell's script.
    Node(NodeAction),
    /// A container.
    Docker(DockerAction),
    /// Something that this program does not know, by the word behind `using`.
    Other(String),
}

/// An action whose files a program runs. They are named from the action's directory.
#[derive(Clone, Debug)]
pub struct NodeAction {
    /// The program: `node`, or on Forgejo `sh` (forgejo-runner-protocol 8.7).
    pub program: &'static str,
    /// The major version of node that it is written for.
    pub version: Option<u32>,
    /// What its step runs.
    pub main: String,
    /// What runs before the job's first step.
    pub pre: Option<String>,
    /// The condition of that; absent means always.
    pub pre_if: Option<String>,
    /// What runs behind the job's last step.
    pub post: Option<String>,
    /// The condition of that; absent means always.
    pub post_if: Option<String>,
}

/// An action in a container.
#[derive(Clone, Debug)]
pub struct DockerAction {
    /// `image`.
    pub image: DockerImage,
    /// What its step runs in place of what the image would.
    pub entrypoint: Option<String>,
    /// The arguments of that, in order; absent where the step may give them.
    pub args: Option<Vec<Value>>,
    /// `env`: a mapping, or an expression that gives one.
    pub env: Value,
    /// What runs before the job's first step.
    pub pre_entrypoint: Option<String>,
    /// The condition of that; absent means always.
    pub pre_if: Option<String>,
    /// What runs behind the job's last step.
    pub post_entrypoint: Option<String>,
    /// The condition of that; absent means always.
    pub post_if: Option<String>,
}

/// Where the image of an action comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerImage {
    /// It is built from this file, named from the action's directory.
    Built(String),
    /// It is in a registry, under this name.
    Named(String),
}

impl DockerAction {
    /// An action that is an image and says nothing else.
    #[must_use]
    pub fn of_image(image: DockerImage) -> Self {
        Self {
            image,
            entrypoint: None,
            args: None,
            env: Value::empty_mapping(),
            pre_entrypoint: None,
            pre_if: None,
            post_entrypoint: None,
            post_if: None,
        }
    }
}

/// Reads the file of an action. Every `${{ }}` in it that is used is parsed, none is evaluated.
///
/// # Errors
/// The first finding that makes the action unusable, with its place.
pub fn action(text: &str, file: &str, dialect: Dialect) -> Result<Action, Diagnostic> {
    decode::action(&yaml::parse(text, file)?, dialect)
}
