/// A figure that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// What it is called; the unit is at the end of the name.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it means, for who reads it beside the name.
    pub help: &'static str,
}

/// How a figure moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows while the process lives.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Values, counted by size.
    Histogram,
}

/// Bounds in seconds of calls and commits: from a fast commit to the patience of a model call.
pub const SHORT_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0,
];
/// Bounds in seconds of whole jobs, which may wait for retries in between.
pub const JOB_BUCKETS: &[f64] = &[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0,
];

/// Declares the figures, and the list of all of them.
macro_rules! figures {
    ($($id:ident: $kind:ident $name:literal $help:literal;)*) => {
        $(pub(super) const $id: &str = $name;)*
        /// Every figure.
        pub const ALL: &[Figure] = &[
            $(Figure { name: $name, kind: Kind::$kind, help: $help },)*
        ];
    };
}

figures! {
    // The whole installation, from the database.
    DATABASE_UP: Gauge "chat_database_up"
        "1 if the database answered when this worker last asked it for the figures of the installation, else 0.";
    JOBS: Gauge "chat_jobs"
        "Unfinished jobs of the installation by status (waiting, queued, running), each counted up to 20000; NaN while the database does not answer.";
    JOBS_WAITING: Gauge "chat_jobs_waiting"
        "Jobs of the installation with status waiting, by what they wait for; NaN while the database does not answer.";
    OLDEST_WAITING: Gauge "chat_oldest_waiting_seconds"
        "How long ago the oldest job came in that is waiting or queued, those left out that wait for their hour or an approval; NaN while the database does not answer.";
    UNPUBLISHED: Gauge "chat_unpublished_results"
        "Ended jobs of the installation whose result is not known to be published, counted up to 20000; NaN while the database does not answer.";
    // This process.
    BUILD_INFO: Gauge "chat_build_info"
        "Always 1; the label says which version this worker is.";
    JOBS_IN_HAND: Gauge "chat_jobs_in_hand" "Jobs that this worker runs now.";
    SLOTS: Gauge "chat_slots" "Jobs that this worker runs at most (CHAT_CONCURRENCY).";
    SWEEPER: Gauge "chat_sweeper"
        "1 if this worker is the one that looks for what is due, else 0.";
    LOOP_SILENT: Gauge "chat_loop_silent_seconds"
        "How long ago each loop of this worker last turned; 0 for one that ended in good order.";
    ATTEMPTS: Counter "chat_attempts_total"
        "Runs of jobs that ended in this worker, by outcome.";
    FENCED: Counter "chat_fenced_runs_total"
        "Runs of this worker that found their job in other hands and stopped.";
    JOBS_ENDED: Counter "chat_jobs_ended_total"
        "Jobs that this worker ended, by status and, of those not completed, error code; also those that ended without a run.";
    RETRIES: Counter "chat_retries_total"
        "Runs that failed and whose job was parked to be tried again, by error code.";
    TAKEOVERS: Counter "chat_takeovers_total"
        "Jobs taken from a run that its worker did not end: by the sweep, or by a claim.";
    REFUSED: Counter "chat_refused_messages_total"
        "Messages that became dead letters without becoming jobs, by error code.";
    DISPATCHED: Counter "chat_dispatched_total" "Wake-ups that this worker sent.";
    JOB_SECONDS_NAME: Histogram "chat_job_seconds"
        "From a job's first run to its end, the waits between its runs included.";
    PUBLISH_SECONDS: Histogram "chat_publish_seconds"
        "From handing a message to the publisher to the broker's confirm, by outcome.";
    EVENTS: Counter "chat_events_total"
        "Events of jobs, by outcome: published, or dropped since they found no room or no connection.";
    COMMIT_SECONDS: Histogram "chat_commit_seconds"
        "Writes to the database that succeeded, the wait for a connection included, by what was written.";
    COMMIT_FAILURES: Counter "chat_commit_failures_total"
        "Writes to the database that failed and were tried again, by what was written.";
    MODEL_CALL_SECONDS: Histogram "chat_model_call_seconds"
        "Requests to the model server, by outcome.";
    MODEL_PACED: Histogram "chat_model_pace_seconds"
        "How long requests waited for their part of a model's limits a minute; those that had it at once are not counted.";
    MODEL_RETRIES: Counter "chat_model_retries_total"
        "Requests to the model server that were made again in place.";
    TOKENS: Counter "chat_tokens_total"
        "Tokens that the model server counted, by kind: cached ones are part of input, reasoning ones of output.";
    TOOL_CALL_SECONDS: Histogram "chat_tool_call_seconds"
        "Tool calls, by server and outcome; refused ones were not made.";
    TOOL_WAIT_SECONDS: Histogram "chat_tool_wait_seconds"
        "How long tool calls waited for a process, its start included, by server.";
    UNKNOWN_TOOLS: Counter "chat_unknown_tool_calls_total"
        "Calls of tools that do not exist; they were not made.";
}

/// The figure that has buckets of its own.
pub const JOB_SECONDS: &str = JOB_SECONDS_NAME;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ours_and_end_in_their_unit() {
        for Figure { name, kind, help } in ALL {
            assert!(name.starts_with("chat_"), "{name}");
            assert!(
                help.ends_with('.') && !help.contains('\n'),
                "{name}: {help}"
            );
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(name.bytes().all(plain), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            if *kind == Kind::Histogram {
                assert!(name.ends_with("_seconds"), "{name}");
            }
        }
    }

    #[test]
    fn no_name_is_given_twice() {
        let mut names: Vec<_> = ALL.iter().map(|figure| figure.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    /// In tables a name stands between backticks, in alerts it has a part of a histogram after it.
    #[test]
    fn the_handbook_explains_each_figure_and_no_other() {
        let handbook = include_str!("../../docs/OPERATIONS.md");
        let word = |char: char| char.is_ascii_lowercase() || char == '_';
        let rows = handbook.lines().filter(|line| line.starts_with("| `chat_"));
        let mut told: Vec<_> = rows
            .filter_map(|row| row.split('|').nth(1))
            .flat_map(|names| names.split('`'))
            .filter(|name| name.starts_with("chat_") && name.chars().all(word))
            .collect();
        told.sort_unstable();
        let mut names: Vec<_> = ALL.iter().map(|figure| figure.name).collect();
        names.sort_unstable();
        assert_eq!(told, names);
        let alerts = handbook.split("```yaml").nth(1).unwrap();
        let alerts = alerts.split("```").next().unwrap();
        for name in alerts.split(|char| !word(char)) {
            let part = ["_bucket", "_count"]
                .iter()
                .find_map(|part| name.strip_suffix(part));
            let is_known = names.contains(&name) || part.is_some_and(|name| names.contains(&name));
            assert!(is_known || !name.starts_with("chat_"), "{name}");
        }
    }

    #[test]
    fn bounds_of_buckets_grow() {
        for bounds in [SHORT_BUCKETS, JOB_BUCKETS] {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        }
    }
}
