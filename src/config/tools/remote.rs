//! Tool servers that are reached over HTTP: where they are, and what is sent along.

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use url::{Host, Url};

use super::super::fields::{Fields, escape};
use super::super::{Lookup, Secret};
use super::Transport;
use super::file::expanded;
use super::oauth::{self, OauthConfig};

/// What the protocol itself sends; a header of the same name would break it.
const RESERVED: [&str; 11] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "transfer-encoding",
];
/// What other hosts call the address.
const ALIASES: [&str; 2] = ["httpUrl", "serverUrl"];

/// How a tool server is reached over Streamable HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Its address, whole: `http` or `https`. It may hold a key.
    pub url: Secret,
    /// The address without user, password, query and fragment: fit to be shown.
    pub shown: String,
    /// What is sent along with every request, and to no other host.
    pub headers: Vec<(HeaderName, Secret)>,
    /// How a token for it is got; none: it needs none, or it is among the headers.
    pub oauth: Option<OauthConfig>,
}

impl HttpConfig {
    /// Whether secrets would travel readable over a network.
    #[must_use]
    pub fn tells_secrets_in_clear(&self) -> bool {
        let Ok(url) = Url::parse(self.url.expose()) else {
            return false;
        };
        let keyed = url.query().is_some() || url.password().is_some() || !url.username().is_empty();
        url.scheme() == "http"
            && !is_of_this_machine(&url)
            && (keyed || !self.headers.is_empty() || self.oauth.is_some())
    }
}

/// Whether what is sent to `url` stays on this machine.
fn is_of_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// How a server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stdio,
    Http,
    Gone,
}

/// Whether the server is one over HTTP, from `type` and from which fields there are.
pub(super) fn is_remote(fields: &mut Fields<'_>) -> bool {
    let kinds = [
        ("stdio", Kind::Stdio),
        ("http", Kind::Http),
        ("streamable-http", Kind::Http),
        ("streamableHttp", Kind::Http),
        ("sse", Kind::Gone),
    ];
    let has_url = fields.has("url") || ALIASES.iter().any(|alias| fields.has(alias));
    let (command, kind) = (fields.has("command"), fields.choice("type", &kinds));
    if has_url && command {
        fields.note("command", "stands beside a `url`: expected one of the two");
        fields.take("url");
    }
    match kind {
        Some(Kind::Gone) => {
            fields.note(
                "type",
                "HTTP+SSE was replaced by Streamable HTTP in 2025 and is not spoken here: expected \"http\" and the server's Streamable HTTP address, which often ends in /mcp",
            );
            true
        }
        Some(Kind::Http) => true,
        Some(Kind::Stdio) if has_url && !command => {
            fields.note("type", "a server with a `url` is of the type \"http\"");
            true
        }
        Some(Kind::Stdio) => false,
        None => has_url && !command,
    }
}

/// The address and the headers.
pub(super) fn parse(fields: &mut Fields<'_>, lookup: Lookup<'_>) -> Transport {
    let field = ALIASES
        .into_iter()
        .find(|alias| fields.has(alias) && !fields.has("url"))
        .unwrap_or("url");
    let text = fields.text(field).unwrap_or_default();
    let text = expanded(field, &text, fields, lookup);
    let shown = match shown(&text) {
        Ok(shown) => shown,
        Err(what) => {
            fields.note(field, what);
            String::new()
        }
    };
    for foreign in ["args", "env", "cwd"] {
        if fields.take(foreign).is_some() {
            fields.note(foreign, "belongs to a `command`, not to a `url`");
        }
    }
    let headers = parse_headers(fields, lookup);
    let oauth = oauth::parse(fields, lookup);
    if oauth.is_some() && headers.iter().any(|(name, _)| *name == AUTHORIZATION) {
        fields.note(
            "oauth",
            "stands beside a header `Authorization`: expected one of the two",
        );
    }
    Transport::Http(HttpConfig {
        url: Secret::new(text.trim()),
        shown,
        headers,
        oauth,
    })
}

/// The address as it may be shown.
///
/// # Errors
/// What is wrong with it, in words that hold nothing of it.
fn shown(text: &str) -> Result<String, String> {
    let mut url = Url::parse(text.trim())
        .map_err(|error| format!("expected an address such as https://host/mcp: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("expected an address that begins with https:// or http://".to_owned());
    }
    // An address with a host takes all of these.
    url.set_username("").ok();
    url.set_password(None).ok();
    url.set_query(None);
    url.set_fragment(None);
    Ok(url.to_string())
}

fn parse_headers(fields: &mut Fields<'_>, lookup: Lookup<'_>) -> Vec<(HeaderName, Secret)> {
    let Some(value) = fields.take("headers") else {
        return Vec::new();
    };
    let Value::Object(members) = value else {
        fields.note("headers", "expected an object of texts");
        return Vec::new();
    };
    let mut headers: Vec<(HeaderName, Secret)> = Vec::new();
    for (name, value) in members {
        let at = format!("headers/{}", escape(&name));
        let Value::String(text) = value else {
            fields.note(&at, "expected a text");
            continue;
        };
        let text = expanded(&at, &text, fields, lookup);
        match header(&name, &text) {
            Ok(name) if headers.iter().any(|(other, _)| *other == name) => {
                fields.note(&at, "stands there twice; case does not count");
            }
            Ok(name) => headers.push((name, Secret::new(text))),
            Err(what) => fields.note(&at, what),
        }
    }
    headers
}

/// The name, if both it and the value can be sent.
fn header(name: &str, value: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_error| "no name of a header".to_owned())?;
    if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("mcp-param-") {
        return Err("the protocol itself sets this header".to_owned());
    }
    HeaderValue::from_str(value)
        .map_err(|_error| "its value cannot be sent in a header".to_owned())?;
    Ok(name)
}
