use crate::ids::JobId;

/// What queues, exchanges and routing keys are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The queue that brings jobs in.
    pub jobs: String,
    /// The queue that carries results away.
    pub results: String,
    /// The queue with a copy of each dead letter.
    pub jobs_dead: String,
    /// The exchange of the broker's own dead-lettering.
    pub dlx: String,
    /// The routing key from [`Names::dlx`] to [`Names::jobs_dead`].
    pub dead_key: String,
    /// The queue that brings control messages.
    pub control: String,
    /// The exchange of progress events.
    pub events: String,
}

impl Names {
    /// The names under a prefix.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            jobs: format!("{prefix}.jobs"),
            results: format!("{prefix}.results"),
            jobs_dead: format!("{prefix}.jobs.dead"),
            dlx: format!("{prefix}.dlx"),
            dead_key: "jobs.dead".to_owned(),
            control: format!("{prefix}.control"),
            events: format!("{prefix}.events"),
        }
    }

    /// The routing key of an event such as `tool.finished`.
    #[must_use]
    pub fn event_key(job: JobId, event: &str) -> String {
        format!("{job}.{event}")
    }

    /// The binding key of all events of a job.
    ///
    /// `#` and not `*`, which stands for one word: event names have two.
    #[must_use]
    pub fn events_of(job: JobId) -> String {
        format!("{job}.#")
    }
}
