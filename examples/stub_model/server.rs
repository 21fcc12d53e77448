//! The scripted model server itself; tests include this file with `#[path]`.
//!
//! It speaks HTTP/1.1 by hand, because it has to be able to misbehave: to close a connection
//! unanswered, to send half a body, to stay silent. Dropping a [`StubModel`] ends it and every
//! connection.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

mod arithmetic;
mod connection;
mod input;
mod reply;
mod request;
mod responses;
mod rules;
mod stream;
mod tool_rules;

pub(crate) use reply::Reply;

/// Where the replies come from. Replies that are pushed come first in any case.
pub(crate) enum Script {
    /// Replies in this order; at its end every request is refused.
    Queue(Vec<Reply>),
    /// A reply for each request's body.
    Closure(Box<dyn Fn(&Value) -> Reply + Send + Sync>),
    /// Adds two numbers with a tool whose name ends in `add`.
    Arithmetic,
}

impl Script {
    /// Replies in this order.
    pub(crate) fn queue(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::Queue(replies.into_iter().collect())
    }

    /// A reply for each request's body.
    pub(crate) fn closure(reply: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        Self::Closure(Box::new(reply))
    }

    /// Adds two numbers with a tool.
    pub(crate) fn arithmetic() -> Self {
        Self::Arithmetic
    }
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// When its last byte was read.
    pub(crate) at: Instant,
    /// The path that it went to.
    pub(crate) path: String,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body, read.
    pub(crate) body: Value,
    /// Its body as it came.
    pub(crate) text: String,
    /// Why it was refused, if it broke a rule.
    pub(crate) refused: Option<String>,
}

/// A scripted model server within this process.
pub(crate) struct StubModel {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

/// What all connections share.
struct Shared {
    script: Mutex<Script>,
    pushed: Mutex<VecDeque<Reply>>,
    recorded: Mutex<Vec<Recorded>>,
    records: AtomicBool,
    /// How many requests came in.
    arrived: watch::Sender<usize>,
    /// How many callers went away before their reply was due.
    hung_up: watch::Sender<usize>,
    latency: Duration,
    key: Mutex<Option<Key>>,
}

/// The key that a server wants.
struct Key {
    value: String,
    /// Its listing of models is for everybody.
    lists_publicly: bool,
}

impl StubModel {
    /// Starts on a free port, on the runtime of the caller.
    #[expect(clippy::expect_used, reason = "a test without its server cannot go on")]
    pub(crate) fn start(script: Script) -> Self {
        Self::open(script, 0, Duration::ZERO).expect("no free port on 127.0.0.1")
    }

    /// Starts on `port`; each reply takes `latency` at least.
    pub(crate) fn open(script: Script, port: u16, latency: Duration) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let (script, pushed) = match script {
            // The queue is what is pushed first.
            Script::Queue(replies) => (Script::Queue(Vec::new()), replies.into()),
            other @ (Script::Closure(_) | Script::Arithmetic) => (other, VecDeque::new()),
        };
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            pushed: Mutex::new(pushed),
            recorded: Mutex::default(),
            records: AtomicBool::new(true),
            arrived: watch::Sender::new(0),
            hung_up: watch::Sender::new(0),
            latency,
            key: Mutex::default(),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(connection::accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            _accepting: accepting,
        })
    }

    /// Keeps no requests: for long runs.
    pub(crate) fn forgetful(self) -> Self {
        self.shared.records.store(false, Ordering::Relaxed);
        self
    }

    /// Answers nobody without this key, but for its listing of models if that is public.
    pub(crate) fn wants_key(self, key: &str, lists_publicly: bool) -> Self {
        *lock(&self.shared.key) = Some(Key {
            value: key.to_owned(),
            lists_publicly,
        });
        self
    }

    /// What `OPENAI_BASE_URL` is to be.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The next reply that has not been asked for yet.
    pub(crate) fn push(&self, reply: Reply) {
        lock(&self.shared.pushed).push_back(reply);
    }

    /// The requests so far, refused ones included.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        lock(&self.shared.recorded).clone()
    }

    /// Why requests were refused, in their order; empty when all of them kept the rules.
    pub(crate) fn refusals(&self) -> Vec<String> {
        lock(&self.shared.recorded)
            .iter()
            .filter_map(|request| request.refused.clone())
            .collect()
    }

    /// Waits until `count` requests came in.
    pub(crate) async fn arrived(&self, count: usize) {
        let mut arrived = self.shared.arrived.subscribe();
        // The sender lives as long as this server, so the wait ends by the count alone.
        drop(arrived.wait_for(|arrived| *arrived >= count).await);
    }

    /// Waits until `count` callers went away before their reply was due.
    pub(crate) async fn hung_up(&self, count: usize) {
        let mut hung_up = self.shared.hung_up.subscribe();
        drop(hung_up.wait_for(|hung_up| *hung_up >= count).await);
    }

    /// How many callers went away so far before their reply was due.
    pub(crate) fn hang_ups(&self) -> usize {
        *self.shared.hung_up.borrow()
    }
}

