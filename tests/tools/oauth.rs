//! Tokens for tool servers: where they come from, how often they are fetched, and whom the client's
//! credentials are shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::{Response, StatusCode};
use chat_worker::config::{AuthMethod, ClientKey, OauthConfig, Secret, ServerConfig};
use chat_worker::tools::ServerState;
use serde_json::{Value, json};

use crate::elsewhere::{Elsewhere, Seen, document, http, with_header};
use crate::harness::Tools;

const ECHO: &str = r#"{"say": "hello"}"#;

/// What an authorization server and a tool server behind it do, at one address.
#[derive(Clone, Default)]
struct Guarded {
    /// Tokens given so far; the last one opens the door.
    given: Arc<AtomicUsize>,
    /// Seconds that a token is good for.
    lifetime: Option<u64>,
    /// Where the documents say that the authorization server is; none: here.
    issuer: Option<String>,
    /// What it gives tokens for; none: not said.
    grants: Option<Vec<&'static str>>,
    methods: Option<Vec<&'static str>>,
}

impl Guarded {
    fn answer(&self, seen: &Seen) -> Option<Response<Body>> {
        let origin = format!("http://{}", seen.header("host")?);
        match seen.path.as_str() {
            "/.well-known/oauth-protected-resource/mcp" => Some(document(&json!({
                "resource": format!("{origin}/mcp"), "scopes_supported": ["echo", "list"],
                "authorization_servers": [self.issuer.as_ref().unwrap_or(&origin)]}))),
            "/.well-known/oauth-authorization-server" => {
                let mut metadata =
                    json!({"issuer": origin, "token_endpoint": format!("{origin}/token")});
                if let Some(grants) = &self.grants {
                    metadata["grant_types_supported"] = json!(grants);
                }
                if let Some(methods) = &self.methods {
                    metadata["token_endpoint_auth_methods_supported"] = json!(methods);
                }
                Some(document(&metadata))
            }
            "/token" => {
                let number = self.given.fetch_add(1, Ordering::SeqCst) + 1;
                let mut token =
                    json!({"access_token": format!("t{number}"), "token_type": "Bearer"});
                if let Some(lifetime) = self.lifetime {
                    token["expires_in"] = json!(lifetime);
                }
                Some(document(&token))
            }
            "/mcp" => {
                let token = format!("Bearer t{}", self.given.load(Ordering::SeqCst));
                let opens = seen.header("authorization") == Some(token.as_str());
                let code = StatusCode::UNAUTHORIZED;
                (!opens).then(|| {
                    with_header(code, "www-authenticate", "Bearer error=\"invalid_token\"")
                })
            }
            _ => None,
        }
    }
}

async fn start(guarded: &Guarded) -> Elsewhere {
    let guarded = guarded.clone();
    Elsewhere::answering(move |seen| guarded.answer(seen)).await
}

fn client(elsewhere: &Elsewhere) -> ServerConfig {
    let mut server = elsewhere.server(&[]);
    http(&mut server).oauth = Some(OauthConfig {
        client_id: "worker".to_owned(),
        key: ClientKey::Secret(Secret::new("s3cret")),
        method: None,
        scope: None,
        issuer: None,
        token_endpoint: None,
        audience: None,
    });
    server
}

fn tokens(elsewhere: &Elsewhere) -> Vec<Seen> {
    let seen = elsewhere.seen();
    seen.into_iter()
        .filter(|seen| seen.path == "/token")
        .collect()
}

async fn why_down(server: ServerConfig) -> String {
    let tools = Tools::start([server]);
    tools.offer().await;
    let ServerState::Down { reason, .. } = tools.health().state else {
        panic!("it is not down: {:?}", tools.health())
    };
    tools.end().await;
    reason
}

#[tokio::test]
async fn one_token_is_fetched_for_all_calls_and_a_new_one_when_it_is_refused() {
    let guarded = Guarded::default();
    let elsewhere = start(&guarded).await;
    let tools = Arc::new(Tools::start([client(&elsewhere)]));
    assert_eq!(
        tools.call("web__echo", ECHO).await.text,
        "hello",
        "{:?}",
        tools.health()
    );
    let first = &tokens(&elsewhere)[0];
    assert_eq!(
        first.header("authorization"),
        Some("Basic d29ya2VyOnMzY3JldA==")
    );
    let form = first.body.as_str().expect("a form");
    for part in [
        "grant_type=client_credentials",
        "scope=echo+list",
        "resource=http%3A%2F%2F127.0.0.1",
    ] {
        assert!(form.contains(part), "{part} is not in {form}");
    }
    // Somebody had it withdrawn.
    guarded.given.fetch_add(1, Ordering::SeqCst);
    let calls = (0..20).map(|_| {
        let tools = Arc::clone(&tools);
        tokio::spawn(async move { tools.call("web__echo", ECHO).await.text })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.expect("a call"), "hello");
    }
    assert_eq!(tokens(&elsewhere).len(), 2);
    Arc::into_inner(tools).expect("the last one").end().await;
}

