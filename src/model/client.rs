use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use http::HeaderValue;
use serde_json::value::RawValue;
use tokio::time::timeout;
use tracing::Instrument;

use super::classify::Verdict;
use super::completions::reply;
use super::completions::request::{Dialect, Request};
use super::error::{ModelError, Refusal};
use super::gate::{Gate, spread};
use super::listing;
use super::retry::{self, LONGEST_WAIT_IN_PLACE, Next};
use super::stream::{Ear, Heard, Kind};
use super::throttle::{Load, Throttle};
use super::transport::{Stream, Transport, http_client, verdict};
use crate::chat::{Answer, Prompt, Usage};
use crate::clock::Deadline;
use crate::config::{ModelConfig, Secret};
use crate::crash::{self, Act};
use crate::fault::Fault;
use crate::meter;

/// The model server. A clone is the same: it shares the connections and the rate gate.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    client: Client<OpenAIConfig>,
    transport: Transport,
    dialect: Dialect,
    gate: Gate,
    throttle: Throttle,
    base_url: String,
    key: Option<Secret>,
    default_model: String,
    timeout: Duration,
    stream: bool,
    idle: Duration,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("base_url", &self.0.base_url)
            .finish_non_exhaustive()
    }
}

impl Model {
    /// A client of the configured server. Nothing is sent; no connection is made.
    ///
    /// If the process has no default provider of rustls, ring becomes it. Proxies are taken from
    /// the usual variables (`HTTPS_PROXY`, `NO_PROXY`).
    ///
    /// # Errors
    /// [`ModelError::Client`] when the HTTP client cannot be built.
    pub fn connect(config: &ModelConfig) -> Result<Self, ModelError> {
        let http = http_client()?;
        let provider = &config.defaults.provider;
        let base_url = provider.base_url.trim_end_matches('/').to_owned();
        let authorization = provider.api_key.as_ref().map(bearer).transpose()?;
        // Everything is set, so that no variable of the environment gets a say.
        // The key is put in by the transport, which marks it as not to be shown.
        let openai = OpenAIConfig::new()
            .with_api_base(base_url.clone())
            .with_api_key("")
            .with_org_id("")
            .with_project_id("");
        let transport = Transport::new(http.clone(), authorization);
        let client = Client::build(http, openai).with_http_service(transport.clone());
        Ok(Self(Arc::new(Inner {
            client,
            transport,
            dialect: Dialect::of(&base_url),
            gate: Gate::default(),
            throttle: Throttle::default(),
            base_url,
            key: provider.api_key.clone(),
            default_model: config.default_model.clone(),
            timeout: config.timeout,
            stream: config.stream,
            idle: config.idle,
        })))
    }

    /// Asks the model once, and again in place where that may help soon: at most three attempts
    /// (two when they time out), each within the configured timeout, all within `deadline`.
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
        self.complete_aloud(prompt, deadline, None).await
    }

    /// The same, and `ear` hears how it goes meanwhile. The answer comes piece by piece if the ear wants
    /// that, or the configuration.
    ///
    /// # Errors
    /// As for [`Self::complete`]. A stream that ends before its answer does is a failed attempt.
    pub async fn complete_aloud(
        &self,
        prompt: &Prompt,
        deadline: Deadline,
        ear: Option<&Ear>,
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
        Box::pin(self.0.complete(prompt, deadline, ear))
            .instrument(span)
            .await
    }

    /// Asks which models there are, and says in a sentence whether the default one is among them.
    ///
    /// # Errors
    /// As for [`Self::complete`], after one attempt. A server without `GET /models` is no error.
    pub async fn check(&self) -> Result<String, ModelError> {
        let limit = self.0.timeout.min(LONGEST_CHECK);
        let listing = timeout(limit, self.0.listing()).await;
        listing
            .unwrap_or_else(|_| Err(Verdict::timeout(limit)))
            .map_err(|verdict| self.0.failure(verdict, 1))
    }
}

/// How long `check` may take.
const LONGEST_CHECK: Duration = Duration::from_secs(15);

