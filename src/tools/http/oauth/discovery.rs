//! Who gives tokens for a tool server: protected resource metadata (RFC 9728), then authorization
//! server metadata (RFC 8414, `OpenID` Connect Discovery).

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::{Host, Url};

use super::super::answer;
use super::super::challenge::parameter;
use super::super::error::HttpError;
use crate::config::OauthConfig;

/// How long one look may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of a document that are read.
pub(super) const MAX_DOCUMENT: usize = 256 * 1024;

/// An authorization server.
#[derive(Clone, Debug)]
pub(super) struct Issuer {
    /// Its name; none where only its token endpoint is configured.
    pub(super) name: Option<String>,
    pub(super) token_endpoint: Url,
    /// How a client may say who it is; none: not said.
    pub(super) methods: Option<Vec<String>>,
    /// What the token is asked for.
    pub(super) scope: Option<String>,
    /// The tool server as it calls itself.
    pub(super) resource: String,
}

impl Issuer {
    /// What it is known by.
    pub(super) fn place(&self) -> String {
        let name = self.name.as_deref();
        name.unwrap_or(self.token_endpoint.as_str()).to_owned()
    }

    /// Whether it is at another place than the tool server.
    pub(super) fn is_strange(&self, server: &str) -> bool {
        Url::parse(server).is_ok_and(|server| server.origin() != self.token_endpoint.origin())
    }
}

#[derive(Debug, Deserialize)]
struct Published {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
    #[serde(default)]
    scopes_supported: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    issuer: String,
    token_endpoint: Option<String>,
    grant_types_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// Who gives tokens for `server`, by what is configured, by what its refusal says, or by what it
/// publishes. None: it says nothing about that.
///
/// # Errors
/// What is said cannot be used, or not be trusted.
pub(super) async fn find(
    config: &OauthConfig,
    server: &str,
    http: &reqwest::Client,
    challenge: Option<&str>,
) -> Result<Option<Issuer>, HttpError> {
    let server = Url::parse(server).map_err(|error| unusable(server, &error.to_string()))?;
    let look = Look { http, server };
    let scope = config.scope.clone();
    let scope = scope.or_else(|| parameter(challenge?, "scope"));
    if let Some(endpoint) = &config.token_endpoint {
        return Ok(Some(Issuer {
            name: config.issuer.clone(),
            token_endpoint: parse(endpoint)?,
            methods: None,
            scope,
            resource: look.server.to_string(),
        }));
    }
    if let Some(issuer) = &config.issuer {
        let metadata = look.metadata(&parse(issuer)?, issuer).await?;
        let found = metadata.ok_or_else(|| unusable(issuer, "it publishes no metadata"))?;
        return look
            .issuer(found, scope, look.server.to_string(), true)
            .map(Some);
    }
    if let Some(resource) = look.resource(challenge).await? {
        let Some(name) = resource.authorization_servers.first() else {
            return Err(unusable(
                &resource.resource,
                "it names no authorization server",
            ));
        };
        let metadata = look.metadata(&trusted(&look.server, name)?, name).await?;
        let found = metadata.ok_or_else(|| unusable(name, "it publishes no metadata"))?;
        let supported = Some(resource.scopes_supported.join(" ")).filter(|scope| !scope.is_empty());
        return look
            .issuer(found, scope.or(supported), resource.resource, false)
            .map(Some);
    }
    // Before there was resource metadata, a tool server was its own authorization server.
    let origin = look.server.origin().ascii_serialization();
    let own = look.metadata(&parse(&origin)?, &origin).await?;
    let own = own.map(|found| look.issuer(found, scope, look.server.to_string(), false));
    own.transpose()
}

fn parse(url: &str) -> Result<Url, HttpError> {
    Url::parse(url).map_err(|error| unusable(url, &error.to_string()))
}

/// A look around for one tool server.
struct Look<'a> {
    http: &'a reqwest::Client,
    server: Url,
}

