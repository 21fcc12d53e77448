//! `CHAT_MODEL_CONFIG`: a file of TOML with a table for each model, `[models."gpt-5.5"]`.

use std::collections::BTreeMap;
use std::sync::Arc;

use globset::GlobMatcher;
use serde_json::Value;

use super::super::expand::expand;
use super::super::fields::{Fields, escape};
use super::super::{Lookup, Problems, Secret};
use super::profile::{Api, Azure, MaxTokensField, ModelOption, ModelProfile};
use super::provider;
use crate::chat::ReasoningEffort;
use crate::cost::Price;

const SETTING: &str = "CHAT_MODEL_CONFIG";
/// More models than anybody waits for, one after the other.
const MAX_FALLBACKS: usize = 8;

/// What the file says of models.
#[derive(Clone, Debug, Default)]
pub struct Profiles {
    /// By the exact name.
    named: BTreeMap<String, Arc<ModelProfile>>,
    /// By a glob, the longest first.
    globs: Vec<(GlobMatcher, Arc<ModelProfile>)>,
}

impl Profiles {
    /// What is said of `model`: under its own name, else under the longest glob that fits.
    pub(super) fn find(&self, model: &str) -> Option<(&str, &Arc<ModelProfile>)> {
        let named = self.named.get_key_value(model);
        named
            .map(|(name, profile)| (name.as_str(), profile))
            .or_else(|| {
                let glob = self.globs.iter().find(|(glob, _)| glob.is_match(model));
                glob.map(|(glob, profile)| (glob.glob().glob(), profile))
            })
    }

    /// Everything that the file says, by the names and globs that stand in it.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Arc<ModelProfile>)> {
        let globs = self.globs.iter();
        let globs = globs.map(|(glob, profile)| (glob.glob().glob(), profile));
        let named = self.named.iter();
        (named.map(|(name, profile)| (name.as_str(), profile))).chain(globs)
    }

    /// The models that are named in full, or as fallbacks.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let fallbacks = self.all().flat_map(|(_, profile)| &profile.fallbacks);
        self.named.keys().chain(fallbacks).map(String::as_str)
    }

    /// Says `profile` of the model, or the models, that `name` names.
    pub(super) fn insert(
        &mut self,
        name: String,
        profile: Arc<ModelProfile>,
    ) -> Result<(), String> {
        if !name.contains(['*', '?', '[', '{']) {
            self.named.insert(name, profile);
            return Ok(());
        }
        let glob = globset::Glob::new(&name).map_err(|error| error.to_string())?;
        let glob = glob.compile_matcher();
        let length = |glob: &GlobMatcher| glob.glob().glob().len();
        let at = self
            .globs
            .partition_point(|(other, _)| length(other) >= length(&glob));
        self.globs.insert(at, (glob, profile));
        Ok(())
    }
}

/// Reads the file at `path`; `defaults` hold for what it does not say.
pub(super) fn read(
    path: &str,
    defaults: &ModelProfile,
    lookup: Lookup<'_>,
    problems: &mut Problems,
) -> Profiles {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, defaults, lookup, problems),
        Err(error) => {
            problems.note(SETTING, format!("cannot read {path:?}: {error}"));
            Profiles::default()
        }
    }
}

/// Reads the text of the file.
pub(super) fn parse(
    text: &str,
    defaults: &ModelProfile,
    lookup: Lookup<'_>,
    problems: &mut Problems,
) -> Profiles {
    let mut profiles = Profiles::default();
    let root = match toml::from_str::<Value>(text) {
        Ok(root) => root,
        Err(error) => {
            problems.note(SETTING, syntax(text, &error));
            return profiles;
        }
    };
    let mut root = Fields::new(SETTING, String::new(), root, problems);
    let models = match root.take("models") {
        Some(Value::Object(models)) => models,
        Some(_) => {
            root.note(
                "models",
                "expected a table for each model, [models.\"gpt-4o\"]",
            );
            return profiles;
        }
        None => {
            root.note(
                "models",
                "missing: expected a table for each model, [models.\"gpt-4o\"]",
            );
            serde_json::Map::new()
        }
    };
    root.finish();
    for (name, table) in models {
        let pointer = format!("/models/{}", escape(&name));
        let fields = Fields::new(SETTING, pointer.clone(), table, problems);
        let profile = Arc::new(profile(&name, fields, defaults, lookup));
        if let Err(error) = profiles.insert(name, profile) {
            problems.note(SETTING, format!("{pointer}: {error}"));
        }
    }
    profiles
}

