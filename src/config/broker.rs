use url::Url;

use super::{Problems, Secret};

/// How to reach the broker, as text.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "RabbitMQ")]
pub struct BrokerSettings {
    /// Where RabbitMQ is: `amqp://` or `amqps://`, user, password, host, port, `/` and the vhost (%2f for the default one)
    #[arg(
        long,
        env = "AMQP_URL",
        value_name = "URL",
        hide_env_values = true,
        default_value = "amqp://guest:guest@127.0.0.1:5672/%2f"
    )]
    amqp_url: String,
    /// First part of every queue, exchange and routing key, so that several installations share a broker
    #[arg(long, env = "CHAT_PREFIX", value_name = "NAME", default_value = "chat")]
    chat_prefix: String,
    /// Queues that a producer's `reply_to` may name
    #[arg(
        long,
        env = "CHAT_REPLY_TO_ALLOW",
        value_name = "GLOBS",
        help = "Queues that a producer's reply_to may name: globs, comma-separated \
                [default: amq.gen-*,amq.rabbitmq.reply-to.*,<prefix>.reply.*]"
    )]
    chat_reply_to_allow: Option<String>,
}

/// How to reach the broker, and what things are called there.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// The connection's URL, with its password.
    pub url: Secret,
    /// First part of every name on the broker.
    pub prefix: String,
    /// Which queues a `reply_to` may name.
    pub reply_to_allow: globset::GlobSet,
}

impl BrokerSettings {
    /// The settings checked; problems are noted.
    pub fn parse(&self, problems: &mut Problems) -> Option<BrokerConfig> {
        let url = parse_url(self.amqp_url.trim(), problems);
        let prefix = parse_prefix(self.chat_prefix.trim(), problems);
        let globs = match &self.chat_reply_to_allow {
            Some(globs) => globs.clone(),
            None => format!(
                "amq.gen-*,amq.rabbitmq.reply-to.*,{}.reply.*",
                self.chat_prefix.trim()
            ),
        };
        let reply_to_allow = parse_globs("CHAT_REPLY_TO_ALLOW", &globs, problems);
        Some(BrokerConfig {
            url: url?,
            prefix: prefix?,
            reply_to_allow: reply_to_allow?,
        })
    }
}

fn parse_url(text: &str, problems: &mut Problems) -> Option<Secret> {
    let expected = "expected amqp://user:password@host:5672/%2f";
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            problems.note("AMQP_URL", format!("{expected}: {error}"));
            return None;
        }
    };
    let problem = match (url.scheme(), url.host_str(), url.path()) {
        ("amqp" | "amqps", None | Some(""), _) => "no host",
        // The client library reads an IPv6 literal as localhost.
        ("amqp" | "amqps", Some(host), _) if host.starts_with('[') => {
            "an IPv6 address is not supported here; use a host name"
        }
        // A lone slash would name the virtual host "", which no broker has.
        ("amqp" | "amqps", Some(_), "/") => "the vhost is empty; write /%2f for the default one",
        ("amqp" | "amqps", Some(_), _) => return Some(Secret::new(text)),
        _ => "the scheme is neither amqp nor amqps",
    };
    problems.note("AMQP_URL", format!("{expected}: {problem}"));
    None
}

fn parse_prefix(text: &str, problems: &mut Problems) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=100).contains(&text.len()) && text.bytes().all(allowed);
    if !fits || text.starts_with("amq.") {
        problems.note(
            "CHAT_PREFIX",
            format!("expected 1 to 100 of A-Z a-z 0-9 . _ - and not amq., got {text:?}"),
        );
        return None;
    }
    Some(text.to_owned())
}

fn parse_globs(setting: &str, text: &str, problems: &mut Problems) -> Option<globset::GlobSet> {
    let mut set = globset::GlobSetBuilder::new();
    let before = problems.list().len();
    for glob in text
        .split(',')
        .map(str::trim)
        .filter(|glob| !glob.is_empty())
    {
        match globset::Glob::new(glob) {
            Ok(glob) => {
                set.add(glob);
            }
            Err(error) => problems.note(setting, error),
        }
    }
    let built = set.build().ok();
    built.filter(|_| problems.list().len() == before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(url: &str) -> Option<String> {
        let mut problems = Problems::default();
        parse_url(url, &mut problems);
        problems.list().first().cloned()
    }

    #[test]
    fn urls_that_the_client_library_misreads_are_refused_before_it_sees_them() {
        assert_eq!(problem("amqp://guest:guest@127.0.0.1:5672/%2f"), None);
        assert_eq!(problem("amqps://broker.example:5671"), None);
        for bad in [
            "amqp://g:hunter2@[::1]:5672/%2f",
            "amqp://g:hunter2@h:5672/",
            "http://g:hunter2@h",
            "h:5672",
        ] {
            let problem = problem(bad).unwrap_or_default();
            assert!(
                problem.starts_with("AMQP_URL: expected amqp://"),
                "{bad}: {problem}"
            );
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn a_prefix_is_a_name() {
        let mut problems = Problems::default();
        assert!(parse_prefix("chat-7.b_c", &mut problems).is_some());
        for bad in ["", "two words", "amq.chat", "ä"] {
            assert!(parse_prefix(bad, &mut problems).is_none());
        }
    }
}
