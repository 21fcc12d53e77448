//! A tool server over HTTP in this process, which speaks the protocol and, where a test wants it,
//! answers otherwise.

use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use chat_worker::config::{HttpConfig, Isolation, Secret, ServerConfig, Transport};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::harness::server;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// Null where there was none, or no JSON; a form is a text.
    pub(crate) body: Value,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("a text"))
    }

    /// The method of the protocol.
    pub(crate) fn asks(&self) -> &str {
        self.body
            .get("method")
            .and_then(Value::as_str)
            .unwrap_or("")
    }
}

/// What a test wants to be answered; none: what the protocol wants.
type Answers = dyn Fn(&Seen) -> Option<Response<Body>> + Send + Sync;

/// The server. It ends with this.
pub(crate) struct Elsewhere {
    pub(crate) origin: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _end: DropGuard,
}

impl Elsewhere {
    /// One that does as it should.
    pub(crate) async fn start() -> Self {
        Self::answering(|_| None).await
    }

    /// One that gives these answers, and else does as it should.
    pub(crate) async fn answering(
        answers: impl Fn(&Seen) -> Option<Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (noted, answers): (_, Arc<Answers>) = (Arc::clone(&seen), Arc::new(answers));
        let router = axum::Router::new()
            .fallback(move |request| handle(request, Arc::clone(&noted), Arc::clone(&answers)));
        let end = CancellationToken::new();
        let over = end.clone();
        tokio::spawn(async move {
            let serve =
                axum::serve(listener, router).with_graceful_shutdown(over.cancelled_owned());
            serve.await.expect("a server");
        });
        Self {
            origin: format!("http://127.0.0.1:{port}"),
            seen,
            _end: end.drop_guard(),
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("the list").clone()
    }

    /// The requests of this method of the protocol.
    pub(crate) fn asked(&self, method: &str) -> Vec<Seen> {
        let seen = self.seen();
        seen.into_iter()
            .filter(|seen| seen.asks() == method)
            .collect()
    }

    pub(crate) fn server(&self, headers: &[(&str, &str)]) -> ServerConfig {
        remote("web", &format!("{}/mcp", self.origin), headers)
    }
}

/// A server at `url`.
pub(crate) fn remote(name: &str, url: &str, headers: &[(&str, &str)]) -> ServerConfig {
    let mut server = server(name, "", &[]);
    server.pool.isolation = Isolation::Shared;
    server.transport = Transport::Http(HttpConfig {
        url: Secret::new(url),
        shown: url.to_owned(),
        headers: headers
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), Secret::new(*value)))
            .collect(),
        oauth: None,
    });
    server
}

/// The HTTP part of a server's configuration.
pub(crate) fn http(server: &mut ServerConfig) -> &mut HttpConfig {
    match &mut server.transport {
        Transport::Http(http) => http,
        Transport::Stdio(_) => panic!("{} is a child", server.name),
    }
}

async fn handle(
    request: Request<Body>,
    noted: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Answers>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.expect("a body");
    let text = String::from_utf8(body.to_vec()).expect("a text");
    let seen = Seen {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
    };
    noted.lock().expect("the list").push(seen.clone());
    answers(&seen).unwrap_or_else(|| proper(&seen))
}

/// What the protocol wants.
fn proper(seen: &Seen) -> Response<Body> {
    match (seen.method.as_str(), seen.path.as_str()) {
        ("DELETE", "/mcp") => status(StatusCode::OK),
        ("POST", "/mcp") => match seen.asks() {
            "initialize" => introduction(seen, "s1"),
            "tools/list" => result(
                seen,
                &json!({"tools": [
                    {"name": "echo", "inputSchema": {"type": "object", "properties": {"say": {"type": "string"}}}}
                ]}),
            ),
            "tools/call" => said(
                seen,
                seen.body["params"]["arguments"]["say"]
                    .as_str()
                    .unwrap_or(""),
            ),
            "server/discover" => status(StatusCode::BAD_REQUEST),
            _ => status(StatusCode::ACCEPTED),
        },
        ("GET", "/mcp") => status(StatusCode::METHOD_NOT_ALLOWED),
        _ => status(StatusCode::NOT_FOUND),
    }
}

/// The answer to `initialize`, which begins the session `id`.
pub(crate) fn introduction(seen: &Seen, id: &str) -> Response<Body> {
    let mut response = result(
        seen,
        &json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "elsewhere", "version": "1"}}),
    );
    let id = id.parse().expect("a header");
    response.headers_mut().insert("mcp-session-id", id);
    response
}

pub(crate) fn said(seen: &Seen, text: &str) -> Response<Body> {
    result(seen, &json!({"content": [{"type": "text", "text": text}]}))
}

pub(crate) fn result(seen: &Seen, result: &Value) -> Response<Body> {
    document(&json!({"jsonrpc": "2.0", "id": seen.body["id"], "result": result}))
}

pub(crate) fn document(json: &Value) -> Response<Body> {
    let response = Response::builder().header("content-type", "application/json");
    response.body(json.to_string().into()).expect("a response")
}

pub(crate) fn status(status: StatusCode) -> Response<Body> {
    let response = Response::builder().status(status);
    response.body(Body::empty()).expect("a response")
}

/// An answer with a header and no body.
pub(crate) fn with_header(code: StatusCode, name: &'static str, value: &str) -> Response<Body> {
    let mut response = status(code);
    let value = value.parse().expect("a header");
    response.headers_mut().insert(name, value);
    response
}
