//! Tool servers over HTTP: what is sent, to whom, and what becomes of answers that are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use chat_worker::chat::OutcomeStatus;
use chat_worker::config::{Elicitation, ProtocolEra};
use chat_worker::tools::ServerState;
use serde_json::json;
use tokio::task::JoinSet;

use crate::elsewhere::{
    Elsewhere, document, introduction, remote, result, said, status, with_header,
};
use crate::harness::{Tools, eventually};

const ECHO: &str = r#"{"say": "hello"}"#;

#[tokio::test]
async fn headers_go_along_with_every_request_and_a_session_is_closed_at_the_end() {
    let elsewhere = Elsewhere::start().await;
    let tools =
        Tools::start([elsewhere.server(&[("authorization", "Bearer t0ken"), ("x-team", "a")])]);
    assert_eq!(
        tools.call("web__echo", ECHO).await.text,
        "hello",
        "{:?}",
        tools.health()
    );
    tools.end().await;
    let seen = elsewhere.seen();
    for seen in &seen {
        let sent = (seen.header("authorization"), seen.header("x-team"));
        assert_eq!(sent, (Some("Bearer t0ken"), Some("a")), "{seen:?}");
    }
    let call = &elsewhere.asked("tools/call")[0];
    assert_eq!(call.header("mcp-session-id"), Some("s1"));
    assert_eq!(call.header("mcp-protocol-version"), Some("2025-11-25"));
    let last = seen.last().expect("a request");
    assert_eq!(
        (last.method.as_str(), last.header("mcp-session-id")),
        ("DELETE", Some("s1"))
    );
}

#[tokio::test]
async fn one_session_serves_many_calls_at_once() {
    const CALLS: usize = 50;
    let here = Arc::new(AtomicUsize::new(0));
    let met = Arc::clone(&here);
    let elsewhere = Elsewhere::answering(move |seen| {
        // Answered when all have come, which is never if they come one by one.
        (seen.asks() == "tools/call").then(|| {
            met.fetch_add(1, Ordering::SeqCst);
            with_header(StatusCode::ACCEPTED, "x-seen", "1")
        })
    })
    .await;
    let mut server = elsewhere.server(&[]);
    server.timeout = Duration::from_secs(20);
    let tools = Arc::new(Tools::start([server]));
    tools.offer().await;
    let calls: Vec<_> = (0..CALLS)
        .map(|_| {
            let tools = Arc::clone(&tools);
            tokio::spawn(async move { tools.call("web__echo", ECHO).await })
        })
        .collect();
    eventually("all calls at the server", async || {
        (here.load(Ordering::SeqCst) == CALLS).then_some(())
    })
    .await;
    assert_eq!(elsewhere.asked("initialize").len(), 1);
    for call in calls {
        call.abort();
    }
}

#[tokio::test]
async fn a_server_that_forgot_the_session_is_greeted_again_and_the_call_made() {
    // As the specification wants it, and as servers do that were restarted.
    for forgotten in [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST] {
        let begun = Arc::new(AtomicUsize::new(0));
        let sessions = Arc::clone(&begun);
        let elsewhere = Elsewhere::answering(move |seen| match seen.asks() {
            "initialize" => {
                let number = sessions.fetch_add(1, Ordering::SeqCst);
                Some(introduction(seen, &format!("s{number}")))
            }
            "tools/call" if seen.header("mcp-session-id") == Some("s0") => {
                // Without the id of what it answers, as they do.
                let error = json!({"jsonrpc": "2.0", "error": {"code": -32000, "message": "Bad Request: No valid session ID provided"}});
                let mut response = document(&error);
                *response.status_mut() = forgotten;
                Some(response)
            }
            _ => None,
        })
        .await;
        let tools = Tools::start([elsewhere.server(&[])]);
        assert_eq!(
            tools.call("web__echo", ECHO).await.text,
            "hello",
            "{forgotten}"
        );
        let calls = elsewhere.asked("tools/call");
        let sessions: Vec<_> = calls
            .iter()
            .map(|call| call.header("mcp-session-id"))
            .collect();
        assert_eq!(sessions, [Some("s0"), Some("s1")]);
        tools.end().await;
    }
}

