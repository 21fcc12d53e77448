//! A completion piece by piece, as server-sent events.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// How a stream goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Course {
    /// Between two events.
    pub(super) pace: Duration,
    pub(super) fault: Option<Fault>,
}

/// What goes wrong with a stream, after so many of its events.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// It ends, as if that were all.
    Ends(usize),
    /// It stays open, and nothing more comes.
    Stalls(usize),
    /// The connection is closed in the middle of an event.
    Breaks(usize),
    /// An error comes instead of the next event.
    Fails(usize),
}

/// The events of a completion; the last of them says how many tokens there were if that was asked for.
pub(super) fn events(completion: &[u8], with_usage: bool) -> Vec<String> {
    let completion: Value = serde_json::from_slice(completion).unwrap_or_default();
    let of = |pointer: &str| completion.pointer(pointer).cloned().unwrap_or_default();
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": of("/id"), "object": "chat.completion.chunk", "created": of("/created"), "model": of("/model"),
            "service_tier": "default", "choices": choices,
        });
        if let Some(chunk) = chunk.as_object_mut().filter(|_| with_usage) {
            chunk.insert("usage".to_owned(), usage);
        }
        format!("data: {chunk}\n\n")
    };
    let said = deltas(&of("/choices/0/message"));
    let said = said.into_iter().map(|delta| (delta, Value::Null));
    let last = (json!({}), of("/choices/0/finish_reason"));
    let mut events: Vec<_> = said
        .chain([last])
        .map(|(delta, reason)| {
            let choice =
                json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason});
            chunk(json!([choice]), Value::Null)
        })
        .collect();
    if with_usage {
        events.push(chunk(json!([]), of("/usage")));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

/// A message in deltas: who speaks, what is said, what is called.
fn deltas(message: &Value) -> Vec<Value> {
    let text = |json: &Value, pointer: &str| {
        let text = json.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let mut first = message.as_object().cloned().unwrap_or_default();
    first.remove("tool_calls");
    if let Some(content) = first
        .get_mut("content")
        .filter(|content| content.is_string())
    {
        *content = "".into();
    }
    let mut deltas = vec![Value::Object(first)];
    let content = text(message, "/content");
    deltas.extend(pieces(&content).map(|piece| json!({ "content": piece })));
    let calls = message.get("tool_calls").and_then(Value::as_array);
    for (index, call) in calls.into_iter().flatten().enumerate() {
        let (id, name) = (text(call, "/id"), text(call, "/function/name"));
        let opening = json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}});
        deltas.push(json!({ "tool_calls": [opening] }));
        let arguments = text(call, "/function/arguments");
        deltas.extend(pieces(&arguments).map(
            |piece| json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}),
        ));
    }
    deltas
}

/// A text in pieces of some four characters, as tokens are.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = String> {
    let chars: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = chars
        .chunks(4)
        .map(|piece| piece.iter().collect())
        .collect();
    pieces.into_iter()
}

/// Sends the events; false when the connection is not to be used again.
pub(super) async fn send(
    stream: &mut TcpStream,
    events: &[String],
    course: Course,
) -> io::Result<bool> {
    let head = "HTTP/1.1 200 x\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_stub\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    for (number, event) in events.iter().enumerate() {
        match course.fault {
            Some(Fault::Ends(after)) if after == number => break,
            Some(Fault::Stalls(after)) if after == number => {
                std::future::pending::<()>().await;
            }
            Some(Fault::Breaks(after)) if after == number => {
                let half = event.get(..event.len() / 2).unwrap_or_default();
                stream.write_all(&piece(half)).await?;
                return Ok(false);
            }
            Some(Fault::Fails(after)) if after == number => {
                let error = json!({"error": {"message": "as scripted", "type": "server_error", "param": null, "code": null}});
                stream
                    .write_all(&piece(&format!("data: {error}\n\n")))
                    .await?;
                break;
            }
            Some(_) | None => {}
        }
        stream.write_all(&piece(event)).await?;
        if !course.pace.is_zero() {
            tokio::time::sleep(course.pace).await;
        }
    }
    stream.write_all(b"0\r\n\r\n").await?;
    Ok(true)
}

/// A piece of a body whose length is not known beforehand.
fn piece(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}
