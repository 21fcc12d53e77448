use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio::time::timeout;
use tracing::Instrument;

use super::along::Along;
use super::asking::{Asking, School};
use super::classify::Verdict;
use super::error::{ModelError, Refusal};
use super::gate::{Gate, spread};
use super::legal::lines;
use super::retry::{self, LONGEST_WAIT_IN_PLACE, Next};
use super::server::{Dialect, Server};
use super::spoken::is_bare;
use super::stream::{Ear, Heard};
use super::throttle::{Load, Throttle};
use super::transport::{Stream, http_client, verdict};
use super::{completions, listing, responses};
use crate::chat::{Answer, Prompt, Stop, Usage};
use crate::clock::Deadline;
use crate::config::{ModelConfig, ModelProfile};
use crate::crash::{self, Act};
use crate::fault::Fault;
use crate::meter;

/// The models, at their servers. A clone is the same: it shares the connections, the rate gate, and what
/// was learnt.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    config: ModelConfig,
    /// One each, the default one first.
    servers: Vec<Server>,
    gate: Gate,
    throttle: Throttle,
    school: School,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("base_url", &self.0.config.defaults.provider.base_url)
            .finish_non_exhaustive()
    }
}

impl Model {
    /// A client of the configured servers. Nothing is sent; no connection is made.
    ///
    /// If the process has no default provider of rustls, ring becomes it. Proxies are taken from
    /// the usual variables (`HTTPS_PROXY`, `NO_PROXY`).
    ///
    /// # Errors
    /// [`ModelError::Client`] when the HTTP client cannot be built.
    pub fn connect(config: &ModelConfig) -> Result<Self, ModelError> {
        let http = http_client()?;
        let mut servers: Vec<Server> = Vec::new();
        for provider in config.providers() {
            if !servers.iter().any(|server| server.config == *provider) {
                servers.push(Server::new(&http, Arc::clone(provider))?);
            }
        }
        Ok(Self(Arc::new(Inner {
            config: config.clone(),
            servers,
            gate: Gate::default(),
            throttle: Throttle::default(),
            school: School::default(),
        })))
    }

    /// Asks the model once, and again in place where that may help soon: at most three attempts
    /// (two when they time out, five when the server itself says that it takes another one soon), each within the
    /// configured timeout, all within `deadline`.
    ///
    /// An answer that was cut off (`Stop::Length`, `Stop::ContentFilter`) carries no tool calls,
    /// since their arguments may be cut too.
    ///
    /// # Errors
    /// Why there is no answer, and in [`ModelError::fault`] whether one may come later.
    pub async fn complete(
        &self,
        prompt: &Prompt,
        deadline: Deadline,
    ) -> Result<Answer, ModelError> {
        self.complete_along(prompt, deadline, Along::default())
            .await
    }

    /// The same, and somebody hears how it goes meanwhile, and says when each attempt may be made. The
    /// answer comes piece by piece if the ear wants that, or the configuration.
    ///
    /// # Errors
    /// As for [`Self::complete`]. A stream that ends before its answer does is a failed attempt.
    /// [`ModelError::NotPermitted`] when an attempt is not permitted.
    pub async fn complete_along(
        &self,
        prompt: &Prompt,
        deadline: Deadline,
        along: Along<'_>,
    ) -> Result<Answer, ModelError> {
        let span = tracing::info_span!(
            "model.complete",
            model.name = %prompt.model,
            model.attempt = tracing::field::Empty,
            http.status = tracing::field::Empty,
            http.request_id = tracing::field::Empty,
            tokens.input = tracing::field::Empty,
            tokens.output = tracing::field::Empty,
            error.code = tracing::field::Empty,
        );
        // Boxed, so that the caller's own future stays small.
        Box::pin(self.0.complete(prompt, deadline, along))
            .instrument(span)
            .await
    }

    /// Asks the server of `model` which models there are, and says in a sentence whether this one is
    /// among them.
    ///
    /// # Errors
    /// As for [`Self::complete`], after one attempt: a key that is wrong, above all. A server without
    /// `GET /models` is no error.
    pub async fn check(&self, model: &str) -> Result<String, ModelError> {
        let limit = self.0.config.timeout.min(LONGEST_CHECK);
        let profile = self.0.config.profile(model);
        let server = self.0.server(profile)?;
        let name = profile.name.as_deref().unwrap_or(model);
        let listing = timeout(limit, listing::ask(server, name)).await;
        listing
            .unwrap_or_else(|_| Err(Verdict::timeout(limit)))
            .map_err(|verdict| failure(server, verdict, 1))
    }
}

