use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::health::{LoopVitals, Vitals, WaitsFor, stuck};
use super::loops::Turns;
use super::scrape;
use crate::broker::IntakeState;
use crate::tools::ServerState;

/// How long asking the broker for jobs again may take.
const RESUBSCRIBING: Duration = Duration::from_secs(5);
/// How old the last heartbeat may be before the database counts as out of reach.
const STALE: Duration = Duration::from_secs(10);
/// How long ago the sweep may have heard of the database: it is busy for 20 s at times.
const UNHEARD: Duration = Duration::from_secs(30);

impl Worker {
    /// Serves `/healthz`, `/readyz` and `/metrics` until `stop`.
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
            .route("/metrics", get(scrape::metrics))
            .with_state(self);
        axum::serve(listener, routes)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    }

    /// What tells whether this process is stuck.
    pub(super) fn vitals(&self) -> Vitals {
        let (broker, loops) = (self.0.broker.health(), &self.0.loops);
        let one = |name, turns: &Turns, waits_for| LoopVitals {
            name,
            silent: turns.silent(),
            waits_for,
        };
        Vitals {
            loops: vec![
                one("heartbeat", &loops.heartbeat, WaitsFor::Nothing),
                one("sweep", &loops.sweep, WaitsFor::Nothing),
                one("intake", &loops.intake, WaitsFor::Deliveries),
                one("control", &loops.control, WaitsFor::Deliveries),
                one("marks", &loops.marks, WaitsFor::Database),
            ],
            database: loops.database.lasting(Instant::now()),
            no_consumer: match broker.intake {
                IntakeState::Waiting => broker.since,
                IntakeState::Stopped | IntakeState::Consuming => Duration::ZERO,
            },
            connected: broker.connected,
            untried: broker.untried,
        }
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
        let unheard = self.0.loops.database.silent(Instant::now());
        if let Some(age) = unheard.filter(|age| *age > UNHEARD) {
            reasons.push(format!("database: no answer for {} s", age.as_secs()));
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
    told("ok", &stuck(&worker.vitals()))
}

async fn readyz(State(worker): State<Worker>) -> (StatusCode, String) {
    told("ready", &worker.not_ready())
}

fn told(well: &str, reasons: &[String]) -> (StatusCode, String) {
    if reasons.is_empty() {
        (StatusCode::OK, format!("{well}\n"))
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", reasons.join("\n")),
        )
    }
}