#[tokio::test]
async fn an_error_without_an_id_ends_its_call() {
    let elsewhere = Elsewhere::answering(|seen| {
        let error =
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32603, "message": "no luck"}});
        (seen.asks() == "tools/call").then(|| document(&error))
    })
    .await;
    let tools = Tools::start([elsewhere.server(&[])]);
    let outcome = tools.call("web__echo", ECHO).await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(outcome.text.ends_with("no luck"), "{}", outcome.text);
    tools.end().await;
}

#[tokio::test]
async fn what_is_no_answer_is_told_as_what_it_is() {
    let cases = [
        ("status", "it answered HTTP 503 Service Unavailable"),
        ("page", "its answer is no message of the protocol"),
        ("denied", "it wants authorization (HTTP 401)"),
        ("scope", "wants the scope \"write\""),
        ("long", "more than"),
    ];
    let elsewhere = Elsewhere::answering(|seen| {
        let code = StatusCode::UNAUTHORIZED;
        match seen.body["params"]["arguments"]["say"].as_str()? {
            "status" => Some(status(StatusCode::SERVICE_UNAVAILABLE)),
            "page" => Some(with_header(StatusCode::OK, "content-type", "text/html")),
            "denied" => Some(with_header(code, "www-authenticate", "Bearer")),
            "scope" => {
                let challenge = r#"Bearer error="insufficient_scope", scope="write""#;
                Some(with_header(
                    StatusCode::FORBIDDEN,
                    "www-authenticate",
                    challenge,
                ))
            }
            "long" => Some(said(seen, &"x".repeat(5 * 1024 * 1024))),
            _ => None,
        }
    })
    .await;
    let mut server = elsewhere.server(&[]);
    server.max_media_bytes = 0;
    let tools = Tools::start([server]);
    for (case, told) in cases {
        let outcome = tools
            .call("web__echo", &json!({"say": case}).to_string())
            .await;
        assert_eq!(outcome.status, OutcomeStatus::Failed, "{case}");
        assert!(outcome.text.contains(told), "{case}: {}", outcome.text);
    }
    assert_eq!(tools.call("web__echo", ECHO).await.text, "hello");
    tools.end().await;
}

#[tokio::test]
async fn a_redirect_is_followed_on_the_same_server_and_headers_never_leave_it() {
    let stranger = Elsewhere::start().await;
    let away = format!("{}/mcp", stranger.origin);
    let elsewhere = Elsewhere::answering(move |seen| {
        let code = StatusCode::TEMPORARY_REDIRECT;
        match seen.path.as_str() {
            "/slash" => Some(with_header(code, "location", "/mcp")),
            "/away" => Some(with_header(code, "location", &away)),
            _ => None,
        }
    })
    .await;
    let secret = [("authorization", "Bearer t0ken")];
    let at = |path: &str| remote("web", &format!("{}{path}", elsewhere.origin), &secret);
    let tools = Tools::start([at("/slash")]);
    assert_eq!(
        tools.call("web__echo", ECHO).await.text,
        "hello",
        "{:?}",
        tools.health()
    );
    tools.end().await;

    let tools = Tools::start([at("/away")]);
    tools.offer().await;
    let ServerState::Down { reason, .. } = tools.health().state else {
        panic!("it is not down: {:?}", tools.health())
    };
    assert!(
        reason.contains("HTTP 307") && reason.contains("another address"),
        "{reason}"
    );
    tools.end().await;
    assert!(stranger.seen().is_empty(), "{:?}", stranger.seen());
}

