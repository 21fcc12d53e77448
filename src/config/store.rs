use url::Url;

use super::{Problems, Secret};

/// How to reach the database, as text.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Postgres")]
pub struct StoreSettings {
    /// Where Postgres is: `postgres://user:password@host:5432/database`
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        default_value = "postgres://postgres@127.0.0.1:5432/postgres"
    )]
    database_url: String,
    /// The same database past a transaction pooler, for what needs a session of its own
    /// [default: the database URL]
    #[arg(
        long,
        env = "DATABASE_DIRECT_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    database_direct_url: Option<String>,
    /// Connections to Postgres at once
    #[arg(
        long,
        env = "CHAT_DB_CONNECTIONS",
        value_name = "N",
        default_value = "10"
    )]
    chat_db_connections: String,
}

/// How to reach the database.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The pool's URL.
    pub url: Secret,
    /// The URL of sessions that must not go through a transaction pooler.
    pub direct_url: Secret,
    /// Connections at once.
    pub connections: u32,
}

impl StoreSettings {
    /// The settings checked; problems are noted.
    pub fn parse(&self, problems: &mut Problems) -> Option<StoreConfig> {
        let url = parse_url("DATABASE_URL", &self.database_url, problems);
        let direct_url = match &self.database_direct_url {
            Some(direct) => parse_url("DATABASE_DIRECT_URL", direct, problems),
            None => url.clone(),
        };
        let connections =
            problems.number("CHAT_DB_CONNECTIONS", &self.chat_db_connections, 2, 1000);
        Some(StoreConfig {
            url: url?,
            direct_url: direct_url?,
            connections: connections?,
        })
    }
}

fn parse_url(setting: &str, text: &str, problems: &mut Problems) -> Option<Secret> {
    let text = text.trim();
    let expected = "expected postgres://user:password@host:5432/database";
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => Some(Secret::new(text)),
        Ok(_) => {
            problems.note(setting, format!("{expected}: the scheme is not postgres"));
            None
        }
        Err(error) => {
            problems.note(setting, format!("{expected}: {error}"));
            None
        }
    }
}
