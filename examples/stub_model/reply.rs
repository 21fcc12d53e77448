use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::responses;
use super::stream::{Course, Fault};

/// What the stub answers, and how well it behaves meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(super) body: Body,
    pub(super) delay: Duration,
    pub(super) signal: Option<Arc<Semaphore>>,
    finish: Option<String>,
    /// How it goes if it is asked for piece by piece; none: it comes in one piece all the same.
    pub(super) course: Option<Course>,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    /// An assistant message's JSON, which is put into a completion.
    Message(String),
    /// A whole response.
    Raw {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// The connection is closed unanswered.
    Close,
    /// A success that says to be as long as this and ends half-way.
    Truncated(Vec<u8>),
    /// The connection stays open and silent.
    Never,
}

impl Reply {
    /// An answer in words.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self::message(&json!({"role": "assistant", "content": text, "refusal": null}))
    }

    /// Calls of tools, each with an id of its own.
    pub(crate) fn calls(calls: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let calls: Vec<_> = calls
            .into_iter()
            .map(|(name, arguments)| call(name, &arguments))
            .collect();
        Self::message(
            &json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": calls}),
        )
    }

    /// An assistant message of any shape.
    pub(crate) fn message(message: &Value) -> Self {
        Self::message_text(message.to_string())
    }

    /// An assistant message as exactly this JSON.
    pub(crate) fn message_text(json: impl Into<String>) -> Self {
        Self::from(Body::Message(json.into()))
    }

    /// Any status and JSON.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::raw(status, body.to_string())
    }

    /// Any status and body.
    pub(crate) fn raw(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::from(Body::Raw {
            status,
            headers: Vec::new(),
            body: body.into(),
        })
    }

    /// A refusal as `OpenAI` words it.
    pub(crate) fn error(status: u16, kind: &str, code: &str, message: &str) -> Self {
        Self::json(
            status,
            &json!({"error": {"message": message, "type": kind, "param": null, "code": code}}),
        )
    }

    /// The connection is closed unanswered.
    pub(crate) fn close() -> Self {
        Self::from(Body::Close)
    }

    /// A body that is cut off.
    pub(crate) fn truncated() -> Self {
        Self::from(Body::Truncated(
            br#"{"id":"chatcmpl-cut","object":"chat.completion","choices":[{"index":0,"message":{"#
                .to_vec(),
        ))
    }

    /// No answer, ever.
    pub(crate) fn never() -> Self {
        Self::from(Body::Never)
    }

    /// This reply with a header more; only for whole responses ([`Self::raw`] and its kin).
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Body::Raw { headers, .. } = &mut self.body {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// This reply with another finish reason.
    pub(crate) fn finish(mut self, reason: &str) -> Self {
        self.finish = Some(reason.to_owned());
        self
    }

    /// This reply with so much time between its pieces, if it is asked for piece by piece.
    pub(crate) fn paced(self, pace: Duration) -> Self {
        self.going(|course| course.pace = pace)
    }

    /// This reply, which ends after so many of its pieces as if that were all.
    pub(crate) fn ends_after(self, pieces: usize) -> Self {
        self.going(|course| course.fault = Some(Fault::Ends(pieces)))
    }

    /// This reply, of which nothing more comes after so many of its pieces.
    pub(crate) fn stalls_after(self, pieces: usize) -> Self {
        self.going(|course| course.fault = Some(Fault::Stalls(pieces)))
    }

    /// This reply, whose connection is closed after so many of its pieces.
    pub(crate) fn breaks_after(self, pieces: usize) -> Self {
        self.going(|course| course.fault = Some(Fault::Breaks(pieces)))
    }

    /// This reply, with an error after so many of its pieces.
    pub(crate) fn fails_after(self, pieces: usize) -> Self {
        self.going(|course| course.fault = Some(Fault::Fails(pieces)))
    }

    /// This reply in one piece, also if it is asked for piece by piece.
    pub(crate) fn in_one_piece(mut self) -> Self {
        self.course = None;
        self
    }

    fn going(mut self, change: impl FnOnce(&mut Course)) -> Self {
        change(self.course.get_or_insert_default());
        self
    }

    /// This reply, so much later.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// This reply, once there is a permit for it, which it uses up.
    pub(crate) fn when(mut self, signal: &Arc<Semaphore>) -> Self {
        self.signal = Some(Arc::clone(signal));
        self
    }

    /// The completion around an assistant message, for a request to `model` of `request_bytes`.
    pub(super) fn completion(&self, message: &str, model: &str, request_bytes: usize) -> Vec<u8> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let calls = message.contains("\"tool_calls\":[");
        let finish = self
            .finish
            .as_deref()
            .unwrap_or(if calls { "tool_calls" } else { "stop" });
        let (prompt, said) = tokens(message, request_bytes);
        let total = prompt + said;
        let model = Value::from(format!("{model}-2024-07-18"));
        let finish = Value::from(finish);
        format!(
            r#"{{"id":"chatcmpl-stub{number:020}","object":"chat.completion","created":1767225600,"model":{model},"choices":[{{"index":0,"message":{message},"logprobs":null,"finish_reason":{finish}}}],"usage":{{"prompt_tokens":{prompt},"completion_tokens":{said},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}},"service_tier":"default","system_fingerprint":"fp_stub"}}"#
        )
        .into_bytes()
    }

    /// The same, as a response of the Responses API.
    pub(super) fn response(&self, message: &str, model: &str, request_bytes: usize) -> Vec<u8> {
        let tokens = tokens(message, request_bytes);
        responses::reply(message, self.finish.as_deref(), model, tokens)
    }
}

/// The tokens of a request and of its answer: some four characters make one.
fn tokens(message: &str, request_bytes: usize) -> (usize, usize) {
    (request_bytes / 4 + 1, message.len() / 4 + 1)
}

impl From<Body> for Reply {
    fn from(body: Body) -> Self {
        Self {
            body,
            delay: Duration::ZERO,
            signal: None,
            finish: None,
            course: Some(Course::default()),
        }
    }
}

/// A call as the model writes it, with an id that no other call has.
pub(super) fn call(name: &str, arguments: &Value) -> Value {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    json!({
        "id": format!("call_stub{number:020}"),
        "type": "function",
        "function": {"name": name, "arguments": arguments.to_string()},
    })
}
