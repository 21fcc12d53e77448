//! The request for a token (RFC 6749, section 4.4; RFC 8707 for the resource).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::Value;
use url::form_urlencoded;

use super::super::answer;
use super::super::error::HttpError;
use super::assertion;
use super::discovery::{Issuer, MAX_DOCUMENT, PATIENCE};
use crate::config::{AuthMethod, ClientKey, OauthConfig};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What was given.
pub(super) struct Granted {
    pub(super) access_token: String,
    pub(super) lifetime: Option<Duration>,
}

#[derive(Deserialize)]
struct Reply {
    access_token: String,
    #[serde(default)]
    token_type: String,
    /// Seconds; some servers write them as text.
    #[serde(default)]
    expires_in: Value,
}

/// Asks `issuer` for a token.
///
/// # Errors
/// It cannot be asked, or refuses; the text holds its error's code and nothing that was sent.
pub(super) async fn ask(
    config: &OauthConfig,
    issuer: &Issuer,
    http: &reqwest::Client,
) -> Result<Granted, HttpError> {
    let sent = request(config, issuer, http)?.send().await;
    let response = sent.map_err(|error| failed(issuer, &HttpError::network(error).to_string()))?;
    let status = response.status();
    let body = answer::body(response, MAX_DOCUMENT).await;
    let body = body.map_err(|error| failed(issuer, &error.to_string()))?;
    if !status.is_success() {
        return Err(failed(issuer, &refusal(status, &body)));
    }
    let reply: Reply = serde_json::from_slice(&body)
        .map_err(|_error| failed(issuer, "its answer holds no access token"))?;
    if !reply.token_type.is_empty() && !reply.token_type.eq_ignore_ascii_case("bearer") {
        return Err(failed(
            issuer,
            "it gave a token of another type than Bearer",
        ));
    }
    Ok(Granted {
        access_token: reply.access_token,
        lifetime: lifetime(&reply.expires_in),
    })
}

fn failed(issuer: &Issuer, what: &str) -> HttpError {
    HttpError::NoToken(format!("{}: {what}", issuer.place()))
}

fn request(
    config: &OauthConfig,
    issuer: &Issuer,
    http: &reqwest::Client,
) -> Result<reqwest::RequestBuilder, HttpError> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    form.append_pair("resource", &issuer.resource);
    if let Some(scope) = &issuer.scope {
        form.append_pair("scope", scope);
    }
    let mut request = http
        .post(issuer.token_endpoint.clone())
        .timeout(PATIENCE)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    match (method(config, issuer)?, &config.key) {
        (AuthMethod::ClientSecretBasic, ClientKey::Secret(secret)) => {
            let mut value = HeaderValue::from_str(&basic(&config.client_id, secret.expose()))
                .map_err(|_error| failed(issuer, "the credentials cannot be sent in a header"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        (AuthMethod::ClientSecretPost, ClientKey::Secret(secret)) => {
            form.append_pair("client_id", &config.client_id);
            form.append_pair("client_secret", secret.expose());
        }
        (AuthMethod::PrivateKeyJwt, ClientKey::Private(key)) => {
            let name = issuer.name.as_deref();
            let audience = name.unwrap_or(issuer.token_endpoint.as_str());
            let audience = config.audience.as_deref().unwrap_or(audience);
            let signed = assertion::sign(&config.client_id, audience, key);
            form.append_pair("client_assertion_type", ASSERTION_TYPE);
            form.append_pair(
                "client_assertion",
                &signed.map_err(|what| failed(issuer, &what))?,
            );
        }
        // The configuration refuses the other pairs.
        (AuthMethod::ClientSecretBasic | AuthMethod::ClientSecretPost, ClientKey::Private(_))
        | (AuthMethod::PrivateKeyJwt, ClientKey::Secret(_)) => {
            let what = "the kind of key does not fit token_endpoint_auth_method";
            return Err(failed(issuer, what));
        }
    }
    Ok(request.body(form.finish()))
}

/// How the client says who it is: as configured, else as the server wants it.
fn method(config: &OauthConfig, issuer: &Issuer) -> Result<AuthMethod, HttpError> {
    if let Some(method) = config.method {
        return Ok(method);
    }
    let fitting: &[_] = match config.key {
        // The one that every server has to know comes first.
        ClientKey::Secret(_) => &[AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost],
        ClientKey::Private(_) => &[AuthMethod::PrivateKeyJwt],
    };
    let takes = |method: &&AuthMethod| {
        let supported = issuer.methods.as_ref();
        supported.is_none_or(|supported| supported.iter().any(|name| name == method.as_str()))
    };
    fitting.iter().find(takes).copied().ok_or_else(|| {
        let names = issuer.methods.as_deref().unwrap_or_default().join(", ");
        HttpError::NoToken(format!(
            "{} takes none of the configured keys; it wants one of: {names}",
            issuer.place()
        ))
    })
}

fn basic(id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encode(id), encode(secret));
    format!("Basic {}", STANDARD.encode(pair))
}

/// The code of the error (RFC 6749, section 5.2); its description may hold anything.
fn refusal(status: http::StatusCode, body: &[u8]) -> String {
    let body = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let code = body.get("error").and_then(Value::as_str);
    let code = code.filter(|code| {
        code.len() <= 64
            && code
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    });
    match code {
        Some(code) => format!("it refused the client: {code} (HTTP {})", status.as_u16()),
        None => format!("it refused the client (HTTP {})", status.as_u16()),
    }
}

fn lifetime(expires_in: &Value) -> Option<Duration> {
    let secs = expires_in
        .as_f64()
        .or_else(|| expires_in.as_str()?.trim().parse().ok())?;
    Duration::try_from_secs_f64(secs).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn credentials_are_encoded_before_they_are_joined() {
        let joined = STANDARD.encode("a%3Ab:p+%26q");
        assert_eq!(basic("a:b", "p &q"), format!("Basic {joined}"));
    }

    #[test]
    fn a_lifetime_is_read_as_number_and_as_text() {
        let hour = Some(Duration::from_hours(1));
        assert_eq!(lifetime(&json!(3600)), hour);
        assert_eq!(lifetime(&json!("3600")), hour);
        for none in [json!(null), json!(-1), json!("soon"), json!(1e300)] {
            assert_eq!(lifetime(&none), None, "{none}");
        }
    }

    #[test]
    fn only_the_code_of_a_refusal_is_told() {
        let told = |body: &str| refusal(http::StatusCode::UNAUTHORIZED, body.as_bytes());
        let body = r#"{"error": "invalid_client", "error_description": "s3cret"}"#;
        assert_eq!(
            told(body),
            "it refused the client: invalid_client (HTTP 401)"
        );
        assert_eq!(
            told(r#"{"error": "S3CRET"}"#),
            "it refused the client (HTTP 401)"
        );
        assert_eq!(told("s3cret"), "it refused the client (HTTP 401)");
    }
}
