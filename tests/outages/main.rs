//! What the broker's and the database's outages do to jobs: nothing.
//!
//! The servers here are the victims, a pair that `cargo xtask test` starts for these tests alone. The tests run one
//! after the other, since each takes away what the others would need.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod broker;
mod database;
mod full;
mod hundred;
mod laws;
mod long_job;
mod victims;

/// The ground of the tests of the whole program.
#[expect(dead_code, unused_imports, reason = "those tests use the rest of it")]
#[path = "../it/scenario/mod.rs"]
mod scenario;

/// The variables that say where the victims are.
mod services {
    pub(crate) const BROKER: &str = "VICTIM_AMQP_URL";
    pub(crate) const DATABASE: &str = "VICTIM_DATABASE_URL";
    pub(crate) const NEEDS: &str = "needs a RabbitMQ and a PostgreSQL of its own that may be stopped: run `cargo xtask test --test outages` where their servers are installed or apt-get can fetch them; containers will not do";
}

/// The scripted model of the demonstrations.
#[expect(dead_code, reason = "the program uses the rest of it")]
#[path = "../../examples/stub_model/server.rs"]
mod stub_model;
