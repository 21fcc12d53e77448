//! Text that Postgres refuses: stored escaped, and back as it was.

use serde_json::{Value, json};

use crate::scenario::{Properties, Scenario, Setup, said};
use crate::stub_model::Reply;

/// A job as JSON text, since no value of Rust holds a lone surrogate.
fn job(id: &str, content: &str, metadata: &str) -> String {
    format!(
        r#"{{"job_id":"{id}","user_id":"user-42","messages":[{{"role":"user","content":"{content}"}}],"metadata":{{"k":"{metadata}"}}}}"#
    )
}

/// The text of the result of such a job.
async fn result_text(s: &Scenario, content: &str, metadata: &str) -> (String, String) {
    let id = uuid::Uuid::new_v4().to_string();
    let body = job(&id, content, metadata);
    s.send_bytes(body.as_bytes(), Properties::default()).await;
    let received = s.results().await.next().await;
    let text = received.text().to_owned();
    assert!(
        text.contains(&id) && text.contains(r#""status":"completed""#),
        "{text}"
    );
    (id, text)
}

/// What hosts send: NUL, lone surrogates, the escape character itself, escapes of escapes.
const ODD: [&str; 8] = [
    r"a\u0000b",
    r"a\ud800b",
    r"\udc00\ud800",
    "␛",
    "␛0000 ␛d800 ␛241b",
    r"\\u0000",
    r"\u241b0000",
    r"😀 \ud83d\ude00 é \t \u0001",
];

#[tokio::test]
async fn odd_text_in_content_and_metadata_is_no_failure_and_comes_back() {
    Setup::new().model(|_| Reply::text("yes")).run(async |s| {
        for odd in ODD {
            let (id, text) = result_text(s, odd, odd).await;
            let metadata = text.split_once(r#""metadata":{"k":"#).unwrap().1.split_once('}').unwrap().0;
            assert_eq!(units(metadata), units(&format!("\"{odd}\"")), "{odd}");
            let stored = s.row(format!("SELECT request #>> '{{messages,0,content}}' AS content, metadata ->> 'k' AS k FROM chat.jobs WHERE id = '{id}'")).await;
            assert_eq!(stored["content"], stored["k"]);
            s.rows("SELECT * FROM chat.transcript").await;
            let asked = s.model.requests().pop().unwrap();
            let content = asked.text.rsplit_once(r#""content":"#).unwrap().1.rsplit_once("}]").unwrap().0;
            assert_eq!(units(content), mended(units(&format!("\"{odd}\""))), "{odd}: {content}");
        }
    }).await;
}

#[tokio::test]
async fn odd_text_in_the_models_answer_is_no_failure_and_comes_back() {
    Setup::new()
        .run(async |s| {
            for odd in ODD {
                s.model.push(Reply::message_text(format!(
                    r#"{{"role":"assistant","content":"{odd}"}}"#
                )));
                let (id, text) = result_text(s, "x", "x").await;
                let content = text
                    .split_once(r#""content":"#)
                    .unwrap()
                    .1
                    .split_once("},")
                    .unwrap()
                    .0;
                assert_eq!(
                    units(content),
                    units(&format!("\"{odd}\"")),
                    "{odd}: {text}"
                );
                // And once more, from what is stored.
                s.send_bytes(job(&id, "x", "x").as_bytes(), Properties::default())
                    .await;
                let again = s.results().await.next().await;
                let content = again
                    .text()
                    .split_once(r#""content":"#)
                    .unwrap()
                    .1
                    .split_once("},")
                    .unwrap()
                    .0;
                assert_eq!(units(content), units(&format!("\"{odd}\"")), "{odd}");
                let row = s.job(&id).await;
                assert!(!row["reply"].as_str().unwrap().contains('\0'));
            }
        })
        .await;
}

#[tokio::test]
async fn odd_text_goes_through_tools_and_later_turns() {
    let line = Setup::new().server(
        "line",
        json!({"command": crate::scenario::example("line_server"), "protocol": "line"}),
    );
    line.run(async |s| {
        for odd in ODD {
            let arguments = serde_json::to_string(&format!(r#"{{"text":"{odd}"}}"#)).unwrap();
            let call = format!(r#"{{"role":"assistant","content":null,"tool_calls":[{{"id":"c1","type":"function","function":{{"name":"line__upper","arguments":{arguments}}}}}]}}"#);
            s.model.push(Reply::message_text(call));
            s.model.push(Reply::text("done"));
            let (id, _) = result_text(s, "x", "x").await;
            let call = s.tool_calls(&id).await.remove(0);
            let told = said(&s.last_prompt(), "tool").remove(0);
            match serde_json::from_str::<String>(&format!("\"{odd}\"")) {
                Ok(text) => {
                    assert_eq!((&call["status"], &told), (&json!("succeeded"), &text.to_uppercase()), "{odd}");
                }
                // Half a surrogate pair: no tool can be asked with it, and the model is told.
                Err(_) => assert_eq!(call["status"], "refused", "{odd}: {call}"),
            }
            // The next turn replays it all.
            s.model.push(Reply::text("again"));
            let next = json!({"user_id": "user-42", "conversation_id": id, "messages": [{"role": "user", "content": "y"}]});
            assert_eq!(s.answer(&next).await["message"]["content"], "again");
            assert_eq!(said(&s.last_prompt(), "tool").remove(0), told, "{odd}");
        }
    }).await;
}

#[tokio::test]
async fn odd_text_in_properties_is_kept() {
    Setup::new().model(|_| Reply::text("yes")).run(async |s| {
        let inbox = s.broker.declare(&s.name("reply.a\0␛b")).await;
        let told = s.broker.consume(&inbox).await;
        for correlation in ["a\0b", "␛0000", "␛"] {
            let properties = Properties::default().with_correlation_id(correlation.into()).with_reply_to(inbox.as_str().into());
            s.send_bytes(job(&uuid::Uuid::new_v4().to_string(), "x", "x").as_bytes(), properties.clone()).await;
            assert_eq!(told.next().await.correlation_id(), correlation);
            s.send_bytes(b"{", properties).await;
            assert_eq!(told.next().await.correlation_id(), correlation);
        }
        let rows = s.rows("SELECT properties ->> 'correlation_id' AS id FROM chat.dead_letters ORDER BY created_at, id").await;
        let mut ids: Vec<_> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["a␛0000b", "␛241b", "␛241b0000"]);
    }).await;
}

/// The UTF-16 units that a JSON string stands for.
fn units(json: &str) -> Vec<u16> {
    let inner = json
        .strip_prefix('"')
        .and_then(|json| json.strip_suffix('"'));
    let mut rest = inner.unwrap_or_else(|| panic!("no JSON string: {json}"));
    let mut units = Vec::new();
    while let Some(first) = rest.chars().next() {
        if let Some(digits) = rest.strip_prefix("\\u").and_then(|rest| rest.get(..4)) {
            units.push(u16::from_str_radix(digits, 16).unwrap());
            rest = &rest[6..];
        } else if first == '\\' {
            let pair: Value = serde_json::from_str(&format!("\"{}\"", &rest[..2])).unwrap();
            units.extend(pair.as_str().unwrap().encode_utf16());
            rest = &rest[2..];
        } else {
            units.extend(first.encode_utf16(&mut [0; 2]).iter());
            rest = &rest[first.len_utf8()..];
        }
    }
    units
}

/// What a reader is sent who refuses half a surrogate pair.
fn mended(units: Vec<u16>) -> Vec<u16> {
    let chars = char::decode_utf16(units).map(|char| char.unwrap_or('\u{FFFD}'));
    chars.collect::<String>().encode_utf16().collect()
}
