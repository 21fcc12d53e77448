use std::time::Duration;

use url::Url;

use super::{Problems, Secret};

/// How to reach the model server, as text.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct ModelSettings {
    /// The model server's key
    #[arg(
        long,
        env = "OPENAI_API_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    openai_api_key: Option<String>,
    /// Where the OpenAI-compatible server is
    #[arg(
        long,
        env = "OPENAI_BASE_URL",
        value_name = "URL",
        default_value = "https://api.openai.com/v1"
    )]
    openai_base_url: String,
    /// The model of jobs that name none
    #[arg(
        long,
        env = "CHAT_MODEL",
        value_name = "MODEL",
        default_value = "gpt-4o-mini"
    )]
    chat_model: String,
    /// Models that jobs may name, comma-separated (empty: any)
    #[arg(long, env = "CHAT_MODELS", value_name = "MODELS", default_value = "")]
    chat_models: String,
    /// Which OpenAI API is spoken: `auto` or `chat`
    #[arg(
        long,
        env = "CHAT_API",
        value_name = "auto|chat",
        default_value = "auto"
    )]
    chat_api: String,
    /// Seconds that one model call may take
    #[arg(
        long,
        env = "CHAT_MODEL_TIMEOUT_SECS",
        value_name = "SECONDS",
        default_value = "120"
    )]
    chat_model_timeout_secs: String,
}

/// How to reach the model server.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// The key, if the server wants one.
    pub api_key: Option<Secret>,
    /// The server's base URL, without a slash at its end.
    pub base_url: String,
    /// The model of jobs that name none.
    pub default_model: String,
    /// The models that jobs may name; empty: any.
    pub allowed_models: Vec<String>,
    /// How long one model call may take.
    pub timeout: Duration,
}

impl ModelConfig {
    /// Whether a job may name `model`.
    #[must_use]
    pub fn allows(&self, model: &str) -> bool {
        self.allowed_models.is_empty() || self.allowed_models.iter().any(|name| name == model)
    }
}

impl ModelSettings {
    /// The settings checked; problems are noted.
    pub fn parse(&self, problems: &mut Problems) -> Option<ModelConfig> {
        let base_url = parse_base_url(&self.openai_base_url, problems);
        let api_key = self.parse_key(base_url.as_deref(), problems);
        let api = problems.choice("CHAT_API", &self.chat_api, &[("auto", ()), ("chat", ())]);
        let timeout = problems.number(
            "CHAT_MODEL_TIMEOUT_SECS",
            &self.chat_model_timeout_secs,
            1,
            86_400,
        );
        let default_model = self.chat_model.trim().to_owned();
        let allowed_models: Vec<_> = self
            .chat_models
            .split(',')
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        if default_model.is_empty() {
            problems.note(
                "CHAT_MODEL",
                "expected the name of a model, got an empty text",
            );
        } else if !allowed_models.is_empty() && !allowed_models.contains(&default_model) {
            problems.note(
                "CHAT_MODELS",
                format!("expected the default model {default_model:?} among the allowed ones"),
            );
        }
        api?;
        Some(ModelConfig {
            api_key,
            base_url: base_url?,
            default_model,
            allowed_models,
            timeout: Duration::from_secs(timeout?),
        })
    }

    fn parse_key(&self, base_url: Option<&str>, problems: &mut Problems) -> Option<Secret> {
        let key = self.openai_api_key.as_deref().unwrap_or_default().trim();
        if key.is_empty() {
            if base_url.is_some_and(|url| url.contains("//api.openai.com")) {
                problems.note(
                    "OPENAI_API_KEY",
                    "expected a key, got none; api.openai.com answers nobody without one (for a server that needs no key set OPENAI_BASE_URL)",
                );
            }
            return None;
        }
        // A header cannot carry anything else; the client library would panic on it at every call.
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            problems.note(
                "OPENAI_API_KEY",
                "has characters that no HTTP header can carry",
            );
            return None;
        }
        Some(Secret::new(key))
    }
}

fn parse_base_url(text: &str, problems: &mut Problems) -> Option<String> {
    let text = text.trim().trim_end_matches('/');
    let expected = "expected a URL like https://api.openai.com/v1";
    match Url::parse(text) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            problems.note(
                "OPENAI_BASE_URL",
                "must not hold a user or a password; use OPENAI_API_KEY",
            );
            None
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            problems.note(
                "OPENAI_BASE_URL",
                "must end with its path, without `?` or `#`",
            );
            None
        }
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Some(text.to_owned())
        }
        Ok(_) => {
            problems.note("OPENAI_BASE_URL", format!("{expected}, got another scheme"));
            None
        }
        Err(error) => {
            problems.note("OPENAI_BASE_URL", format!("{expected}: {error}"));
            None
        }
    }
}