/// What is wrong with the file as TOML, without its lines: they may hold secrets.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    format!("line {line} is no TOML: {}", error.message())
}

fn profile(
    name: &str,
    mut fields: Fields<'_>,
    defaults: &ModelProfile,
    lookup: Lookup<'_>,
) -> ModelProfile {
    let provider = server(&mut fields, defaults, lookup);
    let apis = [
        ("auto", Api::Auto),
        ("chat", Api::Chat),
        ("responses", Api::Responses),
    ];
    let max_tokens_fields = [
        ("max_tokens", MaxTokensField::MaxTokens),
        ("max_completion_tokens", MaxTokensField::MaxCompletionTokens),
    ];
    let efforts = [
        ("none", ReasoningEffort::None),
        ("minimal", ReasoningEffort::Minimal),
        ("low", ReasoningEffort::Low),
        ("medium", ReasoningEffort::Medium),
        ("high", ReasoningEffort::High),
        ("xhigh", ReasoningEffort::Xhigh),
    ];
    let most = u64::from(u32::MAX);
    let count = |field, fields: &mut Fields<'_>| {
        (fields.number(field, 1, most)).and_then(|number| u32::try_from(number).ok())
    };
    let profile = ModelProfile {
        provider: Arc::new(provider),
        name: fields.text("name").filter(|name| !name.trim().is_empty()),
        api: fields.choice("api", &apis).unwrap_or(defaults.api),
        context_window: count("context_window", &mut fields),
        max_output_tokens: count("max_output_tokens", &mut fields),
        price: price(&mut fields),
        max_tokens_field: fields.choice("max_tokens_field", &max_tokens_fields),
        drop: dropped(&mut fields),
        reasoning_effort: fields.choice("reasoning_effort", &efforts),
        images: fields.flag("images").unwrap_or(true),
        fallbacks: fallbacks(name, &mut fields),
        requests_per_minute: count("requests_per_minute", &mut fields),
        tokens_per_minute: fields.number("tokens_per_minute", 1, u64::MAX),
    };
    fields.finish();
    profile
}

/// Where the model is asked. A base URL of its own gets nothing of what is meant for the default
/// server: a key must not travel to another one.
fn server(
    fields: &mut Fields<'_>,
    defaults: &ModelProfile,
    lookup: Lookup<'_>,
) -> super::ProviderConfig {
    let own_url = fields
        .text("base_url")
        .and_then(|text| noted(fields, "base_url", provider::base_url(&text, "api_key_env")));
    let mut server = match own_url {
        Some(base_url) => super::ProviderConfig {
            key_variable: "api_key_env in CHAT_MODEL_CONFIG".to_owned(),
            ..super::ProviderConfig::new(base_url, None)
        },
        None => (*defaults.provider).clone(),
    };
    if let Some(variable) = fields.text("api_key_env") {
        server.api_key = noted(fields, "api_key_env", key(&variable, lookup));
        server.key_variable = variable;
    }
    for (field, place) in [
        ("organization", &mut server.organization),
        ("project", &mut server.project),
    ] {
        if let Some(text) = fields.text(field) {
            *place = noted(fields, field, provider::word(&text)).flatten();
        }
    }
    for (name, value) in headers(fields, lookup) {
        server.headers.retain(|(other, _)| *other != name);
        server.headers.push((name, value));
    }
    let told = azure(fields).or_else(|| server.azure.take());
    server.azure = noted(fields, "azure", provider::azure(&server.base_url, told)).flatten();
    if provider::is_openai(&server.base_url) && server.api_key.is_none() {
        fields.note(
            "api_key_env",
            "expected the variable that holds the key; api.openai.com answers nobody without one",
        );
    }
    server
}