fn bearer(key: &Secret) -> Result<HeaderValue, ModelError> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose())).map_err(|error| {
        ModelError::Client(format!("OPENAI_API_KEY fits into no HTTP header: {error}"))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

impl Inner {
    async fn complete(
        &self,
        prompt: &Prompt,
        deadline: Deadline,
        ear: Option<&Ear>,
    ) -> Result<Answer, ModelError> {
        let mut request = Request::new(prompt, self.dialect);
        let client = match self.stream(ear) {
            None => self.client.clone(),
            Some(stream) => {
                request = request.streamed();
                let transport = self.transport.streaming(stream);
                self.client.clone().with_http_service(transport)
            }
        };
        let mut attempts = 0;
        loop {
            self.pass_gate(&prompt.model, attempts, deadline).await?;
            let entered = timeout(deadline.left(), self.throttle.enter(&prompt.model)).await;
            let limit = self.timeout.min(deadline.left());
            let Some(under_way) = entered.ok().filter(|_| !limit.is_zero()) else {
                return Err(ModelError::Deadline { attempts });
            };
            attempts += 1;
            let begun = Instant::now();
            let attempted = self
                .attempt((&client, &prompt.model), &request, attempts, limit)
                .await;
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
                Ok(answer) => return Ok(answer),
                Err(verdict) => verdict,
            };
            if deadline.left().is_zero() {
                return Err(ModelError::Deadline { attempts });
            }
            self.hold_others(&prompt.model, &verdict);
            match retry::after(&verdict, attempts, deadline.left(), fastrand::f64()) {
                Next::Again(wait) => {
                    meter::model_called_again();
                    tracing::warn!(
                        error.status = verdict.refusal.status,
                        wait_ms = wait.as_millis(),
                        "the model call failed and is made again"
                    );
                    if let Some(ear) = ear {
                        ear.hear(Heard::Again(&self.error(verdict, attempts)));
                    }
                    tokio::time::sleep(wait).await;
                }
                Next::GiveUp => return Err(self.failure(verdict, attempts)),
            }
        }
    }

    /// One request, one reply.
    async fn attempt(
        &self,
        (client, model): (&Client<OpenAIConfig>, &Arc<str>),
        request: &Request<'_>,
        number: u32,
        limit: Duration,
    ) -> Result<Answer, Verdict> {
        let span = tracing::Span::current();
        span.record("model.attempt", number);
        let chat = client.chat();
        // The body is written anew for each attempt: a second attempt is rare, and a copy of every
        // body kept for as long as the model thinks would cost more than writing it twice.
        let call = chat.create_byot::<_, Box<RawValue>>(request);
        crash::before(Act::Model);
        let reply = match timeout(limit, call).await {
            Ok(reply) => reply.map_err(verdict)?,
            Err(_) => return Err(Verdict::timeout(limit)),
        };
        crash::after(Act::Model);
        let mut answer = reply::read(&reply)?;
        answer.asked = Some(Arc::clone(model));
        span.record("tokens.input", answer.usage.input_tokens);
        span.record("tokens.output", answer.usage.output_tokens);
        meter::tokens(tokens(&answer.usage));
        Ok(answer)
    }

    /// Waits while calls of `model` are held back; a wait too long for that is the caller's.
    async fn pass_gate(
        &self,
        model: &str,
        attempts: u32,
        deadline: Deadline,
    ) -> Result<(), ModelError> {
        let mut patience = LONGEST_WAIT_IN_PLACE;
        loop {
            let wait = self.gate.wait(model, Instant::now());
            if wait.is_zero() {
                return Ok(());
            }
            if wait > patience || wait >= deadline.left() {
                return Err(self.failure(held(wait), attempts));
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
            // Never for longer than a call waits in place: or one answer would fail all jobs of the
            // model for as long as it likes.
            self.gate
                .hold(model, now, now + after.min(LONGEST_WAIT_IN_PLACE));
        }
    }

    async fn listing(&self) -> Result<String, Verdict> {
        listing::ask(&self.transport, &self.base_url, &self.default_model).await
    }

    /// How answers come piece by piece, if they do.
    fn stream(&self, ear: Option<&Ear>) -> Option<Stream> {
        let wanted = self.stream || ear.is_some_and(Ear::wants_text);
        wanted.then(|| Stream {
            kind: Kind::Completions,
            idle: self.idle,
            ear: ear.cloned(),
        })
    }

    fn failure(&self, verdict: Verdict, attempts: u32) -> ModelError {
        let error = self.error(verdict, attempts);
        tracing::Span::current().record("error.code", error.code().as_str());
        error
    }

    fn error(&self, mut verdict: Verdict, attempts: u32) -> ModelError {
        if let Some(key) = &self.key {
            verdict.refusal = verdict.refusal.without(key.expose());
        }
        ModelError::new(verdict, attempts)
    }
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