impl Look<'_> {
    /// What the tool server says of itself.
    async fn resource(&self, challenge: Option<&str>) -> Result<Option<Published>, HttpError> {
        let named = challenge.and_then(|challenge| parameter(challenge, "resource_metadata"));
        if let Some(named) = named {
            let url = self.server.join(&named);
            let url = url.map_err(|error| unusable(&named, &error.to_string()))?;
            let url = trusted(&self.server, url.as_str())?;
            let found = self.document::<Published>(&url).await?;
            let found = found.ok_or_else(|| unusable(url.as_str(), "it is not there"))?;
            check(&self.server, &found)?;
            return Ok(Some(found));
        }
        for url in well_known(&self.server, "oauth-protected-resource") {
            if let Some(found) = self.document::<Published>(&url).await? {
                check(&self.server, &found)?;
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The metadata of the authorization server `name`.
    async fn metadata(&self, url: &Url, name: &str) -> Result<Option<Metadata>, HttpError> {
        let mut places = well_known(url, "oauth-authorization-server");
        // Its metadata is at the issuer's own path; only OpenID Connect puts the path in front, too.
        places.truncate(1);
        places.extend(well_known(url, "openid-configuration").into_iter().take(1));
        let path = url.path().trim_end_matches('/');
        if !path.is_empty() {
            let mut last = url.clone();
            last.set_path(&format!("{path}/.well-known/openid-configuration"));
            places.push(last);
        }
        for place in places {
            let Some(found) = self.document::<Metadata>(&place).await? else {
                continue;
            };
            // Else one server could speak for another (RFC 8414, section 3.3).
            if found.issuer.trim_end_matches('/') != name.trim_end_matches('/') {
                return Err(unusable(
                    place.as_str(),
                    &format!("it speaks for {:?} and not for {name:?}", found.issuer),
                ));
            }
            return Ok(Some(found));
        }
        Ok(None)
    }

    fn issuer(
        &self,
        found: Metadata,
        scope: Option<String>,
        resource: String,
        configured: bool,
    ) -> Result<Issuer, HttpError> {
        let name = found.issuer;
        if let Some(grants) = found.grant_types_supported
            && !grants.iter().any(|grant| grant == "client_credentials")
        {
            return Err(HttpError::NoToken(format!(
                "the authorization server {name} gives tokens to people only (grant types: {}); nobody can sign in here: use one that allows client_credentials, or put a token in \"headers\"",
                grants.join(", ")
            )));
        }
        let endpoint = found
            .token_endpoint
            .ok_or_else(|| unusable(&name, "it has no token endpoint"))?;
        let token_endpoint = if configured {
            parse(&endpoint)?
        } else {
            trusted(&self.server, &endpoint)?
        };
        Ok(Issuer {
            name: Some(name),
            token_endpoint,
            methods: found.token_endpoint_auth_methods_supported,
            scope,
            resource,
        })
    }

    /// A JSON document; none where there is none.
    async fn document<T: DeserializeOwned>(&self, url: &Url) -> Result<Option<T>, HttpError> {
        let sent = self.http.get(url.clone()).timeout(PATIENCE).send().await;
        let response =
            sent.map_err(|error| unusable(url.as_str(), &HttpError::network(error).to_string()))?;
        let status = response.status();
        if status.is_server_error() {
            return Err(unusable(url.as_str(), &format!("HTTP {status}")));
        }
        if !status.is_success() {
            return Ok(None);
        }
        let body = answer::body(response, MAX_DOCUMENT).await?;
        // Some servers answer every address with a page.
        Ok(serde_json::from_slice(&body).ok())
    }
}

/// A token for another server is none for this one, and may be meant to be stolen.
fn check(server: &Url, found: &Published) -> Result<(), HttpError> {
    let resource = parse(&found.resource)?;
    let rest = server
        .path()
        .strip_prefix(resource.path().trim_end_matches('/'));
    let covers = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if resource.origin() == server.origin() && covers {
        Ok(())
    } else {
        let what = "it is another server's resource metadata";
        Err(unusable(&found.resource, what))
    }
}

/// An address that was not configured but said by somebody else: nothing goes there unencrypted,
/// but on this machine where the tool server is on it, too.
fn trusted(server: &Url, url: &str) -> Result<Url, HttpError> {
    let parsed = parse(url)?;
    let local = is_local(&parsed) && is_local(server);
    match parsed.scheme() {
        "https" => Ok(parsed),
        "http" if local => Ok(parsed),
        _ => Err(unusable(url, "expected an https address")),
    }
}

/// The places of a document about `url`: with its path, and for its whole host.
fn well_known(url: &Url, document: &str) -> Vec<Url> {
    let path = url.path().trim_end_matches('/');
    let mut places = vec![format!("/.well-known/{document}{path}")];
    if !path.is_empty() {
        places.push(format!("/.well-known/{document}"));
    }
    let place = |path: String| {
        let mut place = url.clone();
        place.set_path(&path);
        place.set_query(None);
        place.set_fragment(None);
        place
    };
    places.into_iter().map(place).collect()
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn unusable(url: &str, what: &str) -> HttpError {
    HttpError::NoToken(format!("{url}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_looked_for_with_the_path_and_without() {
        let places = |url: &str| {
            let url = Url::parse(url).unwrap();
            let places = well_known(&url, "oauth-protected-resource");
            places
                .iter()
                .map(|place| place.path().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            places("https://h/a/mcp?key=1"),
            [
                "/.well-known/oauth-protected-resource/a/mcp",
                "/.well-known/oauth-protected-resource"
            ]
        );
        assert_eq!(
            places("https://h/"),
            ["/.well-known/oauth-protected-resource"]
        );
    }

    #[test]
    fn what_others_name_is_trusted_only_where_nobody_can_listen() {
        let trusts = |server: &str, url: &str| trusted(&parse(server).unwrap(), url).is_ok();
        assert!(trusts("https://h/mcp", "https://sso.example/"));
        assert!(trusts("http://127.0.0.1:1/mcp", "http://localhost:2/"));
        assert!(!trusts("https://h/mcp", "http://127.0.0.1/"));
        assert!(!trusts("https://h/mcp", "http://sso.example/"));
        assert!(!trusts("https://h/mcp", "file:///etc/passwd"));
    }

    #[test]
    fn resource_metadata_is_of_this_server_or_of_a_path_above_it() {
        let server = parse("https://h/a/mcp").unwrap();
        let covers = |resource: &str| {
            let found = Published {
                resource: resource.to_owned(),
                authorization_servers: Vec::new(),
                scopes_supported: Vec::new(),
            };
            check(&server, &found).is_ok()
        };
        for own in [
            "https://h/a/mcp",
            "https://h/a/",
            "https://h/a",
            "https://h",
        ] {
            assert!(covers(own), "{own}");
        }
        for other in [
            "https://h/b",
            "https://h/a/m",
            "https://other/a/mcp",
            "http://h/a/mcp",
        ] {
            assert!(!covers(other), "{other}");
        }
    }
}