/// So long an answer holds back the other calls of its model at most; then one of them finds out. Or one answer
/// would stop all jobs of the model for as long as it likes.
const LONGEST_HOLD: Duration = Duration::from_mins(1);
/// How long `check` may take.
const LONGEST_CHECK: Duration = Duration::from_secs(15);

impl Inner {
    async fn complete(
        &self,
        prompt: &Prompt,
        deadline: Deadline,
        Along {
            ear,
            permit,
            before,
        }: Along<'_>,
    ) -> Result<Answer, ModelError> {
        let profile = self.config.profile(&prompt.model);
        let mut asking = Asking {
            prompt,
            profile,
            server: self.server(profile)?,
            lessons: self.school.lessons(&prompt.model),
            streamed: self.config.stream || ear.is_some_and(Ear::wants_text),
            ear,
        };
        let mut attempts = 0;
        loop {
            self.pass_gate(&asking, attempts, deadline).await?;
            let entered = timeout(deadline.left(), self.throttle.enter(&prompt.model)).await;
            // It may have been closed while this call waited for others to end.
            if entered.is_ok() && !self.gate.wait(&prompt.model, Instant::now()).is_zero() {
                continue;
            }
            let permitted = match permit {
                Some(permit) if entered.is_ok() => timeout(deadline.left(), permit.attempt()).await,
                Some(_) | None => Ok(true),
            };
            let limit = self.config.timeout.min(deadline.left());
            let under_way = match (entered, permitted) {
                (Ok(under_way), Ok(true)) if !limit.is_zero() => under_way,
                (Ok(_), Ok(false)) => return Err(ModelError::NotPermitted),
                (Ok(_) | Err(_), Ok(true) | Err(_)) | (Err(_), Ok(false)) => {
                    return Err(ModelError::Deadline { attempts });
                }
            };
            attempts += 1;
            let begun = Instant::now();
            let attempted = self.attempt(&asking, attempts, limit).await;
            // Before anybody else may leave in its stead.
            if let Err(verdict) = &attempted {
                self.hold_others(&prompt.model, verdict);
            }
            under_way.ended(
                attempted
                    .as_ref()
                    .map_or_else(Verdict::load, |_| Load::Fine),
            );
            let outcome = attempted
                .as_ref()
                .map_or_else(Verdict::name, |_| "answered");
            meter::model_called(outcome, begun.elapsed());
            let verdict = match attempted {
                Ok(answer) => {
                    self.school.keep(&prompt.model, asking.lessons);
                    return Ok(answer);
                }
                Err(verdict) => verdict,
            };
            if deadline.left().is_zero() {
                return Err(ModelError::Deadline { attempts });
            }
            if verdict.mend.is_some_and(|mend| asking.takes(mend)) {
                tracing::info!(mend = ?verdict.mend, "the model wants to be asked in another way");
                continue;
            }
            let so_far = (before, attempts);
            match retry::after(&verdict, so_far, deadline.left(), fastrand::f64()) {
                Next::Again(wait) => {
                    meter::model_called_again();
                    tracing::warn!(
                        error.status = verdict.refusal.status,
                        wait_ms = wait.as_millis(),
                        "the model call failed and is made again"
                    );
                    if let Some(ear) = ear {
                        ear.hear(Heard::Again(&error(asking.server, verdict, attempts)));
                    }
                    tokio::time::sleep(wait).await;
                }
                Next::GiveUp => return Err(failure(asking.server, verdict, attempts)),
            }
        }
    }

    /// One request, one reply.
    async fn attempt(
        &self,
        asking: &Asking<'_>,
        number: u32,
        limit: Duration,
    ) -> Result<Answer, Verdict> {
        let span = tracing::Span::current();
        span.record("model.attempt", number);
        let dialect = asking.dialect();
        crash::before(Act::Model);
        let reply = match timeout(limit, self.reply(asking, dialect)).await {
            Ok(reply) => reply?,
            Err(_) => return Err(Verdict::timeout(limit)),
        };
        crash::after(Act::Model);
        let mut answer = match dialect {
            Dialect::Completions => completions::reply::read(&reply),
            Dialect::Responses => responses::reply::read(&reply),
        }?;
        if leaves_no_room(&answer) {
            return Err(Verdict::no_room());
        }
        answer.asked = Some(Arc::clone(&asking.prompt.model));
        span.record("tokens.input", answer.usage.input_tokens);
        span.record("tokens.output", answer.usage.output_tokens);
        meter::tokens(tokens(&answer.usage));
        Ok(answer)
    }

