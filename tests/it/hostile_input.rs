//! Messages that are no jobs, or no jobs for here: each is answered with the contract's code and
//! the name of the field, kept byte for byte, and harms nobody.

use std::collections::HashMap;
use std::fmt::Write as _;

use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use crate::scenario::{Inbox, Properties, Received, Scenario, Setup, ask, with};
use crate::stub_model::Reply;

/// A bad message, its code, and what the message of the error must name.
struct Bad {
    body: Vec<u8>,
    properties: Properties,
    code: &'static str,
    names: &'static str,
}

impl Bad {
    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(200)]).into_owned()
    }
}

fn bad(body: impl Into<Vec<u8>>, code: &'static str, names: &'static str) -> Bad {
    Bad {
        body: body.into(),
        properties: Properties::default(),
        code,
        names,
    }
}

/// A good job but for one field.
fn field(name: &str, value: impl Into<Value>, names: &'static str) -> Bad {
    invalid(&with(ask("x"), name, value), names)
}

fn invalid(job: &Value, names: &'static str) -> Bad {
    bad(job.to_string(), "invalid_job", names)
}

fn message(message: &Value, names: &'static str) -> Bad {
    field("messages", json!([message]), names)
}

fn part(part: &Value, names: &'static str) -> Bad {
    message(&json!({"role": "user", "content": [part]}), names)
}

fn options(name: &str, value: impl Into<Value>, names: &'static str) -> Bad {
    field("options", json!({ name: value.into() }), names)
}

/// A good job with bad properties.
fn properties(properties: Properties, names: &'static str) -> Bad {
    Bad {
        properties,
        ..bad(ask("x").to_string(), "invalid_job", names)
    }
}