#[tokio::test]
async fn what_cannot_be_used_is_down_for_a_reason_that_says_what_to_do() {
    let cases = [
        (
            "/nowhere",
            "is this the address of its Streamable HTTP endpoint",
        ),
        ("/private", "nobody can sign in here with a browser"),
        ("/future", "the unknown protocol version 2099-01-01"),
    ];
    let elsewhere = Elsewhere::answering(|seen| match seen.path.as_str() {
        "/private" => Some(with_header(
            StatusCode::UNAUTHORIZED,
            "www-authenticate",
            "Bearer",
        )),
        "/future" if seen.asks() == "server/discover" => Some(status(StatusCode::BAD_REQUEST)),
        "/future" if seen.asks() == "initialize" => Some(result(
            seen,
            &json!({"protocolVersion": "2099-01-01", "capabilities": {},
                "serverInfo": {"name": "future", "version": "1"}}),
        )),
        "/future" => Some(status(StatusCode::ACCEPTED)),
        _ => None,
    })
    .await;
    for (path, told) in cases {
        let tools = Tools::start([remote("web", &format!("{}{path}", elsewhere.origin), &[])]);
        tools.offer().await;
        let ServerState::Down { reason, .. } = tools.health().state else {
            panic!("{path} is not down: {:?}", tools.health())
        };
        assert!(reason.contains(told), "{path}: {reason}");
        tools.end().await;
    }
    let tools = Tools::start([remote("web", "http://127.0.0.1:9/mcp?key=s3cret", &[])]);
    tools.offer().await;
    let health = format!("{:?}", tools.health());
    assert!(health.contains("it cannot be reached"), "{health}");
    assert!(!health.contains("s3cret"), "{health}");
    tools.end().await;
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_called_off_and_the_session_kept() {
    let elsewhere = Elsewhere::answering(|seen| {
        // Taken, and never answered.
        let slow = seen.body["params"]["arguments"]["say"] == "slow";
        slow.then(|| status(StatusCode::ACCEPTED))
    })
    .await;
    let mut server = elsewhere.server(&[]);
    server.timeout = Duration::from_millis(500);
    let tools = Tools::start([server]);
    tools.offer().await;
    let begun = Instant::now();
    let outcome = tools.call("web__echo", r#"{"say": "slow"}"#).await;
    assert!(
        outcome.text.contains("did not answer within 0.5 s"),
        "{}",
        outcome.text
    );
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    eventually("the notice", async || {
        (elsewhere.asked("notifications/cancelled").len() == 1).then_some(())
    })
    .await;
    assert_eq!(tools.call("web__echo", ECHO).await.text, "hello");
    assert_eq!(elsewhere.asked("initialize").len(), 1);
    tools.end().await;
}

#[tokio::test]
async fn a_server_of_the_later_era_needs_no_session_and_asks_in_rounds() {
    let elsewhere = Elsewhere::answering(|seen| match seen.asks() {
        "server/discover" => Some(result(
            seen,
            &json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "public",
                "serverInfo": {"name": "later", "version": "1"}}),
        )),
        "tools/call" if seen.body["params"]["inputResponses"].is_null() => {
            let schema = json!({"type": "object", "properties": {"name": {"type": "string", "default": "Ada"}}});
            Some(result(
                seen,
                &json!({"resultType": "input_required", "requestState": "opaque", "inputRequests":
                    {"who": {"method": "elicitation/create",
                        "params": {"mode": "form", "message": "Who?", "requestedSchema": schema}}}}),
            ))
        }
        "tools/call" => {
            let given = &seen.body["params"];
            let text = format!("{} {}", given["inputResponses"]["who"], given["requestState"]);
            Some(result(seen, &json!({"resultType": "complete", "content": [{"type": "text", "text": text}]})))
        }
        _ => None,
    })
    .await;
    let declined = r#"{"action":"decline"} "opaque""#;
    let filled = r#"{"action":"accept","content":{"name":"Ada"}} "opaque""#;
    for (policy, era, expected) in [
        (Elicitation::Decline, ProtocolEra::Auto, declined),
        (Elicitation::Defaults, ProtocolEra::Modern, filled),
    ] {
        let mut server = elsewhere.server(&[]);
        (server.elicitation, server.era) = (policy, era);
        let tools = Tools::start([server]);
        assert_eq!(
            tools.call("web__echo", ECHO).await.text,
            expected,
            "{:?}",
            tools.health()
        );
        tools.end().await;
    }
    assert!(elsewhere.asked("initialize").is_empty());
    let call = &elsewhere.asked("tools/call")[0];
    assert_eq!(call.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(
        (call.header("mcp-method"), call.header("mcp-name")),
        (Some("tools/call"), Some("echo"))
    );
    assert_eq!(call.header("mcp-session-id"), None);
    let meta = &call.body["params"]["_meta"];
    assert_eq!(
        meta["io.modelcontextprotocol/protocolVersion"],
        "2026-07-28"
    );
    assert!(!meta["chat-worker/idempotencyKey"].is_null(), "{meta}");
    assert!(elsewhere.seen().iter().all(|seen| seen.method != "DELETE"));
}

#[tokio::test]
async fn the_era_of_a_server_is_remembered_and_may_be_fixed() {
    let elsewhere = Elsewhere::answering(|seen| {
        let lost = seen.body["params"]["arguments"]["say"] == "lose";
        lost.then(|| status(StatusCode::NOT_FOUND))
    })
    .await;
    let tools = Tools::start([elsewhere.server(&[])]);
    assert_eq!(tools.call("web__echo", ECHO).await.text, "hello");
    // Whoever asked has it made again in a session of its own, and loses that one as well.
    tools.call("web__echo", r#"{"say": "lose"}"#).await;
    assert_eq!(tools.call("web__echo", ECHO).await.text, "hello");
    tools.end().await;
    assert_eq!(elsewhere.asked("server/discover").len(), 1);
    assert!(elsewhere.asked("initialize").len() >= 2);

    let mut server = elsewhere.server(&[]);
    server.era = ProtocolEra::Legacy;
    let tools = Tools::start([server]);
    assert_eq!(tools.call("web__echo", ECHO).await.text, "hello");
    tools.end().await;
    assert_eq!(elsewhere.asked("server/discover").len(), 1);
}

/// Many calls find the server down together, and are refused at once while it is; the keeper looks for it
/// all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_down_under_many_calls_is_found_again() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let elsewhere = Elsewhere::answering(move |seen| {
        let code = if seen.asks() == "tools/call" {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        is_down.load(Ordering::SeqCst).then(|| status(code))
    })
    .await;
    let tools = Arc::new(Tools::start([elsewhere.server(&[])]));
    let offer = tools.offer().await;
    assert_eq!(tools.call_of(&offer, "web__echo", ECHO).await.text, "hello");
    down.store(true, Ordering::SeqCst);
    let mut calls = JoinSet::new();
    for _ in 0..64 {
        let (tools, offer) = (Arc::clone(&tools), Arc::clone(&offer));
        calls.spawn(async move { tools.call_of(&offer, "web__echo", ECHO).await });
    }
    for outcome in calls.join_all().await {
        assert_eq!(outcome.status, OutcomeStatus::Failed, "{}", outcome.text);
    }
    assert_ne!(tools.health().state, ServerState::Ready);
    down.store(false, Ordering::SeqCst);
    // Nobody calls meanwhile: it is the keeper that finds it.
    let ready = async || (tools.health().state == ServerState::Ready).then_some(());
    eventually("the server is found again", ready).await;
    assert_eq!(tools.call_of(&offer, "web__echo", ECHO).await.text, "hello");
}

#[tokio::test]
async fn a_server_that_offers_no_stream_of_its_own_keeps_its_session() {
    for code in [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST] {
        let elsewhere =
            Elsewhere::answering(move |seen| (seen.method == "GET").then(|| status(code))).await;
        let tools = Tools::start([elsewhere.server(&[])]);
        for _ in 0..20 {
            assert_eq!(tools.call("web__echo", ECHO).await.text, "hello");
        }
        assert_eq!(elsewhere.asked("initialize").len(), 1, "{code}");
    }
}