    /// Sends the request. It is written anew for each attempt: a second attempt is rare, and a copy of
    /// every body kept for as long as the model thinks would cost more than writing it twice.
    async fn reply(&self, asking: &Asking<'_>, dialect: Dialect) -> Result<Box<RawValue>, Verdict> {
        let prompt = asking.prompt;
        let base_url = &asking.profile.provider.base_url;
        let is_home = |asked: &str| {
            asked == &*prompt.model || self.config.profile(asked).provider.base_url == *base_url
        };
        let lines = lines(&prompt.messages, asking.profile.images, is_home);
        let manner = asking.manner();
        let streaming = self.stream(asking, dialect).map(|stream| {
            let transport = asking.server.transport.streaming(stream);
            asking.server.client.clone().with_http_service(transport)
        });
        let client = streaming.as_ref().unwrap_or(&asking.server.client);
        let to = (dialect, asking.server.path(dialect, manner.model));
        let reply = match dialect {
            Dialect::Completions => {
                let request = completions::request::Request::new(&lines, &prompt.tools, &manner);
                Server::ask(client, to, request).await
            }
            Dialect::Responses => {
                let request = responses::request::Request::new(&lines, &prompt.tools, &manner);
                Server::ask(client, to, request).await
            }
        };
        reply.map_err(verdict)
    }

    /// How the answer comes piece by piece, if it does.
    fn stream(&self, asking: &Asking<'_>, dialect: Dialect) -> Option<Stream> {
        asking.streamed.then(|| Stream {
            dialect,
            idle: self.config.idle,
            ear: asking.ear.cloned(),
        })
    }

    /// The server that `profile` names.
    fn server(&self, profile: &ModelProfile) -> Result<&Server, ModelError> {
        let provider = &profile.provider;
        let same = |server: &&Server| Arc::ptr_eq(&server.config, provider);
        let equal = |server: &&Server| server.config == *provider;
        let servers = || self.servers.iter();
        (servers().find(same))
            .or_else(|| servers().find(equal))
            .ok_or_else(|| ModelError::Client("a server that nothing was said of".to_owned()))
    }

    /// Waits while calls of `model` are held back; a wait too long for that is the caller's.
    async fn pass_gate(
        &self,
        asking: &Asking<'_>,
        attempts: u32,
        deadline: Deadline,
    ) -> Result<(), ModelError> {
        let mut patience = LONGEST_WAIT_IN_PLACE;
        loop {
            let wait = self.gate.wait(&asking.prompt.model, Instant::now());
            if wait.is_zero() {
                return Ok(());
            }
            if wait > patience || wait >= deadline.left() {
                return Err(failure(asking.server, held(wait), attempts));
            }
            patience = patience.saturating_sub(wait);
            let spread = spread(wait, fastrand::f64()).min(deadline.left());
            tokio::time::sleep(spread).await;
        }
    }

    /// After a rate limit with a wait, all calls of the model wait.
    fn hold_others(&self, model: &str, verdict: &Verdict) {
        if let Fault::Retry { after: Some(after) } = verdict.fault
            && verdict.is_rate_limit()
        {
            let now = Instant::now();
            self.gate.hold(model, now, now + after.min(LONGEST_HOLD));
        }
    }
}

/// Whether the prompt filled the context to the last token: some servers say so by an answer that is cut off
/// before it begins.
fn leaves_no_room(answer: &Answer) -> bool {
    let is_empty = answer.content.is_none() && answer.refusal.is_none();
    let Usage {
        input_tokens,
        output_tokens,
        reasoning_tokens,
        ..
    } = answer.usage;
    let says_nothing = is_empty && input_tokens > 0 && output_tokens == 0 && reasoning_tokens == 0;
    answer.stop == Stop::Length && says_nothing && is_bare(&answer.message)
}

fn failure(server: &Server, verdict: Verdict, attempts: u32) -> ModelError {
    let error = error(server, verdict, attempts);
    tracing::Span::current().record("error.code", error.code().as_str());
    error
}

fn error(server: &Server, mut verdict: Verdict, attempts: u32) -> ModelError {
    verdict.refusal = server.clean(verdict.refusal);
    ModelError::new(verdict, attempts)
}

fn tokens(usage: &Usage) -> meter::Tokens {
    meter::Tokens {
        input: usage.input_tokens,
        cached: usage.cached_tokens,
        output: usage.output_tokens,
        reasoning: usage.reasoning_tokens,
    }
}

/// What a call is told that was kept back by the gate.
fn held(wait: Duration) -> Verdict {
    let what = format!(
        "its rate limit is used up for another {} s",
        wait.as_secs_f64().ceil()
    );
    Verdict {
        fault: Fault::Retry { after: Some(wait) },
        refusal: Refusal {
            status: Some(429),
            ..Refusal::new(what.clone())
        },
        ..Verdict::network(what)
    }
}
