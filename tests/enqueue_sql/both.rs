use chat_worker::escape::armour;
use chat_worker::ids::JobId;
use chat_worker::store::parse_request;
use chat_worker::wire;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::documents::{bad_jobs, full, good_jobs, saying, with};
use super::ground::{Ground, enqueue};

/// The most bytes of a message.
const LIMIT: usize = 1 << 20;

#[tokio::test]
async fn a_bad_job_is_refused_by_the_pointer_to_its_field_as_a_worker_would() {
    Ground::run(async |ground| {
        for (pointer, job) in bad_jobs() {
            let said = ground.enqueue(&job).await.expect_err(&job.to_string());
            let start = format!("JB001 invalid_job: {pointer}: ");
            assert!(said.starts_with(&start), "{job}: {said}");
            assert!(said.len() < 400, "{said}");
            let body = job.to_string();
            let refused = wire::decode(body.as_bytes(), LIMIT).expect_err(&body);
            // Where a worker's reader says less of the place, it says no other.
            let told = refused.failure.message.split_once(": ").unwrap().0;
            assert!(
                pointer.starts_with(told) || !told.starts_with('/'),
                "{job}: {pointer}, but a worker: {}",
                refused.failure
            );
        }
        for table in ["jobs", "conversations"] {
            assert_eq!(ground.count(table).await, 0);
        }
    })
    .await;
}

#[tokio::test]
async fn a_good_job_is_stored_as_a_worker_would_read_it() {
    Ground::run(async |ground| {
        for job in &good_jobs() {
            let body = job.to_string();
            let (read, _) = wire::decode(body.as_bytes(), LIMIT)
                .unwrap_or_else(|refused| panic!("{body}: {}", refused.failure));
            let id = ground
                .enqueue(job)
                .await
                .unwrap_or_else(|said| panic!("{body}: {said}"));
            assert!(read.job_id.is_none_or(|given| given.0 == id), "{body}");
            let row = ground.stored(id).await;
            let request = row.get("json").unwrap().as_str().unwrap();
            let again = parse_request(request, JobId(id)).unwrap();
            assert_eq!(
                again,
                serde_json::from_str(&armour(&body)).unwrap(),
                "{body}"
            );
            let stored: Option<DateTime<Utc>> =
                sqlx::query_scalar("SELECT deadline FROM chat.jobs WHERE id = $1")
                    .bind(id)
                    .fetch_one(&ground.pool)
                    .await
                    .unwrap();
            let micros = |time: DateTime<Utc>| time.timestamp_micros();
            assert_eq!(stored.map(micros), read.deadline.map(micros), "{body}");
        }
    })
    .await;
}

/// Values that stand in most fields by mistake.
const ODD: &str = r#"[null, true, false, 0, 1, -1, 1.5, 3.0, 101, 5000000000, 18446744073709551615, -9223372036854775808,
    1e30, -1e308, "", " ", "x", "auto", "user", "none", "text", "reject", "018f3c1e-7d2a-7000-8000-000000000001", [], [""], ["x"],
    ["x", "y", "z", "a", "b"], [null], [1], [[]], {}, {"x": 1}, {"url": "u"}, {"type": "text", "text": "x"},
    {"role": "user", "content": "x"}]"#;

/// Every pointer into a value, the value's own left out.
fn pointers(value: &Value, pointer: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), value))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, value)| (at.to_string(), value))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (key, value) in children {
        let pointer = format!("{pointer}/{key}");
        pointers(value, &pointer, found);
        found.push(pointer);
    }
}

#[tokio::test]
async fn whatever_stands_in_a_field_is_taken_by_both_or_by_none() {
    let odd: Vec<Value> = serde_json::from_str(ODD).unwrap();
    let mut full = full();
    for field in ["job_id", "conversation_id"] {
        full[field] = Value::Null;
    }
    let mut places = Vec::new();
    pointers(&full, "", &mut places);
    Ground::run(async |ground| {
        for place in &places {
            for value in &odd {
                let mut job = full.clone();
                *job.pointer_mut(place).unwrap() = value.clone();
                let body = job.to_string();
                let refused = wire::decode(body.as_bytes(), LIMIT).err();
                let said = ground.check(&job).await;
                assert_eq!(
                    said.is_some(),
                    refused.is_some(),
                    "{place} as {value}: {said:?}, but a worker: {refused:?}"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn another_version_and_a_job_that_is_too_large_have_codes_of_their_own() {
    Ground::run(async |ground| {
        // The version explains all else that is not understood.
        let said = ground
            .enqueue(&with(json!({"version": 2, "new_field": 1})))
            .await;
        let said = said.unwrap_err();
        assert!(
            said.starts_with("JB002 unsupported_version: /version: "),
            "{said}"
        );
        let large = saying(json!({"role": "user", "content": "x".repeat(16 << 20)}));
        let said = ground.enqueue(&large).await.unwrap_err();
        assert!(said.starts_with("JB003 job_too_large: "), "{said}");
        let none: Result<Uuid, _> = sqlx::query_scalar("SELECT chat.enqueue(NULL)")
            .fetch_one(&ground.pool)
            .await;
        let said = none.unwrap_err().to_string();
        assert!(
            said.contains("invalid_job: the job: expected an object"),
            "{said}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_number_that_no_worker_can_read_is_refused() {
    Ground::run(async |ground| {
        for (pointer, field) in [
            ("/metadata", r#""metadata":{"a":[1e400]}"#),
            (
                "/options/response_format",
                r#""options":{"response_format":{"a":-1e400}}"#,
            ),
        ] {
            let body = format!(
                r#"{{"user_id":"u","messages":[{{"role":"user","content":"x"}}],{field}}}"#
            );
            let said = enqueue(&ground.pool, &body).await.unwrap_err();
            assert!(
                said.starts_with(&format!("JB001 invalid_job: {pointer}: ")),
                "{said}"
            );
            wire::decode(body.as_bytes(), LIMIT).unwrap_err();
        }
    })
    .await;
}