fn no_json() -> Vec<Bad> {
    let mut not_utf8 = ask("x").to_string().into_bytes();
    not_utf8[20] = 0xff;
    let mut cut = ask("x").to_string().into_bytes();
    cut.pop();
    let mut utf16: Vec<u8> = vec![0xff, 0xfe];
    utf16.extend(
        ask("x")
            .to_string()
            .encode_utf16()
            .flat_map(u16::to_le_bytes),
    );
    vec![
        bad("", "invalid_json", "body"),
        bad("   ", "invalid_json", "body"),
        bad("hello", "invalid_json", "body"),
        bad(not_utf8, "invalid_json", "UTF-8"),
        bad(utf16, "invalid_json", "UTF-8"),
        bad(cut, "invalid_json", "body"),
        bad(vec![0; 64], "invalid_json", "body"),
        bad("{}\u{feff}", "invalid_job", "/user_id"),
        bad("{'user_id':'u'}", "invalid_json", "body"),
        bad(
            r#"{"user_id":"u","messages":[{"role":"user","content":"x"}],}"#,
            "invalid_json",
            "body",
        ),
        bad(
            format!("{} {{}}", ask("x")),
            "invalid_json",
            "more than one",
        ),
        bad("[".repeat(20_000), "invalid_job", "body"),
        bad(r#"{"a":"#.repeat(5_000), "invalid_job", "/a"),
        bad(deep_metadata(), "invalid_json", "body"),
        bad(
            r#"{"user_id":"u","messages":[{"role":"user","content":"x"}],"max_iterations":1e400}"#,
            "invalid_json",
            "body",
        ),
        bad(vec![b' '; 70_000], "job_too_large", "CHAT_MAX_JOB_BYTES"),
        bad(
            ask(&"x".repeat(70_000)).to_string(),
            "job_too_large",
            "CHAT_MAX_JOB_BYTES",
        ),
    ]
}

/// Metadata in metadata, deeper than any reader follows.
fn deep_metadata() -> String {
    let (open, close) = (r#"{"a":"#.repeat(500), "}".repeat(500));
    format!(
        r#"{{"user_id":"u","messages":[{{"role":"user","content":"x"}}],"metadata":{open}1{close}}}"#
    )
}

fn no_job() -> Vec<Bad> {
    let missing = |name: &str| {
        let mut job = ask("x");
        job.as_object_mut().unwrap().remove(name);
        job
    };
    vec![
        bad("null", "invalid_job", "body"),
        bad("7", "invalid_job", "body"),
        bad("\"job\"", "invalid_job", "body"),
        bad("[]", "invalid_job", "body"),
        bad(json!([ask("x")]).to_string(), "invalid_job", "body"),
        bad("{}", "invalid_job", "user_id"),
        invalid(&missing("user_id"), "user_id"),
        invalid(&missing("messages"), "messages"),
        bad(
            r#"{"user_id":"u","user_id":"v","messages":[{"role":"user","content":"x"}]}"#,
            "invalid_job",
            "user_id",
        ),
        bad(
            r#"{"user_id":"u","messages":[{"role":"user","role":"system","content":"x"}]}"#,
            "invalid_job",
            "role",
        ),
        field("modle", "gpt-4o", "/modle"),
        field("a/b~c", 1, "/a~1b~0c"),
        bad(
            with(ask("x"), "version", 2).to_string(),
            "unsupported_version",
            "/version",
        ),
        bad(
            with(with(ask("x"), "version", 2), "new", 1).to_string(),
            "unsupported_version",
            "/version",
        ),
        bad(
            with(ask("x"), "version", 0).to_string(),
            "unsupported_version",
            "/version",
        ),
        field("version", "1", "/version"),
        field("job_id", "seven", "/job_id"),
        field("job_id", 7, "/job_id"),
        field("conversation_id", "not-a-uuid", "/conversation_id"),
        field("conversation_id", json!([]), "/conversation_id"),
        field("user_id", 42, "/user_id"),
        field("user_id", Value::Null, "/user_id"),
        field("user_id", "", "/user_id"),
        field("user_id", "two words", "/user_id"),
        field("user_id", "a\u{0}b", "/user_id"),
        field("user_id", "usér", "/user_id"),
        field("user_id", "u".repeat(256), "/user_id"),
        field("model", 4, "/model"),
        field("model", "", "/model"),
        field("model", "m".repeat(256), "/model"),
        field("max_iterations", 0, "/max_iterations"),
        field("max_iterations", 101, "/max_iterations"),
        field("max_iterations", -1, "/max_iterations"),
        field("max_iterations", 2.5, "/max_iterations"),
        field("max_iterations", "3", "/max_iterations"),
        field("max_iterations", 4_294_967_296_u64, "/max_iterations"),
        field("deadline", "tomorrow", "/deadline"),
        field("deadline", 1_767_225_600, "/deadline"),
        field("metadata", json!([]), "/metadata"),
        field("metadata", "text", "/metadata"),
        field("metadata", json!({"x": "y".repeat(16_384)}), "/metadata"),
        field("stream", "yes", "/stream"),
        field("stream", 1, "/stream"),
        field("not_before", "tomorrow", "/not_before"),
        field("on_busy", "wait", "/on_busy"),
        field("on_busy", 0, "/on_busy"),
        field("on_busy", "Reject", "/on_busy"),
    ]
}

fn bad_messages() -> Vec<Bad> {
    vec![
        field("messages", json!([]), "/messages"),
        field("messages", json!({}), "/messages"),
        field("messages", "hello", "/messages"),
        field("messages", Value::Null, "/messages"),
        field("messages", json!(["hello"]), "/messages/0"),
        field("messages", json!([["user", "hello"]]), "/messages/0"),
        field(
            "messages",
            json!([{"role": "user", "content": "x"}, null]),
            "/messages/1",
        ),
        message(&json!({"role": "user"}), "content"),
        message(&json!({"content": "x"}), "role"),
        message(&json!({"role": "tool", "content": "x"}), "/messages/0/role"),
        message(&json!({"role": 1, "content": "x"}), "/messages/0/role"),
        message(
            &json!({"role": {"user": null}, "content": "x"}),
            "/messages/0/role",
        ),
        message(
            &json!({"role": "user", "content": null}),
            "/messages/0/content",
        ),
        message(
            &json!({"role": "user", "content": 7}),
            "/messages/0/content",
        ),
        message(
            &json!({"role": "user", "content": {}}),
            "/messages/0/content",
        ),
        message(
            &json!({"role": "user", "content": []}),
            "/messages/0/content",
        ),
        message(
            &json!({"role": "user", "content": "x", "name": "n"}),
            "/messages/0/name",
        ),
        part(&json!("text"), "/messages/0/content/0"),
        part(&json!({"type": "text"}), "/messages/0/content/0"),
        part(&json!({"type": "text", "text": 7}), "/messages/0/content/0"),
        part(
            &json!({"type": "video", "text": "x"}),
            "/messages/0/content/0/type",
        ),
        part(&json!({"type": "image_url"}), "/messages/0/content/0"),
        part(
            &json!({"type": "image_url", "image_url": {}}),
            "/messages/0/content/0",
        ),
        part(
            &json!({"type": "image_url", "image_url": "https://example.org"}),
            "/messages/0/content/0",
        ),
        part(
            &json!({"type": "image_url", "image_url": {"url": ""}}),
            "/messages/0/content/0/image_url/url",
        ),
        part(
            &json!({"type": "text", "text": "x", "more": 1}),
            "/messages/0/content/0",
        ),
    ]
}

fn bad_choices() -> Vec<Bad> {
    let tools = |name: &str, value: Value, names| field("tools", json!({ name: value }), names);
    vec![
        field("tools", json!([]), "/tools"),
        field("tools", "calc", "/tools"),
        tools("server", json!(["calc"]), "/tools/server"),
        tools("servers", json!("calc"), "/tools/servers"),
        tools("servers", json!([7]), "/tools/servers/0"),
        tools("allow", json!("calc__*"), "/tools/allow"),
        tools("allow", json!(["["]), "/tools/allow/0"),
        tools("deny", json!([null]), "/tools/deny/0"),
        tools("choice", json!("maybe"), "/tools/choice"),
        tools("choice", json!(true), "/tools/choice"),
        field("options", json!([0.5]), "/options"),
        options("temperatur", 1, "/options/temperatur"),
        options("temperature", 2.1, "/options/temperature"),
        options("temperature", "hot", "/options/temperature"),
        options("top_p", -0.1, "/options/top_p"),
        options("max_output_tokens", 0, "/options/max_output_tokens"),
        options("seed", 0.5, "/options/seed"),
        options("stop", json!([]), "/options/stop"),
        options("stop", json!(["1", "2", "3", "4", "5"]), "/options/stop"),
        options("reasoning_effort", "enormous", "/options/reasoning_effort"),
        options("reasoning_effort", 3, "/options/reasoning_effort"),
        options("parallel_tool_calls", "no", "/options/parallel_tool_calls"),
        options("response_format", "json", "/options/response_format"),
        field("budget", json!([1, 2]), "/budget"),
        field("budget", json!({"tokens": 1}), "/budget/tokens"),
        field("budget", json!({"total_tokens": 0}), "/budget/total_tokens"),
        field("budget", json!({"tool_calls": -1}), "/budget/tool_calls"),
    ]
}

fn bad_properties() -> Vec<Bad> {
    let wake = Properties::default().with_type("chat.wake".into());
    vec![
        properties(Properties::default().with_type("chat.order".into()), "type"),
        properties(wake.clone(), "message_id"),
        properties(wake.with_message_id("seven".into()), "message_id"),
        properties(
            Properties::default().with_content_encoding("gzip".into()),
            "content_encoding",
        ),
        Bad {
            properties: Properties::default()
                .with_headers(weird_headers())
                .with_app_id("test".into())
                .with_priority(255)
                .with_timestamp(u64::MAX),
            ..bad("{", "invalid_json", "body")
        },
        Bad {
            properties: Properties::default().with_message_id("m".repeat(255).into()),
            ..bad("{", "invalid_json", "body")
        },
    ]
}

/// A header of each type that there is.
fn weird_headers() -> FieldTable {
    let mut inner = FieldTable::default();
    inner.insert(
        "deep".into(),
        AMQPValue::FieldArray(vec![AMQPValue::Void, AMQPValue::Boolean(true)].into()),
    );
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("x-text", AMQPValue::LongString("text".into())),
        (
            "x-no-text",
            AMQPValue::LongString(vec![0xff, 0x00, 0x41].into()),
        ),
        ("x-table", AMQPValue::FieldTable(inner)),
        ("x-bytes", AMQPValue::ByteArray(vec![1, 2, 3].into())),
        ("x-time", AMQPValue::Timestamp(1_700_000_000)),
        ("x-float", AMQPValue::Double(0.1)),
        ("x-big", AMQPValue::LongLongInt(i64::MIN)),
        ("traceparent", AMQPValue::LongInt(7)),
        ("tracestate", AMQPValue::Boolean(false)),
        ("x-long", AMQPValue::LongString("l".repeat(20_000).into())),
        ("x-chat-error-code", AMQPValue::LongString("forged".into())),
    ] {
        headers.insert(name.into(), value);
    }
    headers
}

/// Jobs that can be read and are not for here. Their senders read the results queue.
fn not_for_here() -> Vec<Bad> {
    let code = |code, job: Value, names| bad(job.to_string(), code, names);
    let trusted = Properties::default().with_user_id("guest".into());
    vec![
        code("unknown_model", with(ask("x"), "model", "gpt-9"), "/model"),
        code(
            "unknown_tool_server",
            with(ask("x"), "tools", json!({"servers": ["calc"]})),
            "/tools/servers/0",
        ),
        Bad {
            properties: trusted,
            ..code("unauthorized", ask("x"), "/user_id")
        },
    ]
}

fn strict() -> Setup {
    Setup::new()
        .model(|_| Reply::text("alive"))
        .set("CHAT_MODELS", "gpt-4o-mini,gpt-4o")
        .set("CHAT_TRUST_AMQP_USER", "true")
        .set("CHAT_MAX_JOB_BYTES", "65536")
}

#[tokio::test]
async fn every_bad_message_is_told_kept_and_survived() {
    let mut all = no_json();
    all.extend(no_job());
    all.extend(bad_messages());
    all.extend(bad_choices());
    all.extend(bad_properties());
    all.extend(not_for_here());
    assert!(all.len() >= 100, "{}", all.len());
    strict().run(async |s| every_one(s, &all).await).await;
}

async fn every_one(s: &Scenario, all: &[Bad]) {
    // At once, and read afterwards.
    for (number, bad) in all.iter().enumerate() {
        let properties = bad.properties.clone();
        let correlation = format!("case-{number}");
        s.send_bytes(
            &bad.body,
            properties.with_correlation_id(correlation.into()),
        )
        .await;
    }
    let told = by_case(s.results().await, all.len()).await;
    let copies = by_case(s.dead_letters().await, all.len()).await;
    let rows = s
        .rows("SELECT *, encode(body, 'hex') AS hex FROM chat.dead_letters")
        .await;
    assert_eq!(rows.len(), all.len());
    let mut wrong = Vec::new();
    for (number, bad) in all.iter().enumerate() {
        let case = format!("case-{number}");
        check_result(bad, &told[&case]).unwrap_or_else(|what| wrong.push(what));
        check_copy(bad, &copies[&case]);
        let of_case = |row: &&Value| row["properties"]["correlation_id"] == case;
        check_row(bad, rows.iter().find(of_case).unwrap(), &told[&case]);
    }
    assert!(
        wrong.is_empty(),
        "{} are told wrongly:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let copy = copies
        .values()
        .find(|copy| copy.properties.app_id().is_some());
    assert_eq!(copy.unwrap().header("x-text").as_deref(), Some("text"));
    assert_eq!(
        s.answer(&ask("still there?")).await["message"]["content"],
        "alive"
    );
    let jobs = s.rows("SELECT status FROM chat.jobs").await;
    assert_eq!(jobs, [json!({"status": "completed"})]);
    assert_eq!(s.rows("SELECT * FROM chat.conversations").await.len(), 1);
}

async fn by_case(inbox: &Inbox, count: usize) -> HashMap<String, Received> {
    let mut all = HashMap::new();
    for _ in 0..count {
        let message = inbox.next().await;
        all.insert(message.correlation_id(), message);
    }
    assert_eq!(all.len(), count, "some came twice");
    all
}

/// What is wrong with what the sender is told, if anything is.
fn check_result(bad: &Bad, told: &Received) -> Result<(), String> {
    let (shown, result) = (bad.shown(), told.json());
    let error = result["error"]["message"].as_str().unwrap_or_default();
    if result["error"]["code"] != bad.code || !error.contains(bad.names) {
        let (code, names) = (bad.code, bad.names);
        return Err(format!(
            "{shown}\n  expected {code} naming {names}, got {}",
            result["error"]
        ));
    }
    assert_eq!(
        (&result["success"], &result["status"], &result["version"]),
        (&json!(false), &json!("failed"), &json!(1))
    );
    assert_eq!(
        told.header("x-chat-status").as_deref(),
        Some("refused"),
        "{shown}"
    );
    assert_ne!(
        told.message_id(),
        result["job_id"].as_str().unwrap(),
        "{shown}"
    );
    Ok(())
}

/// The copy is the message with a few headers more.
fn check_copy(bad: &Bad, copy: &Received) {
    let shown = bad.shown();
    assert!(copy.body == bad.body, "{shown}: the copy has another body");
    assert_eq!(
        copy.header("x-chat-error-code").as_deref(),
        Some(bad.code),
        "{shown}"
    );
    assert!(copy.header("x-chat-error-message").unwrap().len() <= 1024);
    assert_eq!(copy.header("x-chat-attempts").as_deref(), Some("0"));
    assert!(uuid::Uuid::parse_str(&copy.header("x-chat-worker").unwrap()).is_ok());
    let (sent, got) = (&bad.properties, &copy.properties);
    assert_eq!(sent.message_id(), got.message_id(), "{shown}");
    assert_eq!(sent.kind(), got.kind(), "{shown}");
    assert_eq!(sent.content_encoding(), got.content_encoding(), "{shown}");
    assert_eq!(sent.app_id(), got.app_id(), "{shown}");
    assert_eq!(sent.priority(), got.priority(), "{shown}");
    assert_eq!(sent.timestamp(), got.timestamp(), "{shown}");
}

/// The row is the message byte for byte, and says what the sender was told.
fn check_row(bad: &Bad, row: &Value, told: &Received) {
    let error = &told.json()["error"];
    assert_eq!(
        (&row["error_code"], &row["error_message"]),
        (&error["code"], &error["message"])
    );
    let mut hex = String::with_capacity(bad.body.len() * 2);
    for byte in &bad.body {
        write!(hex, "{byte:02x}").unwrap();
    }
    assert!(
        row["hex"] == hex,
        "{}: the row has another body",
        bad.shown()
    );
}

#[tokio::test]
async fn a_bad_message_is_told_to_those_alone_who_can_be_told() {
    strict()
        .run(async |s| {
            let inbox = s.broker.declare(&s.name("reply.bad")).await;
            let told = s.broker.consume(&inbox).await;
            s.send_bytes(b"{", Properties::default()).await;
            s.send_bytes(
                b"{",
                Properties::default().with_reply_to(inbox.as_str().into()),
            )
            .await;
            assert_eq!(told.next().await.json()["error"]["code"], "invalid_json");
            let dead = s.dead_letters().await;
            let copies = [dead.next().await, dead.next().await];
            assert!(copies.iter().any(|copy| {
                copy.properties
                    .reply_to()
                    .as_ref()
                    .is_some_and(|to| to.as_str() == inbox)
            }));
            s.answer(&ask("still there?")).await;
            let rest = s.results_so_far().await;
            assert!(rest.is_empty(), "{rest:?}");
        })
        .await;
}

#[tokio::test]
async fn what_could_be_read_of_a_bad_job_stands_in_its_result() {
    strict()
        .run(async |s| {
            let id = uuid::Uuid::new_v4().to_string();
            let job = with(
                with(
                    with(ask("x"), "job_id", id.as_str()),
                    "conversation_id",
                    id.as_str(),
                ),
                "messages",
                7,
            );
            s.send_bytes(
                job.to_string().as_bytes(),
                Properties::default().with_correlation_id("c".into()),
            )
            .await;
            let result = s.result_of(&id).await;
            assert_eq!(
                (&result.json()["user_id"], &result.json()["conversation_id"]),
                (&json!("user-42"), &json!(id))
            );
            assert_eq!(result.correlation_id(), "c");
            // The id is not used up by it.
            let good = with(ask("x"), "job_id", id.as_str());
            s.send(&good).await;
            assert_eq!(s.result_of(&id).await.json()["status"], "completed");
        })
        .await;
}

#[tokio::test]
async fn a_job_with_odd_but_legal_properties_runs() {
    strict()
        .run(async |s| {
            for properties in [
                Properties::default()
                    .with_headers(weird_headers())
                    .with_timestamp(u64::MAX)
                    .with_priority(255),
                Properties::default().with_message_id("m".repeat(255).into()),
                Properties::default()
                    .with_message_id("ünïcode 😀".into())
                    .with_content_type("text/plain".into()),
                Properties::default()
                    .with_message_id("".into())
                    .with_reply_to("".into())
                    .with_correlation_id("".into())
                    .with_type("".into()),
                Properties::default()
                    .with_content_encoding("UTF-8".into())
                    .with_delivery_mode(1)
                    .with_cluster_id("x".into()),
                Properties::default()
                    .with_message_id("a\0b".into())
                    .with_correlation_id("c\0d".into()),
            ] {
                s.send_bytes(ask("x").to_string().as_bytes(), properties.clone())
                    .await;
                let result = s.results().await.next().await;
                assert_eq!(result.json()["status"], "completed", "{properties:?}");
                if let Some(id) = properties
                    .correlation_id()
                    .as_ref()
                    .filter(|id| !id.as_str().is_empty())
                {
                    assert_eq!(result.correlation_id(), id.as_str());
                }
            }
        })
        .await;
}
