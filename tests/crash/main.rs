//! What is left of a job when its worker dies: the built program, killed with SIGKILL and stopped
//! with SIGSTOP, at named boundaries (`chat_worker::crash`) and at any moment.
//!
//! Needs the cargo feature `failpoints`, which `cargo xtask test` builds the suite with.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod boundaries;
mod cases;
mod laws;
mod panics;
mod poison;
mod stopped;
mod swarm;
mod takeover;
mod under_way;
mod watch;

/// The ground of the tests of the whole program.
#[expect(dead_code, unused_imports, reason = "those tests use the rest of it")]
#[path = "../it/scenario/mod.rs"]
mod scenario;

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