/// What a request asks for.
#[derive(Default)]
struct Asked {
    model: String,
    in_responses: bool,
    /// Whether the usage is to come with the answer, if that is to come piece by piece.
    with_usage: Option<bool>,
}

impl Shared {
    /// The refusal of a request without the right key, in `OpenAI`'s words: they show its ends.
    fn lock_out(&self, head: &str, is_listing: bool) -> Option<Reply> {
        let wanted = lock(&self.key);
        let wanted = wanted
            .as_ref()
            .filter(|key| !(is_listing && key.lists_publicly))?;
        let headers = connection::headers(head);
        let given = headers
            .get("authorization")
            .or_else(|| headers.get("api-key"));
        let given = given
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let given = given.trim_start_matches("Bearer ");
        let masked: String = given.chars().take(8).collect();
        let message = format!(
            "Incorrect API key provided: {masked}***************wxyz. You can find your API key in your account."
        );
        (given != wanted.value)
            .then(|| Reply::error(401, "invalid_request_error", "invalid_api_key", &message))
    }

    /// The reply to a request, and what it asks for. One of Responses is seen as one of Chat
    /// Completions from here on.
    fn reply(&self, head: &str, body: &[u8], in_responses: bool) -> (Reply, Asked) {
        let as_chat = in_responses.then(|| input::as_chat(body)).transpose();
        let as_chat = as_chat.map(|chat| chat.map(|chat| chat.to_string().into_bytes()));
        let seen = as_chat.as_ref().map(|chat| chat.as_deref().unwrap_or(body));
        let chat = seen.map_err(Clone::clone).and_then(|seen| {
            let chat = request::Chat::read(seen)?;
            rules::check(&chat).map(|()| (chat, seen))
        });
        if self.records.load(Ordering::Relaxed) {
            self.record(head, body, chat.as_ref().err());
        }
        let (chat, seen) = match chat {
            Ok(chat) => chat,
            Err(refusal) => return (refusal.into_reply(), Asked::default()),
        };
        let pushed = lock(&self.pushed).pop_front();
        let reply = pushed.unwrap_or_else(|| self.scripted(&chat, seen));
        let with_usage = (chat.stream_options.as_ref())
            .is_some_and(|options| options.include_usage == Some(true));
        let asked = Asked {
            model: chat.model.into_owned(),
            in_responses,
            with_usage: (chat.stream == Some(true)).then_some(with_usage),
        };
        (reply, asked)
    }

    fn scripted(&self, chat: &request::Chat<'_>, body: &[u8]) -> Reply {
        match &*lock(&self.script) {
            Script::Queue(_) => {
                rules::Refusal::new("messages", "the script has no more replies").into_reply()
            }
            Script::Closure(closure) => closure(&serde_json::from_slice(body).unwrap_or_default()),
            Script::Arithmetic => arithmetic::reply(chat),
        }
    }

    fn record(&self, head: &str, body: &[u8], refusal: Option<&rules::Refusal>) {
        let mut recorded = lock(&self.recorded);
        recorded.push(Recorded {
            at: Instant::now(),
            path: connection::path(head).to_owned(),
            headers: connection::headers(head),
            body: serde_json::from_slice(body).unwrap_or_default(),
            text: String::from_utf8_lossy(body).into_owned(),
            refused: refusal.map(|refusal| refusal.message.clone()),
        });
        self.arrived.send_replace(recorded.len());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
