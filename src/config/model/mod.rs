//! Which models there are and how they are reached: the settings, and the file that they may name.

mod file;
mod profile;
mod provider;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Lookup, Problems, Secret};
pub use file::Profiles;
pub use profile::{Api, Azure, MaxTokensField, ModelOption, ModelProfile, ProviderConfig};

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
    /// The organisation that asks (the header OpenAI-Organization)
    #[arg(long, env = "OPENAI_ORG_ID", value_name = "ID")]
    openai_org_id: Option<String>,
    /// The project that asks (the header OpenAI-Project)
    #[arg(long, env = "OPENAI_PROJECT_ID", value_name = "ID")]
    openai_project_id: Option<String>,
    /// Headers of each request: NAME=VALUE, comma-separated
    #[arg(
        long,
        env = "OPENAI_HEADERS",
        value_name = "HEADERS",
        hide_env_values = true
    )]
    openai_headers: Option<String>,
    /// Azure's api-version, where `OPENAI_BASE_URL` is a resource of Azure
    #[arg(long, env = "OPENAI_API_VERSION", value_name = "VERSION")]
    openai_api_version: Option<String>,
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
    /// A TOML file with what is particular to models: server, API, window, price, limits, fallbacks
    #[arg(long, env = "CHAT_MODEL_CONFIG", value_name = "FILE")]
    chat_model_config: Option<String>,
    /// Which OpenAI API is spoken: `auto` takes Responses at OpenAI's and Azure's hosts, Chat Completions elsewhere
    #[arg(
        long,
        env = "CHAT_API",
        value_name = "auto|chat|responses",
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
    /// Has every answer come piece by piece, also of jobs that do not ask for it
    #[arg(
        long,
        env = "CHAT_MODEL_STREAM",
        value_name = "true|false",
        default_value = "false"
    )]
    chat_model_stream: String,
    /// Seconds that an answer which comes piece by piece may pause
    #[arg(
        long,
        env = "CHAT_MODEL_IDLE_SECS",
        value_name = "SECONDS",
        default_value = "60"
    )]
    chat_model_idle_secs: String,
}

/// Which models there are and how they are reached.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// The model of jobs that name none.
    pub default_model: String,
    /// The models that jobs may name; empty: any.
    pub allowed_models: Vec<String>,
    /// How long one model call may take.
    pub timeout: Duration,
    /// Whether every answer comes piece by piece.
    pub stream: bool,
    /// How long such an answer may pause.
    pub idle: Duration,
    /// What holds for a model that the file does not name.
    pub defaults: Arc<ModelProfile>,
    /// What the file says.
    pub profiles: Profiles,
}

impl ModelConfig {
    /// The configuration without a file.
    #[must_use]
    pub fn new(
        default_model: impl Into<String>,
        defaults: ModelProfile,
        timeout: Duration,
    ) -> Self {
        Self {
            default_model: default_model.into(),
            allowed_models: Vec::new(),
            timeout,
            stream: false,
            idle: Duration::from_mins(1),
            defaults: Arc::new(defaults),
            profiles: Profiles::default(),
        }
    }

    /// The same, and a file that says all this of `model`.
    #[must_use]
    pub fn with(mut self, model: impl Into<String>, profile: ModelProfile) -> Self {
        // A glob that cannot be read names no model.
        drop(self.profiles.insert(model.into(), Arc::new(profile)));
        self
    }

    /// The same, with `text` as its file.
    ///
    /// # Errors
    /// Every problem of the file, each with its place.
    pub fn with_file(mut self, text: &str, lookup: Lookup<'_>) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        self.profiles = file::parse(text, &self.defaults, lookup, &mut problems);
        problems.none_or(|| Some(self))
    }

    /// Whether a job may name `model`.
    #[must_use]
    pub fn allows(&self, model: &str) -> bool {
        self.allowed_models.is_empty() || self.allowed_models.iter().any(|name| name == model)
    }

    /// What is known about `model`: what the file says under its name, else under the longest glob
    /// that fits, else what holds for all.
    #[must_use]
    pub fn profile(&self, model: &str) -> &Arc<ModelProfile> {
        (self.profiles.find(model)).map_or(&self.defaults, |(_, profile)| profile)
    }

    /// The name or glob under which the file speaks of `model`: what its limits are kept under. Models
    /// that share a glob share its limits.
    #[must_use]
    pub fn entry(&self, model: &str) -> Option<&str> {
        self.profiles.find(model).map(|(entry, _)| entry)
    }

