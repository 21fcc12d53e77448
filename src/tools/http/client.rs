//! How requests get to a tool server.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::redirect;

use super::error::{HttpError, chain};
use super::oauth::Tokens;
use crate::config::HttpConfig;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than servers keep an idle connection (Node: 5 s), so that no request meets its end.
const KEEP_IDLE: Duration = Duration::from_secs(4);
/// How long sent bytes may stay without a word from the other side's system.
const UNHEARD: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 5;

/// The way to one server, shared by all sessions with it.
#[derive(Debug, Default)]
pub(in super::super) struct Endpoint {
    http: OnceLock<reqwest::Client>,
    tokens: OnceLock<Arc<Tokens>>,
}

impl Endpoint {
    /// The HTTP client.
    pub(super) fn http_client(&self) -> Result<reqwest::Client, HttpError> {
        if let Some(http) = self.http.get() {
            return Ok(http.clone());
        }
        let http = build(redirects())?;
        Ok(self.http.get_or_init(|| http).clone())
    }

    /// Where tokens come from, if the server wants any.
    pub(super) fn tokens(&self, config: &HttpConfig) -> Option<Arc<Tokens>> {
        let oauth = config.oauth.as_ref()?;
        let tokens = || Arc::new(Tokens::new(oauth.clone(), &config.shown));
        Some(Arc::clone(self.tokens.get_or_init(tokens)))
    }
}

fn build(redirects: redirect::Policy) -> Result<reqwest::Client, HttpError> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may be quicker; either way there is a provider.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
    reqwest::Client::builder()
        .redirect(redirects)
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(UNHEARD)
        .pool_idle_timeout(KEEP_IDLE)
        .user_agent(concat!("chat-worker/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| HttpError::Unreachable(chain(&error)))
}

/// Only those that keep method, body and origin, as frameworks answer for a slash too many or too
/// few: another host is not to get what was meant for this one.
fn redirects() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let keeps_body = matches!(
            attempt.status(),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        );
        let first = attempt.previous().first();
        let same_origin = first.is_some_and(|first| first.origin() == attempt.url().origin());
        if keeps_body && same_origin && attempt.previous().len() <= MAX_REDIRECTS {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

/// The configured headers; a value that cannot be sent was refused when it was read.
pub(super) fn headers(config: &HttpConfig) -> HeaderMap {
    let headers = config.headers.iter().filter_map(|(name, value)| {
        let mut value = HeaderValue::from_str(value.expose()).ok()?;
        value.set_sensitive(true);
        Some((name.clone(), value))
    });
    headers.collect()
}
