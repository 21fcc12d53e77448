use serde_json::json;

use super::*;
use crate::store::BuriedHead;

const LETTER: Uuid = Uuid::from_u128(1);
const OLD: Uuid = Uuid::from_u128(2);
const NEW: JobId = JobId(Uuid::from_u128(3));
const PLAIN: &str = r#"{"user_id":"u","messages":[{"role":"user","content":"x"}]}"#;

fn letter(body: &str) -> BuriedLetter {
    BuriedLetter {
        head: BuriedHead {
            id: LETTER,
            job_id: Some(OLD),
            error_code: "model_unavailable".to_owned(),
            error_message: String::new(),
            body_bytes: 0,
            created_at: DateTime::UNIX_EPOCH,
            replayed_at: None,
        },
        body: body.as_bytes().to_vec(),
        properties: "{}".to_owned(),
    }
}

fn terms() -> Terms {
    let globs = globset::GlobSetBuilder::new()
        .add(globset::Glob::new("amq.gen-*").unwrap())
        .build();
    Terms {
        max_job_bytes: 64 << 10,
        reply_to_allow: globs.unwrap(),
        trust_amqp_user: false,
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn replayed(letter: &BuriedLetter) -> Outgoing {
    replay(letter, NEW, &terms(), &Names::new("test"), at(7)).unwrap_or_else(|why| panic!("{why}"))
}

fn refusal(letter: &BuriedLetter, terms: &Terms) -> String {
    match replay(letter, NEW, terms, &Names::new("test"), at(7)) {
        Ok(_) => panic!("it is replayed"),
        Err(why) => why,
    }
}

fn text(message: &Outgoing) -> &str {
    std::str::from_utf8(&message.body).unwrap()
}

#[test]
fn a_replay_is_a_new_job_that_names_the_old_one() {
    let message = replayed(&letter(PLAIN));
    let (job, _) = wire::decode(&message.body, 1 << 20).unwrap();
    assert_eq!(job.job_id, Some(NEW));
    assert_eq!(job.conversation_id, None);
    assert_eq!(job.metadata, json!({"replay_of": OLD}).as_object().cloned());
    assert_eq!(message.to, Address::Queue("test.jobs".to_owned()));
    assert_eq!(message.properties.kind.as_deref(), Some(JOB_TYPE));
    assert_eq!(message.properties.timestamp, Some(7));
    let id = NEW.to_string();
    assert_eq!(message.properties.message_id.as_deref(), Some(&*id));
    let mut nobodys = letter(PLAIN);
    nobodys.head.job_id = None;
    assert!(text(&replayed(&nobodys)).contains(&LETTER.to_string()));
}

#[test]
fn all_else_is_sent_as_it_was_written() {
    let body = r#"{"user_id":"u","job_id":"00000000-0000-0000-0000-000000000002",
        "conversation_id":"00000000-0000-0000-0000-000000000009","options":{"temperature":0.20},
        "messages":[ {"role":"user","content":"a\u0000b\ud800␛"} ],
        "metadata":{"replay_of":"older","n":1.000000000000000000001,"␛":"\udc00"}}"#;
    let message = replayed(&letter(body));
    let text = text(&message);
    for part in [
        r#""conversation_id":"00000000-0000-0000-0000-000000000009""#,
        r#""options":{"temperature":0.20}"#,
        r#""messages":[ {"role":"user","content":"a\u0000b\ud800\u241b"} ]"#,
        r#""n":1.000000000000000000001"#,
        r#""\u241b":"\udc00""#,
        r#""replay_of":"00000000-0000-0000-0000-000000000002""#,
        r#""job_id":"00000000-0000-0000-0000-000000000003""#,
    ] {
        assert_eq!(text.matches(part).count(), 1, "{part} in {text}");
    }
    assert!(!text.contains("older"), "{text}");
}

#[test]
fn metadata_that_is_null_is_none() {
    let body = PLAIN.replace("}]}", r#"}],"metadata":null}"#);
    let text = text(&replayed(&letter(&body))).to_owned();
    assert!(text.contains(r#""metadata":{"replay_of":"#), "{text}");
}

#[test]
fn properties_are_kept_where_they_are_allowed() {
    let mut old = letter(PLAIN);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    old.properties = json!({
        "message_id": "m1", "reply_to": "amq.gen-7", "correlation_id": "c␛0000", "priority": 5,
        "timestamp": 1, "expiration": "5", "user_id": "guest", "app_id": "shop",
        "headers": {"traceparent": trace, "tracestate": "a=b", "x-tenant": "blue", "CC": ["q"]},
    })
    .to_string();
    let message = replayed(&old);
    let properties = &message.properties;
    assert_eq!(properties.reply_to.as_deref(), Some("amq.gen-7"));
    assert_eq!(properties.correlation_id.as_deref(), Some("c\0"));
    assert_eq!(properties.priority, Some(5));
    assert_eq!(properties.user_id.as_ref(), None);
    assert_eq!(properties.expiration.as_ref(), None);
    assert!(properties.headers.is_empty());
    let headers: Vec<_> = message.headers.iter().map(|(name, _)| &**name).collect();
    assert_eq!(headers, ["traceparent", "tracestate"]);
    old.properties = r#"{"reply_to":"payroll","headers":{"traceparent":7}}"#.to_owned();
    let message = replayed(&old);
    assert_eq!(message.properties.reply_to.as_ref(), None);
    assert!(message.headers.is_empty());
}

#[test]
fn what_would_fail_again_is_not_sent() {
    let with = |field: &str| PLAIN.replace("}]}", &format!("}}],{field}}}"));
    let full = with(&format!(r#""metadata":{{"a":"{}"}}"#, "x".repeat(16_350)));
    let long = PLAIN.replace('x', &"x".repeat(65_470));
    for (body, says) in [
        ("", "it is no job: invalid_json"),
        (
            "{\"user_id\":\"u\"}",
            "it is no job: invalid_job: /messages",
        ),
        (
            &with(r#""deadline":"1970-01-01T00:00:07Z""#),
            "/deadline: 1970-01-01 00:00:07 UTC",
        ),
        (
            &full,
            "with metadata.replay_of it is no job: invalid_job: /metadata: expected at most 16384",
        ),
        (&long, "with metadata.replay_of it is no job: job_too_large"),
    ] {
        let why = refusal(&letter(body), &terms());
        assert!(why.starts_with(says), "{why}");
    }
    replayed(&letter(&with(r#""deadline":"1970-01-01T00:00:08Z""#)));
    let mut unreadable = letter(PLAIN);
    unreadable.properties = r#"{"priority":"high"}"#.to_owned();
    let why = refusal(&unreadable, &terms());
    assert!(why.contains("properties"), "{why}");
}

#[test]
fn nobody_speaks_for_another_by_way_of_a_replay() {
    let mut spoofed = letter(PLAIN);
    spoofed.properties = r#"{"user_id":"mallory"}"#.to_owned();
    replayed(&spoofed);
    let strict = Terms {
        trust_amqp_user: true,
        ..terms()
    };
    assert!(refusal(&spoofed, &strict).starts_with("/user_id: "));
    spoofed.head.error_code = "unauthorized".to_owned();
    assert!(refusal(&spoofed, &terms()).starts_with("/user_id: "));
    let mut own = letter(PLAIN);
    own.properties = r#"{"user_id":"u"}"#.to_owned();
    assert!(replay(&own, NEW, &strict, &Names::new("test"), at(7)).is_ok());
}
