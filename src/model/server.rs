//! A model server: where it is, and what every request to it carries.

use std::sync::Arc;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::traits::RequestOptionsBuilder as _;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;

use super::error::{ModelError, Refusal};
use super::transport::Transport;
use crate::config::ProviderConfig;

/// Which of OpenAI's APIs is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Chat Completions.
    Completions,
    /// Responses.
    Responses,
}

/// Where answers are asked for over Responses, below the base URL.
const RESPONSES: &str = "/responses";

impl Dialect {
    /// The API that is spoken at this path.
    pub(super) fn of(path: &str) -> Self {
        if path.ends_with(RESPONSES) {
            Self::Responses
        } else {
            Self::Completions
        }
    }
}

/// A model server.
pub(super) struct Server {
    pub(super) config: Arc<ProviderConfig>,
    pub(super) transport: Transport,
    pub(super) client: Client<OpenAIConfig>,
    /// Whether it is OpenAI's own, or Azure's.
    pub(super) is_openais: bool,
}

impl Server {
    /// The server, over the connections of `http`. Nothing is sent.
    ///
    /// # Errors
    /// A key or a header that no HTTP header can carry.
    pub(super) fn new(
        http: &reqwest::Client,
        config: Arc<ProviderConfig>,
    ) -> Result<Self, ModelError> {
        // Everything is set, so that no variable of the environment gets a say. The key is put in by
        // the transport, which marks it as not to be shown.
        let openai = OpenAIConfig::new()
            .with_api_base(config.base_url.trim_end_matches('/'))
            .with_api_key("")
            .with_org_id("")
            .with_project_id("");
        let transport = Transport::new(http.clone(), headers(&config)?);
        let client = Client::build(http.clone(), openai).with_http_service(transport.clone());
        let is_openais = config.is_openai() || config.azure.is_some();
        Ok(Self {
            config,
            transport,
            client,
            is_openais,
        })
    }

    /// The dialect that its newest models want.
    pub(super) fn dialect(&self) -> Dialect {
        // At a resource's own address deployments have Chat Completions alone.
        if self.is_openais && !self.is_resource() {
            Dialect::Responses
        } else {
            Dialect::Completions
        }
    }

    /// Sends `request` to `model` and brings its reply.
    ///
    /// # Errors
    /// What the transport says, in a [`super::transport::Failed`].
    pub(super) async fn ask(
        client: &Client<OpenAIConfig>,
        (dialect, path): (Dialect, String),
        request: impl Serialize,
    ) -> Result<Box<RawValue>, OpenAIError> {
        match dialect {
            Dialect::Completions => client.chat().path(path)?.create_byot(request).await,
            Dialect::Responses => client.responses().path(path)?.create_byot(request).await,
        }
    }

    /// Where `model` is asked, below the base URL.
    pub(super) fn path(&self, dialect: Dialect, model: &str) -> String {
        let azure = self.config.azure.as_ref();
        let deployment = azure.and_then(|azure| azure.deployment.as_deref());
        let deployment = deployment.unwrap_or(model);
        match dialect {
            Dialect::Completions if self.is_resource() => {
                let deployment = segment(deployment);
                self.below(&format!("/deployments/{deployment}/chat/completions"))
            }
            Dialect::Completions => self.below("/chat/completions"),
            Dialect::Responses => self.below(RESPONSES),
        }
    }

    /// Where its models are listed.
    pub(super) fn listing(&self) -> String {
        let base = self.config.base_url.trim_end_matches('/');
        format!("{base}{}", self.below("/models"))
    }

    /// Whether the base URL is the own address of a resource of Azure, with the older ways.
    pub(super) fn is_resource(&self) -> bool {
        self.config.azure.is_some() && !self.config.base_url.ends_with("/v1")
    }

    fn below(&self, path: &str) -> String {
        let prefix = if self.is_resource() && !self.config.base_url.ends_with("/openai") {
            "/openai"
        } else {
            ""
        };
        let azure = self.config.azure.as_ref();
        match azure.and_then(|azure| azure.api_version.as_ref()) {
            Some(version) => format!("{prefix}{path}?api-version={version}"),
            None => format!("{prefix}{path}"),
        }
    }

    /// Takes everything that is secret out of what a provider may have repeated, and names the
    /// settings that this server has in the advice.
    pub(super) fn clean(&self, refusal: Refusal) -> Refusal {
        let key = self.config.api_key.iter();
        // A word as short as that may stand in any sentence.
        let headers = self.config.headers.iter().map(|(_, value)| value);
        let headers = headers.filter(|value| value.expose().len() >= 8);
        let refusal =
            (key.chain(headers)).fold(refusal, |refusal, secret| refusal.without(secret.expose()));
        refusal.advising(&self.config)
    }
}

