use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::broker::IntakeState;
use crate::tools::ServerState;

/// How long a loop may be silent, and a lost consumer be looked for, before the process counts as
/// stuck.
const STUCK: Duration = Duration::from_secs(30);
/// How long asking the broker for jobs again may take.
const RESUBSCRIBING: Duration = Duration::from_secs(5);
/// How old the last heartbeat may be before the database counts as out of reach.
const STALE: Duration = Duration::from_secs(10);

impl Worker {
    /// Serves `/healthz` and `/readyz` until `stop`.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve_health(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let routes = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .with_state(self);
        axum::serve(listener, routes)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    }

    /// Why this process does no work, if it does none.
    fn stuck(&self) -> Option<String> {
        let broker = self.0.broker.health();
        if broker.intake == IntakeState::Waiting && broker.since > STUCK {
            let error = broker.last_error.unwrap_or_default();
            return Some(format!(
                "no consumer for {} s: {error}",
                broker.since.as_secs()
            ));
        }
        let loops = [("heartbeat", &self.0.pulse), ("sweep", &self.0.swept)];
        loops.into_iter().find_map(|(name, pulse)| {
            let age = pulse.age();
            (age > STUCK).then(|| format!("no {name} for {} s", age.as_secs()))
        })
    }

    /// What this process waits for before it can do its work.
    fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let broker = self.0.broker.health();
        if broker.consuming() {
            self.0.has_consumed.store(true, Ordering::Relaxed);
        }
        // Without a free slot it takes nothing in, and with one it has to ask for more, which is as
        // it should be; but before its first time it is not ready.
        let pauses = broker.intake == IntakeState::Stopped || broker.since < RESUBSCRIBING;
        let is_taking_in =
            broker.consuming() || (pauses && self.0.has_consumed.load(Ordering::Relaxed));
        if !is_taking_in || !broker.publishing {
            let error = broker
                .last_error
                .unwrap_or_else(|| "not consuming".to_owned());
            reasons.push(format!("broker: {error}"));
        }
        let age = self.0.pulse.age();
        if age > STALE {
            reasons.push(format!("database: no heartbeat for {} s", age.as_secs()));
        }
        if !self.0.judgement.is_present() {
            reasons.push("database: no session of its own (DATABASE_DIRECT_URL)".to_owned());
        }
        for server in self.0.runner.tools.health() {
            let reason = match server.state {
                ServerState::Ready => continue,
                ServerState::Starting => "it is starting".to_owned(),
                // The jobs go on without it.
                ServerState::Down { .. } if !server.required => continue,
                ServerState::Down { reason, .. } => reason,
            };
            reasons.push(format!("tools: {}: {reason}", server.name));
        }
        reasons
    }
}

async fn healthz(State(worker): State<Worker>) -> (StatusCode, String) {
    match worker.stuck() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn readyz(State(worker): State<Worker>) -> (StatusCode, String) {
    let reasons = worker.not_ready();
    if reasons.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", reasons.join("\n")),
        )
    }
}
