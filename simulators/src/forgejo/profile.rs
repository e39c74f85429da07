//! Which server is simulated.

use connectrpc::{ConnectError, ErrorCode};
use http::StatusCode;

/// A server to be like, with what it can do (forgejo-runner-protocol 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Forgejo 7: the five oldest calls and nothing else.
    V7,
    /// Forgejo 11 LTS: no capacity, no request key, no `FetchSingleTask`.
    V11,
    /// Forgejo 14.0.0: capacity, but its answers have additional tasks and no first one.
    V14,
    /// Forgejo 15: request keys, handles, ephemeral runners, registration by REST, OIDC.
    V15,
    /// Forgejo 17: evaluates the `if` of jobs itself.
    V17,
    /// Gitea 1.22: does not check whose task is updated.
    Gitea122,
    /// Gitea 1.24: ephemeral runners.
    Gitea124,
    /// Gitea 1.27: closes the log on an empty last batch.
    Gitea127,
}

impl Profile {
    /// All of them, for tests of what every server has to get.
    pub const ALL: [Self; 8] = [
        Self::V7,
        Self::V11,
        Self::V14,
        Self::V15,
        Self::V17,
        Self::Gitea122,
        Self::Gitea124,
        Self::Gitea127,
    ];

    /// Whether it is a Gitea.
    #[must_use]
    pub fn is_gitea(self) -> bool {
        matches!(self, Self::Gitea122 | Self::Gitea124 | Self::Gitea127)
    }

    /// What `GET /api/v1/version` says.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Self::V7 => "7.0.16+gitea-1.21.11",
            Self::V11 => "11.0.12+gitea-1.22.0",
            Self::V14 => "14.0.0+gitea-1.22.0",
            Self::V15 => "15.0.3+gitea-1.22.0",
            Self::V17 => "17.0.0-dev-12-d883bd8f12+gitea-1.22.0",
            Self::Gitea122 => "1.22.6",
            Self::Gitea124 => "1.24.0",
            Self::Gitea127 => "1.27.0",
        }
    }

    /// `task_capacity` and `additional_tasks`.
    #[must_use]
    pub fn has_capacity(self) -> bool {
        matches!(self, Self::V14 | Self::V15 | Self::V17)
    }

    /// The first task goes where the additional ones are (forgejo-runner-protocol 4.3).
    #[must_use]
    pub fn leaves_first_task_out(self) -> bool {
        self == Self::V14
    }

    /// `x-runner-request-key`.
    #[must_use]
    pub fn has_request_key(self) -> bool {
        matches!(self, Self::V15 | Self::V17)
    }

    /// `FetchSingleTask`, and handles.
    #[must_use]
    pub fn has_single_task(self) -> bool {
        matches!(self, Self::V15 | Self::V17)
    }

    /// Runners for one task.
    #[must_use]
    pub fn has_ephemeral(self) -> bool {
        matches!(self, Self::V15 | Self::V17 | Self::Gitea124 | Self::Gitea127)
    }

    /// Runs of one concurrency group wait for each other, and finished tasks raise `tasks_version`.
    #[must_use]
    pub fn has_concurrency(self) -> bool {
        matches!(self, Self::V14 | Self::V15 | Self::V17)
    }

    /// Runners are made by REST.
    #[must_use]
    pub fn has_rest_registration(self) -> bool {
        matches!(self, Self::V15 | Self::V17)
    }

    /// `enable-openid-connect`.
    #[must_use]
    pub fn has_oidc(self) -> bool {
        matches!(self, Self::V15 | Self::V17)
    }

    /// The server skips jobs by their `if` when it can (forgejo-runner-protocol 7.3).
    #[must_use]
    pub fn evaluates_if(self) -> bool {
        self == Self::V17
    }

    /// Reusable workflows become jobs of their own, which the simulator refuses to play.
    #[must_use]
    pub fn expands_reusable(self) -> bool {
        matches!(self, Self::V15 | Self::V17)
    }

    /// `no_more` counts on a batch without rows.
    #[must_use]
    pub fn closes_on_empty_batch(self) -> bool {
        self == Self::Gitea127
    }

    /// A task may be updated by the runner that has it and by no other.
    #[must_use]
    pub fn checks_task_owner(self) -> bool {
        self != Self::Gitea122
    }

    /// A method that it does not know gets Go's page instead of an error of the protocol.
    #[must_use]
    pub fn unknown_method_is_bare(self) -> bool {
        matches!(self, Self::V7 | Self::V11 | Self::Gitea122)
    }

    /// The status of an error, which older servers map otherwise (forgejo-runner-protocol 1.3).
    pub(super) fn http_status(self, error: &ConnectError) -> StatusCode {
        match error.code {
            ErrorCode::Canceled | ErrorCode::DeadlineExceeded if self == Self::V7 => {
                StatusCode::REQUEST_TIMEOUT
            }
            ErrorCode::FailedPrecondition if self == Self::V7 => StatusCode::PRECONDITION_FAILED,
            ErrorCode::Unimplemented if self == Self::V7 => StatusCode::NOT_FOUND,
            _ => error.http_status(),
        }
    }

    /// The context has `forgejo_server_version`.
    pub(super) fn has_server_version(self) -> bool {
        matches!(self, Self::V14 | Self::V15 | Self::V17)
    }

    /// The context has ids of repository, owner and actor.
    pub(super) fn has_context_ids(self) -> bool {
        self == Self::V17
    }

    /// Where its workflows are.
    pub(super) fn workflow_directory(self) -> &'static str {
        if self.is_gitea() { ".gitea/workflows" } else { ".forgejo/workflows" }
    }
}