#[tokio::test]
async fn a_token_is_fetched_again_before_it_expires() {
    let guarded = Guarded {
        lifetime: Some(0),
        ..Guarded::default()
    };
    let elsewhere = start(&guarded).await;
    let tools = Tools::start([client(&elsewhere)]);
    assert_eq!(
        tools.call("web__echo", ECHO).await.text,
        "hello",
        "{:?}",
        tools.health()
    );
    let asked = elsewhere.seen();
    let refused = asked
        .iter()
        .filter(|seen| seen.path == "/mcp" && seen.header("authorization").is_none());
    assert_eq!(refused.count(), 0);
    assert!(
        tokens(&elsewhere).len() >= 3,
        "each request has one of its own"
    );
    tools.end().await;
}

#[tokio::test]
async fn the_secret_is_sent_as_the_authorization_server_wants_it_or_as_configured() {
    let guarded = Guarded {
        methods: Some(vec!["client_secret_post"]),
        ..Guarded::default()
    };
    let elsewhere = start(&guarded).await;
    let tools = Tools::start([client(&elsewhere)]);
    assert_eq!(
        tools.call("web__echo", ECHO).await.text,
        "hello",
        "{:?}",
        tools.health()
    );
    tools.end().await;
    let asked = &tokens(&elsewhere)[0];
    let form = asked.body.as_str().expect("a form");
    assert!(form.contains("client_secret=s3cret"), "{form}");
    assert_eq!(asked.header("authorization"), None);

    let mut server = client(&elsewhere);
    let oauth = http(&mut server).oauth.as_mut().expect("a client");
    oauth.method = Some(AuthMethod::ClientSecretBasic);
    oauth.scope = Some("echo".to_owned());
    oauth.token_endpoint = Some(format!("{}/token", elsewhere.origin));
    let tools = Tools::start([server]);
    assert_eq!(
        tools.call("web__echo", ECHO).await.text,
        "hello",
        "{:?}",
        tools.health()
    );
    tools.end().await;
    let asked = tokens(&elsewhere).pop().expect("a request");
    assert!(asked.header("authorization").is_some());
    assert!(
        asked.body.as_str().expect("a form").contains("scope=echo&")
            || asked.body.as_str().expect("a form").ends_with("scope=echo"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn an_authorization_server_for_people_is_told_as_such() {
    let guarded = Guarded {
        grants: Some(vec!["authorization_code", "refresh_token"]),
        ..Guarded::default()
    };
    let elsewhere = start(&guarded).await;
    let reason = why_down(client(&elsewhere)).await;
    for part in [
        "to people only",
        "authorization_code, refresh_token",
        "client_credentials",
    ] {
        assert!(reason.contains(part), "{part:?} is not in {reason}");
    }
    assert!(tokens(&elsewhere).is_empty());
}

#[tokio::test]
async fn credentials_go_neither_to_a_false_issuer_nor_to_another_than_before() {
    // One that speaks for somebody else.
    let elsewhere = Elsewhere::answering(|seen| {
        let origin = format!("http://{}", seen.header("host")?);
        match seen.path.as_str() {
            "/.well-known/oauth-protected-resource/mcp" => Some(document(
                &json!({"resource": origin, "authorization_servers": [origin]}),
            )),
            "/.well-known/oauth-authorization-server" => Some(document(
                &json!({"issuer": "https://sso.example", "token_endpoint": format!("{origin}/token")}),
            )),
            _ => None,
        }
    })
    .await;
    let reason = why_down(client(&elsewhere)).await;
    assert!(
        reason.contains("speaks for \"https://sso.example\""),
        "{reason}"
    );
    assert!(tokens(&elsewhere).is_empty());

    // One that is named in place of the configured one.
    let thief = start(&Guarded::default()).await;
    let own = Guarded {
        issuer: Some(thief.origin.clone()),
        ..Guarded::default()
    };
    let elsewhere = start(&own).await;
    let mut server = client(&elsewhere);
    let oauth = http(&mut server).oauth.as_mut().expect("a client");
    oauth.issuer = Some(elsewhere.origin.clone());
    let tools = Tools::start([server]);
    assert_eq!(
        tools.call("web__echo", ECHO).await.text,
        "hello",
        "{:?}",
        tools.health()
    );
    tools.end().await;
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn a_refused_client_is_down_for_the_reason_that_is_given_and_no_secret_is_told() {
    let elsewhere = Elsewhere::answering(|seen| {
        let origin = format!("http://{}", seen.header("host")?);
        match seen.path.as_str() {
            "/.well-known/oauth-authorization-server" => Some(document(
                &json!({"issuer": origin, "token_endpoint": format!("{origin}/token")}),
            )),
            "/token" => {
                let said = seen.body.as_str().map(str::to_owned);
                let error = json!({"error": "invalid_client", "error_description": said});
                let mut response = document(&error);
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                Some(response)
            }
            _ => None,
        }
    })
    .await;
    let mut server = client(&elsewhere);
    let oauth = http(&mut server).oauth.as_mut().expect("a client");
    oauth.method = Some(AuthMethod::ClientSecretPost);
    let reason = why_down(server).await;
    assert!(
        reason.contains("it refused the client: invalid_client (HTTP 401)"),
        "{reason}"
    );
    assert!(!reason.contains("s3cret"), "{reason}");
    assert_ne!(tokens(&elsewhere)[0].body, Value::Null);
}
