use std::time::Duration;

use super::Problems;
use crate::cost::Cost;

/// Limits and texts of jobs, as text.
#[expect(
    clippy::struct_field_names,
    reason = "flags are named after the fields, and all settings of this concern begin alike"
)]
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Jobs")]
pub struct JobsSettings {
    /// The system prompt; `{user_id}`, `{conversation_id}` and `{date}` are filled in
    #[arg(
        long,
        env = "CHAT_SYSTEM_PROMPT",
        value_name = "TEXT",
        default_value = "Eres un asistente MCP. Usa herramientas cuando sea pertinente. userId={user_id}"
    )]
    chat_system_prompt: String,
    /// Reply of a job that was stopped by a limit before it had an answer
    #[arg(
        long,
        env = "CHAT_UNFINISHED_REPLY",
        value_name = "TEXT",
        default_value = "No se pudo obtener respuesta final."
    )]
    chat_unfinished_reply: String,
    /// What the last model call of a job is for: `reply` (tools stay on; if it wants one, the job ends with the text above) or `answer` (tools are off, so the model must answer)
    #[arg(
        long,
        env = "CHAT_ON_ITERATION_LIMIT",
        value_name = "reply|answer",
        default_value = "reply"
    )]
    chat_on_iteration_limit: String,
    /// How often a job may ask the model, where the job does not say (1 to 100)
    #[arg(
        long,
        env = "CHAT_MAX_ITERATIONS",
        value_name = "N",
        default_value = "3"
    )]
    chat_max_iterations: String,
    /// How often a job may fail or lose its worker before it ends as failed
    #[arg(long, env = "CHAT_MAX_ATTEMPTS", value_name = "N", default_value = "5")]
    chat_max_attempts: String,
    /// How long a tool call waits for a person to approve it before it counts as denied, in seconds
    #[arg(
        long,
        env = "CHAT_APPROVAL_TIMEOUT_SECS",
        value_name = "SECONDS",
        default_value = "86400"
    )]
    chat_approval_timeout_secs: String,
    /// The largest job message, in bytes
    #[arg(
        long,
        env = "CHAT_MAX_JOB_BYTES",
        value_name = "BYTES",
        default_value = "1048576"
    )]
    chat_max_job_bytes: String,
    /// Tokens of the context of models that `CHAT_MODEL_CONFIG` says nothing else of; earlier turns are cut to fit, oldest first (0: unknown, cut only when the model server refuses)
    #[arg(
        long,
        env = "CHAT_CONTEXT_TOKENS",
        value_name = "N",
        default_value = "0"
    )]
    chat_context_tokens: String,
    /// US dollars that the model calls of one user may cost a UTC day, where prices are known (empty: any)
    #[arg(
        long,
        env = "CHAT_USER_DAILY_COST",
        value_name = "USD",
        default_value = ""
    )]
    chat_user_daily_cost: String,
    /// Whether the older turns of a long conversation are summarised by the model, when a prompt would pass four fifths of the context (else they are left out once they do not fit)
    #[arg(
        long,
        env = "CHAT_COMPACT",
        value_name = "true|false",
        default_value = "false"
    )]
    chat_compact: String,
    /// Whether a job's `user_id` must be the AMQP user that published it, when the message names one
    #[arg(
        long,
        env = "CHAT_TRUST_AMQP_USER",
        value_name = "true|false",
        default_value = "false"
    )]
    chat_trust_amqp_user: String,
}

/// What happens when the model still wants tools in its last iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnIterationLimit {
    /// The job ends with the unfinished reply.
    Reply,
    /// The last model call is made with tools off.
    Answer,
}

/// Limits and texts of jobs.
#[derive(Clone, Debug)]
pub struct JobsConfig {
    /// The system prompt with its place holders.
    pub system_prompt: String,
    /// The reply of a job that a limit stopped.
    pub unfinished_reply: String,
    /// What the last model call is for.
    pub on_iteration_limit: OnIterationLimit,
    /// Model calls a job, where the job does not say.
    pub max_iterations: u32,
    /// Failures and deaths a job.
    pub max_attempts: u32,
    /// How long a call waits for a person's word.
    pub approval_timeout: Duration,
    /// The largest job message, in bytes.
    pub max_job_bytes: usize,
    /// Tokens of the context of models of which nothing else is known.
    pub context_tokens: Option<u32>,
    /// Whether older turns are summarised.
    pub compact: bool,
    /// What the model calls of one user may cost a UTC day.
    pub user_daily_cost: Option<Cost>,
    /// Whether the AMQP user and the job's user must agree.
    pub trust_amqp_user: bool,
}

impl JobsSettings {
    /// The settings checked; problems are noted.
    pub fn parse(&self, problems: &mut Problems) -> Option<JobsConfig> {
        let limit = problems.choice(
            "CHAT_ON_ITERATION_LIMIT",
            &self.chat_on_iteration_limit,
            &[
                ("reply", OnIterationLimit::Reply),
                ("answer", OnIterationLimit::Answer),
            ],
        );
        let trust = problems.choice(
            "CHAT_TRUST_AMQP_USER",
            &self.chat_trust_amqp_user,
            &[("true", true), ("false", false)],
        );
        let compact = problems.choice(
            "CHAT_COMPACT",
            &self.chat_compact,
            &[("true", true), ("false", false)],
        );
        let iterations = problems.number("CHAT_MAX_ITERATIONS", &self.chat_max_iterations, 1, 100);
        let attempts = problems.number("CHAT_MAX_ATTEMPTS", &self.chat_max_attempts, 1, 1000);
        let approval = problems.number(
            "CHAT_APPROVAL_TIMEOUT_SECS",
            &self.chat_approval_timeout_secs,
            1,
            365 * 86_400,
        );
        // RabbitMQ 4 takes messages of up to 16 MiB.
        let bytes = problems.number(
            "CHAT_MAX_JOB_BYTES",
            &self.chat_max_job_bytes,
            1024,
            16 << 20,
        );
        let context = problems.number(
            "CHAT_CONTEXT_TOKENS",
            &self.chat_context_tokens,
            0,
            100_000_000,
        );
        let daily_cost = parse_cost(&self.chat_user_daily_cost)
            .map_err(|what| problems.note("CHAT_USER_DAILY_COST", what));
        if self.chat_unfinished_reply.trim().is_empty() {
            problems.note("CHAT_UNFINISHED_REPLY", "expected a text, got an empty one");
        }
        Some(JobsConfig {
            system_prompt: self.chat_system_prompt.clone(),
            unfinished_reply: self.chat_unfinished_reply.clone(),
            on_iteration_limit: limit?,
            max_iterations: iterations?,
            max_attempts: attempts?,
            approval_timeout: Duration::from_secs(approval?),
            max_job_bytes: bytes?,
            context_tokens: context.map(|tokens| (tokens > 0).then_some(tokens))?,
            user_daily_cost: daily_cost.ok()?,
            compact: compact?,
            trust_amqp_user: trust?,
        })
    }
}

fn parse_cost(text: &str) -> Result<Option<Cost>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let cost = text.parse().ok().and_then(Cost::from_usd);
    cost.map(Some)
        .ok_or_else(|| format!("expected US dollars as a number, like 2.50, got {text:?}"))
}
