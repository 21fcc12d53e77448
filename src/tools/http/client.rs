//! How requests travel to a tool server.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::super::error::StartError;
use crate::config::HttpConfig;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than servers keep an idle connection (Node: 5 s), so that no request meets its end.
const KEEP_IDLE: Duration = Duration::from_secs(4);

/// The way to one server, shared by all sessions with it.
#[derive(Debug, Default)]
pub(in super::super) struct Endpoint {
    http: OnceLock<reqwest::Client>,
}

impl Endpoint {
    /// The HTTP client: no redirects, which would send headers to another host.
    pub(super) fn http_client(&self) -> Result<reqwest::Client, StartError> {
        if let Some(http) = self.http.get() {
            return Ok(http.clone());
        }
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Somebody else may be quicker; either way there is a provider.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(30))
            .pool_idle_timeout(KEEP_IDLE)
            .user_agent(concat!("chat-worker/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| StartError::Protocol(format!("there is no HTTP client: {error}")))?;
        Ok(self.http.get_or_init(|| http).clone())
    }
}

/// The configured headers; a value that cannot be sent was refused when it was read.
pub(super) fn headers(config: &HttpConfig) -> HashMap<HeaderName, HeaderValue> {
    let headers = config.headers.iter().filter_map(|(name, value)| {
        let mut value = HeaderValue::from_str(value.expose()).ok()?;
        value.set_sensitive(true);
        Some((name.clone(), value))
    });
    headers.collect()
}
