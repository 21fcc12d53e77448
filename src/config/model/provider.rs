//! Reading where a model server is and who asks it, wherever that is set.

use http::{HeaderName, HeaderValue};
use url::Url;

use super::super::Secret;
use super::profile::Azure;

/// The hosts at which a key goes into `api-key`.
const AZURE_DOMAINS: [&str; 3] = [
    ".openai.azure.com",
    ".cognitiveservices.azure.com",
    ".services.ai.azure.com",
];

/// Headers that are not for settings to choose: they belong to the connection and to the body.
const OURS: [&str; 6] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
];

/// What is found below a base URL, and is at times given in its place.
const ENDPOINTS: [&str; 3] = ["/chat/completions", "/v1/completions", "/v1/responses"];

/// A base URL without a slash at its end.
///
/// # Errors
/// What is wrong with it. `key` is where a key belongs.
pub(super) fn base_url(text: &str, key: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('/');
    let expected = "expected a URL like https://api.openai.com/v1";
    match Url::parse(text) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Err(format!("must not hold a user or a password; use {key}"))
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Err("must end with its path, without `?` or `#`".to_owned())
        }
        Ok(url) if ENDPOINTS.iter().any(|end| url.path().ends_with(end)) => Err(
            "must be the address below which the API is, without /chat/completions or /responses"
                .to_owned(),
        ),
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Ok(text.to_owned())
        }
        Ok(_) => Err(format!("{expected}, got another scheme")),
        Err(error) => Err(format!("{expected}: {error}")),
    }
}

/// A key without the line break that a mounted file ends in; none of an empty text.
///
/// # Errors
/// What is wrong with it, in words that do not show it.
pub(super) fn key(text: &str) -> Result<Option<Secret>, &'static str> {
    let key = text.trim();
    // A header cannot carry anything else; the client library would panic on it at every call.
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has characters that no HTTP header can carry");
    }
    Ok((!key.is_empty()).then(|| Secret::new(key)))
}

/// A header that every request of a provider carries.
///
/// # Errors
/// What is wrong with it, in words that do not show its value.
pub(super) fn header(name: &str, value: &str) -> Result<(String, Secret), String> {
    let name = HeaderName::try_from(name.trim())
        .map_err(|_invalid| "expected the name of an HTTP header".to_owned())?;
    if OURS.contains(&name.as_str()) {
        return Err("this header is not for settings to choose".to_owned());
    }
    let value = value.trim();
    HeaderValue::try_from(value)
        .map_err(|_invalid| "its value has characters that no HTTP header can carry".to_owned())?;
    Ok((name.as_str().to_owned(), Secret::new(value)))
}

/// A text that goes into a header or an address as it is.
///
/// # Errors
/// What was expected.
pub(super) fn word(text: &str) -> Result<Option<String>, &'static str> {
    let text = text.trim();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("expected letters, digits and signs of ASCII, without blanks");
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Azure's ways, where the host is Azure's or something was said about them.
///
/// # Errors
/// A resource's own address without a version.
pub(super) fn azure(base_url: &str, told: Option<Azure>) -> Result<Option<Azure>, &'static str> {
    let url = Url::parse(base_url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    let at_home = AZURE_DOMAINS.iter().any(|domain| host.ends_with(domain));
    let azure = match told {
        Some(azure) => azure,
        None if at_home => Azure::default(),
        None => return Ok(None),
    };
    if base_url.contains("/openai/deployments/") {
        return Err(
            "an Azure address must be the resource's own; the deployment goes into azure = { deployment = … }, or is the model's name",
        );
    }
    if azure.api_version.is_none() && !base_url.ends_with("/v1") {
        return Err(
            "an Azure resource's own address needs an api_version; without one, take the address that ends in /openai/v1",
        );
    }
    Ok(Some(azure))
}

/// Whether the server at `base_url` is OpenAI's own.
pub(super) fn is_openai(base_url: &str) -> bool {
    let url = Url::parse(base_url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    host == "api.openai.com" || host.ends_with(".api.openai.com")
}
