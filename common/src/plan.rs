//! The plan: the normal form of one job, the same for every forge.

use serde::{Deserialize, Serialize};

/// The version of the plan's shape that this program writes.
pub const PLAN_VERSION: u16 = 1;

/// A value of a workflow before evaluation.
///
/// Only the translator of a forge decides which text is a template or an expression. The result of
/// an evaluation is never evaluated again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Text that stands for itself, whatever it contains. Booleans and numbers of a workflow are
    /// their text, null is empty.
    Literal(String),
    /// Text with `${{ }}` in it; each is replaced by its value as text. Text that is one `${{ }}`
    /// and nothing else keeps the type of its value.
    Template(String),
    /// An expression without its `${{ }}`.
    Expression(String),
    /// A list.
    Sequence(Vec<Value>),
    /// Pairs in the order of the file. A key may be an expression or template.
    Mapping(Vec<(Value, Value)>),
    /// As a key of a mapping: its value evaluates to a mapping that is merged here.
    Insert,
}

impl Value {
    /// An empty mapping.
    #[must_use]
    pub fn empty_mapping() -> Self {
        Self::Mapping(Vec::new())
    }

    /// Builds a literal.
    pub fn literal(text: impl Into<String>) -> Self {
        Self::Literal(text.into())
    }

    /// Whether this is a mapping without entries.
    #[must_use]
    pub fn is_empty_mapping(&self) -> bool {
        matches!(self, Self::Mapping(pairs) if pairs.is_empty())
    }
}

/// Whose rules a job follows where the forges differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// GitHub Actions.
    Github,
    /// Forgejo Actions.
    Forgejo,
    /// Gitea Actions.
    Gitea,
}

impl Dialect {
    /// The name as it is written in options and documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Forgejo => "forgejo",
            Self::Gitea => "gitea",
        }
    }
}

/// Where in a user's file something stands; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Line.
    pub line: u32,
    /// Column in characters.
    pub column: u32,
}

/// One job, ready to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The shape's version, [`PLAN_VERSION`] when written by this program.
    pub version: u16,
    /// Whose rules apply.
    pub dialect: Dialect,
    /// The version of the forge's server, where it says one.
    pub server_version: Option<String>,
    /// The key of the job in the workflow: `github.job`.
    pub job: String,
    /// The job's name as people read it, evaluated.
    pub name: String,
    /// The `env` of the workflow, then of the job; later ones win.
    pub env: Vec<Value>,
    /// The `defaults` of the workflow, then of the job; later ones win.
    pub defaults: Vec<Value>,
    /// The containers of the job; none in most jobs.
    #[serde(default, skip_serializing_if = "Containers::is_empty")]
    pub containers: Containers,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// The job's outputs: a mapping from name to value, evaluated after the last step.
    pub outputs: Value,
    /// The job's limit in minutes; absent means [`DEFAULT_JOB_MINUTES`].
    pub timeout_minutes: Option<Value>,
    /// The path of the workflow file, for messages.
    pub file: Option<String>,
}

/// The containers that a job asks for, before evaluation.
///
/// One of them is text, the name of its image, or a mapping with `image` and what else the language
/// has for it, or an expression that gives either. What evaluates to nothing is no container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Containers {
    /// `container`: where the steps run; absent where that is the machine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Value>,
    /// `services`: what runs beside the steps, by the names under which they reach it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<(String, Value)>,
}

impl Containers {
    /// Whether the job asks for none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.job.is_none() && self.services.is_empty()
    }
}

/// The limit of a job that sets none, in minutes (github-runner-protocol 7.8).
pub const DEFAULT_JOB_MINUTES: u64 = 360;

/// One step of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The step's place in the forge's own numbering, from 0.
    pub index: u32,
    /// The author's `id`.
    pub id: Option<String>,
    /// The author's `name`; absent means that a name is made from what the step does.
    pub name: Option<Value>,
    /// The text of `if`, with or without `${{ }}`; absent means `success()`.
    pub condition: Option<String>,
    /// The step's `env`: a mapping, or an expression that gives one.
    pub env: Value,
    /// The step's `continue-on-error`.
    pub continue_on_error: Option<Value>,
    /// The step's limit in minutes.
    pub timeout_minutes: Option<Value>,
    /// What the step does.
    pub action: StepAction,
    /// Where the step stands in the workflow file.
    pub location: Option<Location>,
}

impl Step {
    /// A step that does this and has nothing else.
    #[must_use]
    pub fn new(index: u32, action: StepAction) -> Self {
        Self {
            index,
            id: None,
            name: None,
            condition: None,
            env: Value::empty_mapping(),
            continue_on_error: None,
            timeout_minutes: None,
            action,
            location: None,
        }
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepAction {
    /// `run`: a script.
    Run {
        /// The script text.
        script: Value,
        /// `shell` of the step.
        shell: Option<Value>,
        /// `working-directory` of the step.
        working_directory: Option<Value>,
    },
    /// `uses`: an action.
    Uses {
        /// The reference as written, such as `actions/checkout@v4`.
        reference: String,
        /// `with`: a mapping, or an expression that gives one.
        with: Value,
    },
    /// Something that cannot run here. It fails with this sentence when it is reached.
    Unsupported {
        /// What it is and what to do instead, one sentence.
        reason: String,
    },
}
