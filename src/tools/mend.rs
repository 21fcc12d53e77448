//! Lines that the protocol library cannot read and would drop, so that a call would wait for its
//! time to run out: mended where it is clear what was meant, else an error for the call that they
//! answer. Pure.

use std::borrow::Cow;
use std::collections::HashSet;

use rmcp::RoleClient;
use rmcp::model::{ErrorCode, ErrorData, JsonRpcMessage, RequestId};
use rmcp::service::RxJsonRpcMessage;
use serde_json::{Map, Value, json};

/// What a server says.
pub(super) type Message = RxJsonRpcMessage<RoleClient>;

/// The requests that have not been answered.
pub(super) type Pending = HashSet<RequestId>;

/// The messages of a line; none if it is noise.
pub(super) fn mend(line: &[u8], pending: &Pending) -> Vec<Message> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_start_matches('\u{feff}').trim();
    if !text.starts_with(['{', '[']) {
        return Vec::new();
    }
    match serde_json::from_str(&patched(text)) {
        // A batch, as the revision of 2025-03-26 had them.
        Ok(Value::Array(values)) => {
            let messages = values.into_iter();
            messages.filter_map(|value| read(value, pending)).collect()
        }
        Ok(value) => read(value, pending).into_iter().collect(),
        Err(_) if text.contains("\"jsonrpc\"") => {
            let why = "The tool server answered with something that is no JSON.";
            failed(text, why, pending).into_iter().collect()
        }
        Err(_) => Vec::new(),
    }
}

/// The error `why` for the request that `text`, a part of an answer, seems to answer.
pub(super) fn failed(text: &str, why: &str, pending: &Pending) -> Option<Message> {
    let mut told = text.match_indices("\"id\"").filter_map(|(at, key)| {
        let value = text.get(at + key.len()..)?.trim_start();
        let value = value.strip_prefix(':')?.trim_start();
        let end = value.find([',', '}', ' ']).unwrap_or(value.len());
        let id = serde_json::from_str(value.get(..end)?).ok()?;
        request(&id, pending)
    });
    let id = told.next().or_else(|| only(pending))?;
    Some(error(why, id))
}

/// `message`; an error that does not say what it answers is given to the request that must be meant.
pub(super) fn addressed(message: Message, pending: &Pending) -> Message {
    match message {
        JsonRpcMessage::Error(error) if error.id.is_none() => {
            JsonRpcMessage::error(error.error, only(pending))
        }
        known @ (JsonRpcMessage::Request(_)
        | JsonRpcMessage::Response(_)
        | JsonRpcMessage::Notification(_)
        | JsonRpcMessage::Error(_)) => known,
    }
}

fn error(why: &str, id: RequestId) -> Message {
    let error = ErrorData::new(ErrorCode::INTERNAL_ERROR, why.to_owned(), None);
    Message::error(error, Some(id))
}

/// The pending request of this id; some servers make a text of a number.
fn request(id: &Value, pending: &Pending) -> Option<RequestId> {
    let number = id.as_i64().or_else(|| id.as_str()?.parse().ok());
    let as_number = number.map(RequestId::Number);
    let as_text = id.as_str().map(|text| RequestId::String(text.into()));
    let mut known = as_number.into_iter().chain(as_text);
    known.find(|id| pending.contains(id))
}

/// The request that must be meant.
fn only(pending: &Pending) -> Option<RequestId> {
    let mut pending = pending.iter();
    let only = pending.next()?;
    pending.next().is_none().then(|| only.clone())
}

fn read(value: Value, pending: &Pending) -> Option<Message> {
    let Value::Object(mut object) = value else {
        return None;
    };
    object.insert("jsonrpc".to_owned(), json!("2.0"));
    if object.contains_key("method") {
        return serde_json::from_value(Value::Object(object)).ok();
    }
    let given = object.get("id").filter(|id| !id.is_null());
    let id = match given {
        Some(id) => request(id, pending)?,
        None if object.contains_key("error") || object.contains_key("result") => only(pending)?,
        None => return None,
    };
    object.insert("id".to_owned(), id.clone().into_json_value());
    match object.remove("error").filter(|error| !error.is_null()) {
        Some(error) => {
            object.remove("result");
            object.insert("error".to_owned(), plain_error(error));
        }
        None if object.contains_key("result") => {}
        None => {
            return Some(error(
                "The tool server answered with neither a result nor an error.",
                id,
            ));
        }
    }
    let why = "The tool server's answer cannot be read.";
    let message = serde_json::from_value(Value::Object(object)).ok();
    Some(message.unwrap_or_else(|| error(why, id)))
}

/// An error as the protocol has it: a whole number as its code, a text as its message.
fn plain_error(error: Value) -> Value {
    let Value::Object(error) = error else {
        let message = text(&error);
        return json!({"code": ErrorCode::INTERNAL_ERROR.0, "message": message});
    };
    let code = error.get("code").and_then(whole);
    let mut plain = Map::new();
    plain.insert(
        "code".to_owned(),
        json!(code.unwrap_or(ErrorCode::INTERNAL_ERROR.0)),
    );
    let message = error
        .get("message")
        .map_or_else(|| "it does not say why".to_owned(), text);
    plain.insert("message".to_owned(), json!(message));
    plain.extend(
        error
            .get("data")
            .map(|data| ("data".to_owned(), data.clone())),
    );
    Value::Object(plain)
}

