//! The whole program: the built worker with a real `RabbitMQ`, a real `PostgreSQL`, real tool
//! servers and a scripted model. A file a subject; `scenario` is the ground that each test gets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod answers;
mod approvals;
mod busy;
mod cancel;
mod context;
mod dialects;
mod drain;
mod duplicates;
mod escapes;
mod events;
mod formats;
mod handover;
mod hostile_input;
mod hygiene;
mod lifecycle;
mod limits;
mod load;
mod metrics;
mod model_errors;
mod order;
mod reply_to;
mod retries;
mod scenario;
mod strangers;
mod strangers_models;
mod tools;

#[path = "../packages/npm.rs"]
mod npm;
#[path = "../packages/pypi.rs"]
mod pypi;

/// The variables that say where the services are.
mod services {
    pub(crate) const BROKER: &str = "AMQP_URL";
    pub(crate) const DATABASE: &str = "DATABASE_URL";
    pub(crate) const NEEDS: &str = "needs RabbitMQ and PostgreSQL: run `cargo xtask test`, or `eval \"$(cargo xtask env)\"` after `cargo xtask up`";
}

/// The scripted model of the demonstrations.
#[expect(dead_code, reason = "the program uses the rest of it")]
#[path = "../../examples/stub_model/server.rs"]
mod stub_model;