fn noted<T>(
    fields: &mut Fields<'_>,
    at: &str,
    read: Result<T, impl std::fmt::Display>,
) -> Option<T> {
    read.map_err(|what| fields.note(at, what)).ok()
}

fn key(variable: &str, lookup: Lookup<'_>) -> Result<Secret, String> {
    let value =
        lookup(variable).ok_or_else(|| format!("the environment has no variable {variable:?}"))?;
    provider::key(&value)
        .map_err(|what| format!("the variable {variable:?} {what}"))?
        .ok_or_else(|| format!("the variable {variable:?} is empty"))
}

fn headers(fields: &mut Fields<'_>, lookup: Lookup<'_>) -> Vec<(String, Secret)> {
    let given = match fields.take("headers") {
        Some(Value::Object(given)) => given,
        Some(_) => {
            fields.note("headers", "expected a table of texts");
            return Vec::new();
        }
        None => return Vec::new(),
    };
    let mut headers = Vec::with_capacity(given.len());
    for (name, value) in given {
        let at = format!("headers/{}", escape(&name));
        let Value::String(value) = value else {
            fields.note(&at, "expected a text");
            continue;
        };
        let header = expand(&value, lookup).and_then(|value| provider::header(&name, &value));
        headers.extend(noted(fields, &at, header));
    }
    headers
}

fn azure(fields: &mut Fields<'_>) -> Option<Azure> {
    let table = fields.take("azure")?;
    let pointer = fields.pointer("azure");
    let mut table = Fields::new(SETTING, pointer, table, fields.problems());
    let [api_version, deployment] = ["api_version", "deployment"].map(|field| {
        let text = table.text(field)?;
        noted(&mut table, field, provider::word(&text)).flatten()
    });
    table.finish();
    Some(Azure {
        api_version,
        deployment,
    })
}

fn price(fields: &mut Fields<'_>) -> Option<Price> {
    let table = fields.take("price")?;
    let pointer = fields.pointer("price");
    let mut table = Fields::new(SETTING, pointer, table, fields.problems());
    let [input, cached_input, output] =
        ["input", "cached_input", "output"].map(|field| (table.has(field), table.amount(field)));
    for (field, (given, _)) in [("input", input), ("output", output)] {
        if !given {
            table.note(field, "missing: expected US dollars for a million tokens");
        }
    }
    table.finish();
    let (input, output) = (input.1?, output.1?);
    Some(Price {
        input,
        cached_input: cached_input.1.unwrap_or(input),
        output,
    })
}

fn dropped(fields: &mut Fields<'_>) -> Vec<ModelOption> {
    let names = fields.texts("drop").unwrap_or_default();
    let mut dropped = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let known = ModelOption::NAMES.iter().find(|(known, _)| known == name);
        let Some((_, option)) = known else {
            let known = ModelOption::NAMES.map(|(known, _)| known).join(", ");
            fields.note(&format!("drop/{index}"), format!("expected one of {known}"));
            continue;
        };
        dropped.push(*option);
    }
    dropped
}

fn fallbacks(model: &str, fields: &mut Fields<'_>) -> Vec<String> {
    let names = fields.texts("fallbacks").unwrap_or_default();
    if names.len() > MAX_FALLBACKS {
        fields.note(
            "fallbacks",
            format!("expected at most {MAX_FALLBACKS} models"),
        );
    }
    for (index, name) in names.iter().enumerate() {
        let at = format!("fallbacks/{index}");
        if name.trim().is_empty() {
            fields.note(&at, "expected the name of a model, got an empty text");
        } else if name == model || names.iter().take(index).any(|other| other == name) {
            fields.note(&at, format!("{name:?} is asked already"));
        }
    }
    names
}