fn whole(code: &Value) -> Option<i32> {
    let code = match code {
        Value::Number(code) => code.to_string(),
        Value::String(code) => code.clone(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    code.split('.').next()?.parse().ok()
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// `text` with what JSON does not allow and some write all the same: halves of surrogate pairs and
/// bare control characters in texts, `NaN` and `Infinity` elsewhere.
fn patched(text: &str) -> Cow<'_, str> {
    let mut patched = String::new();
    // Up to here, `text` is in `patched`.
    let mut done = 0;
    let mut put = |from: usize, to: usize, instead: &str| {
        patched.push_str(text.get(done..from).unwrap_or_default());
        patched.push_str(instead);
        done = to;
    };
    let mut in_text = false;
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        let rest = text.get(at..).unwrap_or_default();
        at += match (byte, in_text) {
            (b'"', _) => {
                in_text = !in_text;
                1
            }
            (b'\\', true) => match escape(rest) {
                Escape::Sound(length) => length,
                Escape::Half => {
                    put(at, at + 6, "\\ufffd");
                    6
                }
            },
            (0..=0x1f, true) => {
                put(at, at + 1, " ");
                1
            }
            (b'N' | b'I' | b'-', false) => {
                let words = ["NaN", "Infinity", "-Infinity", "-NaN"];
                let word = words.into_iter().find(|word| rest.starts_with(word));
                let length = word.map_or(1, str::len);
                if word.is_some() {
                    put(at, at + length, "null");
                }
                length
            }
            _ => 1,
        };
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    patched.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(patched)
}

enum Escape {
    /// So many bytes long.
    Sound(usize),
    /// Half of a surrogate pair.
    Half,
}

fn escape(rest: &str) -> Escape {
    let unit = |from: usize| {
        let digits = rest.get(from..from + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => Escape::Sound(12),
        (Some(0xd800..=0xdfff), _) => Escape::Half,
        (Some(_), _) => Escape::Sound(6),
        (None, _) => Escape::Sound(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(ids: impl IntoIterator<Item = i64>) -> Pending {
        ids.into_iter().map(RequestId::Number).collect()
    }

    fn mended(line: &str, ids: impl IntoIterator<Item = i64>) -> Value {
        let messages = mend(line.as_bytes(), &pending(ids));
        serde_json::to_value(messages).unwrap()
    }

    #[test]
    fn half_a_surrogate_pair_and_numbers_that_are_none_are_put_right() {
        let line = r#"{"jsonrpc":"2.0","id":1,"result":{"a":"x\ud83dy\ude00\\ud83d\ud83d\ude00","b":NaN,"c":[-Infinity,1],"d":"NaN"}}"#;
        let expected = json!([{"jsonrpc": "2.0", "id": 1, "result": {
            "a": "x\u{fffd}y\u{fffd}\\ud83d😀", "b": null, "c": [null, 1], "d": "NaN"}}]);
        assert_eq!(mended(line, [1]), expected);
    }

    #[test]
    fn an_error_in_whatever_form_is_one() {
        let error = |error: &str| {
            let line = format!(r#"{{"id":"1","error":{error},"result":null}}"#);
            mended(&line, [1])[0]["error"].clone()
        };
        let said = json!({"code": -32000, "message": "no"});
        assert_eq!(error(r#"{"code":-32000.0,"message":"no"}"#), said);
        assert_eq!(error(r#"{"code":"-32000","message":"no"}"#), said);
        assert_eq!(error(r#""no""#), json!({"code": -32603, "message": "no"}));
        assert_eq!(
            error(r#"{"message":{"why":1}}"#),
            json!({"code": -32603, "message": "{\"why\":1}"})
        );
    }

    #[test]
    fn an_answer_without_an_id_is_that_of_the_only_request_and_of_none_among_many() {
        let line = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}"#;
        assert_eq!(mended(line, [7])[0]["id"], 7);
        assert_eq!(mended(line, [7, 8]), json!([]));
        assert_eq!(
            mended(r#"{"jsonrpc":"2.0","id":7}"#, [7, 8])[0]["error"]["code"],
            -32603
        );
    }

    #[test]
    fn what_cannot_be_read_fails_the_request_that_it_answers() {
        let line = r#"{"jsonrpc":"2.0","id":8,"result":{"#;
        assert_eq!(mended(line, [7, 8])[0]["id"], 8);
        assert_eq!(mended(r#"{"jsonrpc":"2.0","result":{"#, [7])[0]["id"], 7);
        let other = r#"{"jsonrpc":"2.0","id":9,"result":{"#;
        assert_eq!(mended(other, [7, 8]), json!([]));
    }

    #[test]
    fn a_batch_is_taken_apart() {
        let line = r#"[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","id":2,"result":{}}]"#;
        assert_eq!(mended(line, [1, 2]).as_array().unwrap().len(), 2);
    }

    #[test]
    fn noise_is_noise() {
        for noise in [
            "",
            "Server started",
            "\u{1b}[32minfo\u{1b}[0m",
            r#"{"level":"info","id":1"#,
            r#"{"level":"info","msg":"jsonrpc"}"#,
            "{7}",
            "[1, 2]",
        ] {
            assert_eq!(mended(noise, [1]), json!([]), "{noise}");
        }
    }
}