/// `text` as one part of a path.
fn segment(text: &str) -> String {
    let Ok(mut url) = url::Url::parse("http://server/") else {
        return text.to_owned();
    };
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().push(text);
    }
    url.path().trim_start_matches('/').to_owned()
}

/// What every request carries, marked as not to be shown.
fn headers(config: &ProviderConfig) -> Result<HeaderMap, ModelError> {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, value: &str, from: &str| {
        let mut value = HeaderValue::try_from(value).map_err(|error| {
            ModelError::Client(format!("{from} fits into no HTTP header: {error}"))
        })?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok::<_, ModelError>(())
    };
    if let Some(key) = &config.api_key {
        let (key, from) = (key.expose(), &config.key_variable);
        if config.azure.is_some() {
            put(HeaderName::from_static("api-key"), key, from)?;
        } else {
            put(AUTHORIZATION, &format!("Bearer {key}"), from)?;
        }
    }
    for (name, value) in [
        ("openai-organization", &config.organization),
        ("openai-project", &config.project),
    ] {
        if let Some(value) = value {
            put(HeaderName::from_static(name), value, name)?;
        }
    }
    for (name, value) in &config.headers {
        let header = HeaderName::try_from(name).map_err(|error| {
            ModelError::Client(format!("{name:?} is no name of an HTTP header: {error}"))
        })?;
        put(header, value.expose(), name)?;
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Azure, Secret};

    fn server(base_url: &str, azure: Option<Azure>) -> Server {
        let config = ProviderConfig {
            azure,
            ..ProviderConfig::new(base_url, Some(Secret::new("k")))
        };
        let http = super::super::transport::http_client().unwrap();
        Server::new(&http, Arc::new(config)).unwrap()
    }

    fn azure(api_version: Option<&str>, deployment: Option<&str>) -> Azure {
        Azure {
            api_version: api_version.map(str::to_owned),
            deployment: deployment.map(str::to_owned),
        }
    }

    #[test]
    fn each_server_has_its_addresses_and_its_header_for_the_key() {
        use Dialect::{Completions, Responses};
        let resource = "https://res.openai.azure.com";
        for (server, header, dialect, chat, responses, models) in [
            (
                server("https://llm.example.com/v1", None),
                "authorization",
                Completions,
                "/chat/completions",
                "/responses",
                "https://llm.example.com/v1/models",
            ),
            (
                server("https://api.openai.com/v1/", None),
                "authorization",
                Responses,
                "/chat/completions",
                "/responses",
                "https://api.openai.com/v1/models",
            ),
            (
                server(
                    "https://res.openai.azure.com/openai/v1",
                    Some(azure(None, None)),
                ),
                "api-key",
                Responses,
                "/chat/completions",
                "/responses",
                "https://res.openai.azure.com/openai/v1/models",
            ),
            (
                server(
                    "https://res.openai.azure.com/openai/v1",
                    Some(azure(Some("preview"), None)),
                ),
                "api-key",
                Responses,
                "/chat/completions?api-version=preview",
                "/responses?api-version=preview",
                "https://res.openai.azure.com/openai/v1/models?api-version=preview",
            ),
            (
                server(resource, Some(azure(Some("2024-10-21"), None))),
                "api-key",
                Completions,
                "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
                "/openai/responses?api-version=2024-10-21",
                "https://res.openai.azure.com/openai/models?api-version=2024-10-21",
            ),
            (
                server(
                    "https://res.openai.azure.com/openai",
                    Some(azure(Some("v"), Some("my/deployment"))),
                ),
                "api-key",
                Completions,
                "/deployments/my%2Fdeployment/chat/completions?api-version=v",
                "/responses?api-version=v",
                "https://res.openai.azure.com/openai/models?api-version=v",
            ),
        ] {
            assert_eq!(server.dialect(), dialect, "{models}");
            assert_eq!(server.path(Completions, "gpt-4o"), chat);
            assert_eq!(server.path(Responses, "gpt-4o"), responses);
            assert_eq!(server.listing(), models);
            let headers = headers(&server.config).unwrap();
            let key = headers.get(header).unwrap();
            assert!(key.is_sensitive() && headers.len() == 1, "{headers:?}");
        }
    }
}
