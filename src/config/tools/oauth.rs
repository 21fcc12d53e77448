//! Clients of authorization servers: how the worker gets a token for a tool server.

use super::super::fields::Fields;
use super::super::{Lookup, Secret};
use super::file::{SETTING, expanded};

/// A client that is given tokens for itself (OAuth 2.1, client credentials).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthConfig {
    /// What the authorization server calls the client.
    pub client_id: String,
    /// How the client proves that it is itself.
    pub key: ClientKey,
    /// How that is sent; none: as the authorization server wants it.
    pub method: Option<AuthMethod>,
    /// What the token is to allow, words with blanks between; none: what the tool server asks for.
    pub scope: Option<String>,
    /// The authorization server; none: the one that the tool server names.
    pub issuer: Option<String>,
    /// Where tokens are given; none: where the authorization server says.
    pub token_endpoint: Option<String>,
    /// To whom a signed assertion speaks; none: to the authorization server by its name.
    pub audience: Option<String>,
}

impl OauthConfig {
    /// Whether it is configured who gets the credentials.
    #[must_use]
    pub fn names_its_server(&self) -> bool {
        self.issuer.is_some() || self.token_endpoint.is_some()
    }
}

/// How a client proves that it is itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientKey {
    /// It knows a secret.
    Secret(Secret),
    /// It signs.
    Private(PrivateKey),
}

/// A key that signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateKey {
    /// PKCS#8 in PEM.
    pub pem: Secret,
    /// What it signs with.
    pub algorithm: SigningAlgorithm,
    /// What the authorization server calls it, if it has several.
    pub id: Option<String>,
}

/// How a client's proof is sent (RFC 7591, `token_endpoint_auth_method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// The secret in a header.
    ClientSecretBasic,
    /// The secret in the form.
    ClientSecretPost,
    /// A signed assertion.
    PrivateKeyJwt,
}

impl AuthMethod {
    const ALL: [Self; 3] = [
        Self::ClientSecretBasic,
        Self::ClientSecretPost,
        Self::PrivateKeyJwt,
    ];

    /// Its registered name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
        }
    }
}

/// What an assertion is signed with (RFC 7518).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// ECDSA with P-256.
    Es256,
    /// ECDSA with P-384.
    Es384,
    /// RSA, PKCS#1 v1.5, SHA-256.
    Rs256,
    /// RSA, PKCS#1 v1.5, SHA-384.
    Rs384,
    /// RSA, PKCS#1 v1.5, SHA-512.
    Rs512,
    /// RSA, PSS, SHA-256.
    Ps256,
    /// Ed25519.
    EdDsa,
}

impl SigningAlgorithm {
    const ALL: [Self; 7] = [
        Self::Es256,
        Self::Es384,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::EdDsa,
    ];

    /// Its registered name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Reads `oauth`, if it is there.
pub(super) fn parse(fields: &mut Fields<'_>, lookup: Lookup<'_>) -> Option<OauthConfig> {
    let value = fields.take("oauth")?;
    let pointer = fields.pointer("oauth");
    let mut oauth = Fields::new(SETTING, pointer, value, fields.problems());
    let client_id = text(&mut oauth, "client_id", lookup).filter(|id| !id.is_empty());
    if client_id.is_none() {
        oauth.note(
            "client_id",
            "expected what the authorization server calls this client",
        );
    }
    let key = parse_key(&mut oauth, lookup);
    let methods = AuthMethod::ALL.map(|method| (method.as_str(), method));
    let method = oauth.choice("token_endpoint_auth_method", &methods);
    let fits = |method, key: &ClientKey| match key {
        ClientKey::Secret(_) => method != AuthMethod::PrivateKeyJwt,
        ClientKey::Private(_) => method == AuthMethod::PrivateKeyJwt,
    };
    if let (Some(method), Some(key)) = (method, &key)
        && !fits(method, key)
    {
        oauth.note(
            "token_endpoint_auth_method",
            "expected private_key_jwt with a private key, client_secret_basic or client_secret_post with a secret",
        );
    }
    let scope = text(&mut oauth, "scope", lookup);
    let issuer = url(&mut oauth, "issuer", lookup);
    let token_endpoint = url(&mut oauth, "token_endpoint", lookup);
    let audience = text(&mut oauth, "audience", lookup);
    oauth.finish();
    Some(OauthConfig {
        client_id: client_id?,
        key: key?,
        method,
        scope,
        issuer,
        token_endpoint,
        audience,
    })
}

fn text(oauth: &mut Fields<'_>, field: &str, lookup: Lookup<'_>) -> Option<String> {
    let text = oauth.text(field)?;
    Some(expanded(field, &text, oauth, lookup))
}

fn parse_key(oauth: &mut Fields<'_>, lookup: Lookup<'_>) -> Option<ClientKey> {
    let secret = text(oauth, "client_secret", lookup);
    let pem = text(oauth, "private_key", lookup);
    let file = text(oauth, "private_key_file", lookup);
    let id = text(oauth, "private_key_id", lookup);
    let algorithms = SigningAlgorithm::ALL.map(|algorithm| (algorithm.as_str(), algorithm));
    let algorithm = oauth.choice("signing_algorithm", &algorithms);
    let signs = pem.is_some() || file.is_some();
    let pem = pem.or_else(|| read(file?.as_str(), oauth));
    match (secret, pem) {
        (Some(secret), None) if !signs => Some(ClientKey::Secret(Secret::new(secret))),
        (None, Some(pem)) => Some(ClientKey::Private(PrivateKey {
            pem: Secret::new(pem),
            algorithm: algorithm.unwrap_or(SigningAlgorithm::Es256),
            id,
        })),
        // It cannot be read, which was noted.
        (None, None) if signs => None,
        (None, None) | (Some(_), None | Some(_)) => {
            let what = "expected either this or a \"private_key\" (or \"private_key_file\")";
            oauth.note("client_secret", what);
            None
        }
    }
}

fn url(oauth: &mut Fields<'_>, field: &str, lookup: Lookup<'_>) -> Option<String> {
    let text = oauth.text(field)?;
    let text = expanded(field, &text, oauth, lookup);
    match url::Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Some(text),
        Ok(_) | Err(_) => {
            oauth.note(field, "expected an address that begins with https://");
            None
        }
    }
}

fn read(path: &str, oauth: &mut Fields<'_>) -> Option<String> {
    let read = std::fs::read_to_string(path);
    read.map_err(|error| oauth.note("private_key_file", format!("cannot read {path:?}: {error}")))
        .ok()
}
