use chrono::{DateTime, Utc};

use crate::chat::ToolChoice;
use crate::config::{JobsConfig, OnIterationLimit};
use crate::cost::Cost;
use crate::wire::Job;

/// What bounds a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How often the model may be asked.
    pub max_iterations: u32,
    /// What the last of these is for.
    pub on_iteration_limit: OnIterationLimit,
    /// Tokens that may be used, in and out together.
    pub total_tokens: Option<u64>,
    /// Tool calls that may be made.
    pub tool_calls: Option<u64>,
    /// What it may cost.
    pub cost: Option<Cost>,
    /// When it is too late.
    pub deadline: Option<DateTime<Utc>>,
    /// Whether tools may or must be used.
    pub tool_choice: ToolChoice,
}

impl Limits {
    /// The job's own limits, and the configured ones where it has none.
    #[must_use]
    pub fn of(job: &Job, config: &JobsConfig) -> Self {
        let budget = job.budget.unwrap_or_default();
        Self {
            max_iterations: job.max_iterations.unwrap_or(config.max_iterations),
            on_iteration_limit: config.on_iteration_limit,
            total_tokens: budget.total_tokens,
            tool_calls: budget.tool_calls,
            cost: budget.cost_usd,
            deadline: job.deadline,
            tool_choice: job
                .tools
                .as_ref()
                .map(|tools| tools.choice)
                .unwrap_or_default(),
        }
    }
}
