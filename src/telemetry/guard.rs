use tracing::Level;

/// Libraries that log prompts, tool arguments or results, and the most they may say: no filter
/// opens them further.
const LEAKY: [(&str, Option<Level>); 3] = [
    ("async_openai", None),
    // It logs every returned message with its body, and each look-up of a missing queue as an error;
    // the broker's room says what matters of both.
    ("lapin", None),
    ("rmcp", Some(Level::WARN)),
];
/// Libraries that are of interest only to who names them.
const CHATTY: [&str; 2] = ["sqlx", "hyper"];

/// What third parties may log, whatever the filter says: it only ever takes lines away.
///
/// Beside the filter rather than in it: a directive such as `[job.run]=trace` opens all targets
/// within a span, and one for `lapin=warn` would open it where the filter says `off`.
pub(super) struct Guard {
    hushed: Vec<&'static str>,
}

impl Guard {
    pub(super) fn new(filter: &str) -> Self {
        let named = |library: &str| filter.split(',').any(|directive| names(directive, library));
        Self {
            hushed: CHATTY.into_iter().filter(|name| !named(name)).collect(),
        }
    }

    pub(super) fn lets(&self, target: &str, level: Level) -> bool {
        if let Some((_, most)) = LEAKY.iter().find(|(name, _)| is_of(target, name)) {
            // More severe is less.
            return most.is_some_and(|most| level <= most);
        }
        level <= Level::WARN || !self.hushed.iter().any(|name| is_of(target, name))
    }
}

fn names(directive: &str, library: &str) -> bool {
    let target = directive.split(['=', '[']).next().unwrap_or_default();
    is_of(target.trim(), library)
}

/// Whether `target` is the library's own, or that of a part of it such as `hyper_util`.
fn is_of(target: &str, library: &str) -> bool {
    let rest = target.strip_prefix(library);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '_']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_log_content_are_closed_to_every_filter() {
        for filter in [
            "trace",
            "async_openai=trace,rmcp::service=trace",
            "[job.run]=trace",
        ] {
            let guard = Guard::new(filter);
            assert!(!guard.lets("async_openai::client", Level::ERROR));
            assert!(!guard.lets("rmcp::service", Level::INFO));
            assert!(guard.lets("rmcp", Level::WARN));
        }
    }

    #[test]
    fn other_libraries_speak_when_they_are_named() {
        let guard = Guard::new("debug,sqlx::query=debug");
        assert!(guard.lets("sqlx::query", Level::DEBUG));
        assert!(!guard.lets("hyper_util::client", Level::INFO));
        assert!(!guard.lets("lapin::channel", Level::ERROR));
        assert!(guard.lets("chat_worker::worker", Level::TRACE));
    }
}