    /// Everything that the file says, by the names and globs that stand in it.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Arc<ModelProfile>)> {
        self.profiles.all()
    }

    /// The servers that models are asked at, the default one first; some may be the same.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<ProviderConfig>> {
        let all = std::iter::once(&self.defaults).chain(self.entries().map(|(_, profile)| profile));
        all.map(|profile| &profile.provider)
    }

    /// The widest context of the models that a worker may be asked for, in tokens; none if that of one
    /// of them is not known. `context_tokens` is that of models of which nothing else is known.
    #[must_use]
    pub fn widest_context(&self, context_tokens: Option<u32>) -> Option<u32> {
        let known = self
            .profiles
            .all()
            .map(|(_, profile)| profile.context_window.or(context_tokens));
        known
            .chain([context_tokens])
            .try_fold(0, |widest, tokens| Some(tokens?.max(widest)))
    }

    /// The models that are known by name: the default one, the allowed ones, those of the file and
    /// their fallbacks.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        let allowed = self.allowed_models.iter().map(String::as_str);
        let named = self.profiles.names().filter(|name| self.allows(name));
        let fallbacks = (allowed.clone().chain([self.default_model.as_str()]))
            .flat_map(|name| self.profile(name).fallbacks.iter().map(String::as_str));
        (allowed.chain([self.default_model.as_str()]))
            .chain(fallbacks)
            .chain(named)
            .collect()
    }
}

impl ModelSettings {
    /// The settings checked; problems are noted.
    pub fn parse(&self, lookup: Lookup<'_>, problems: &mut Problems) -> Option<ModelConfig> {
        let provider = self.provider(problems);
        let apis = [
            ("auto", Api::Auto),
            ("chat", Api::Chat),
            ("responses", Api::Responses),
        ];
        let api = problems.choice("CHAT_API", &self.chat_api, &apis);
        let timeout = problems.number(
            "CHAT_MODEL_TIMEOUT_SECS",
            &self.chat_model_timeout_secs,
            1,
            86_400,
        );
        let stream = problems.choice(
            "CHAT_MODEL_STREAM",
            &self.chat_model_stream,
            &[("true", true), ("false", false)],
        );
        let idle = problems.number(
            "CHAT_MODEL_IDLE_SECS",
            &self.chat_model_idle_secs,
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
        let defaults = ModelProfile {
            api: api.unwrap_or_default(),
            ..ModelProfile::at(provider.unwrap_or_default())
        };
        let path = self.chat_model_config.as_deref().unwrap_or_default().trim();
        let profiles = if path.is_empty() {
            Profiles::default()
        } else {
            file::read(path, &defaults, lookup, problems)
        };
        Some(ModelConfig {
            default_model,
            allowed_models,
            timeout: Duration::from_secs(timeout?),
            stream: stream?,
            idle: Duration::from_secs(idle?),
            defaults: Arc::new(defaults),
            profiles,
        })
    }

    /// The server of models that the file does not send elsewhere.
    fn provider(&self, problems: &mut Problems) -> Option<ProviderConfig> {
        let base_url = provider::base_url(&self.openai_base_url, "OPENAI_API_KEY");
        let base_url = noted(problems, "OPENAI_BASE_URL", base_url);
        let api_key = self.parse_key(base_url.as_deref(), problems);
        let mut read = |setting, text: &Option<String>| {
            let word = provider::word(text.as_deref().unwrap_or_default());
            noted(problems, setting, word).flatten()
        };
        let organization = read("OPENAI_ORG_ID", &self.openai_org_id);
        let project = read("OPENAI_PROJECT_ID", &self.openai_project_id);
        let api_version = read("OPENAI_API_VERSION", &self.openai_api_version);
        let headers = self.parse_headers(problems);
        let base_url = base_url?;
        let told = api_version.map(|api_version| Azure {
            api_version: Some(api_version),
            deployment: None,
        });
        let azure = provider::azure(&base_url, told);
        Some(ProviderConfig {
            organization,
            project,
            headers,
            azure: noted(problems, "OPENAI_API_VERSION", azure)?,
            ..ProviderConfig::new(base_url, api_key)
        })
    }

    fn parse_key(&self, base_url: Option<&str>, problems: &mut Problems) -> Option<Secret> {
        let key = provider::key(self.openai_api_key.as_deref().unwrap_or_default());
        let key = noted(problems, "OPENAI_API_KEY", key)?;
        if key.is_none() && base_url.is_some_and(provider::is_openai) {
            problems.note(
                "OPENAI_API_KEY",
                "expected a key, got none; api.openai.com answers nobody without one (for a server that needs no key set OPENAI_BASE_URL)",
            );
        }
        key
    }

    fn parse_headers(&self, problems: &mut Problems) -> Vec<(String, Secret)> {
        let text = self.openai_headers.as_deref().unwrap_or_default();
        let given = text
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty());
        given
            .filter_map(|pair| {
                let header = pair
                    .split_once('=')
                    .ok_or_else(|| "expected NAME=VALUE, comma-separated".to_owned())
                    .and_then(|(name, value)| provider::header(name, value));
                noted(problems, "OPENAI_HEADERS", header)
            })
            .collect()
    }
}

fn noted<T>(
    problems: &mut Problems,
    setting: &str,
    read: Result<T, impl std::fmt::Display>,
) -> Option<T> {
    read.map_err(|what| problems.note(setting, what)).ok()
}
