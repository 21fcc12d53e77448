//! chat-worker runs chat jobs with tools in the background: a job comes in from `RabbitMQ`, an
//! OpenAI-compatible model answers it with the help of MCP tools, every step is stored in Postgres,
//! and the result goes out over `RabbitMQ`.
//!
//! This page is the map. Commands and messages for users are in `README.md`, a walk through the
//! code with file names in `docs/ARCHITECTURE.md`, decisions and their reasons in `docs/adr/`.
//!
//! # From above
//!
//! ```text
//!  producer ──▶ <prefix>.jobs ──▶ ┌────────────── worker ──────────────┐ ──▶ reply_to, or
//!                                 │ take ─▶ claim ─▶ run ─▶ finish     │     <prefix>.results
//!                                 └────────┬─────────┬─────────┬───────┘
//!                                          │    model and tools│
//!                                          ▼         ▼         ▼
//!                                 Postgres: jobs, iterations, tool calls, attempts
//! ```
//!
//! One idea carries the rest: **from the first claim on, Postgres is the truth.** The broker brings
//! jobs in, wakes workers up and carries results away. What a worker knows of a job can be lost at
//! any moment: the stored entries are the state, and the next step is computed from them.
//!
//! # The life of a job
//!
//! 1. [`worker`] takes a permit, then a delivery from [`broker`]; [`wire`] decodes it strictly. What
//!    is no job becomes a dead letter.
//! 2. [`store`] claims the job in one transaction: it is new and ours, or known and finished, in
//!    hand, waiting for its turn, in conflict ([`store::decide`]). After the commit the delivery is
//!    acknowledged, never before.
//! 3. [`runner`] asks the [`conversation`] for its [next step](conversation::Conversation::next_step)
//!    and does it: it asks the [`model`], or makes the calls of an answer with [`tools`]. Each answer
//!    and each result is an entry, which is stored, fenced by the job's attempt, before the next
//!    step depends on it. (Results of quick calls that are safe to repeat travel with the entry that
//!    follows.)
//! 4. What has to wait, for its turn, its time or another try, waits as a row and holds no slot. One
//!    worker at a time sweeps: it marks what is due, commits, and publishes a wake-up, which is
//!    claimed like any delivery. Jobs of dead workers are found so too.
//! 5. The end is stored together with the last entry. Then the result is published, confirmed by the
//!    broker, and marked as published.
//!
//! # The rooms
//!
//! A room imports only from rooms that stand above it here, and the four adapters never import each
//! other. `tests/architecture.rs` holds the arrows.
//!
//! | room | what it is for |
//! |---|---|
//! | [`ids`] | identifiers as types |
//! | [`fault`] | how a failure is to be treated, and the error codes of the contract |
//! | [`clock`] | time as a value |
//! | [`cost`] | money, exact |
//! | [`chat`] | messages, tool calls, outcomes, answers, in no provider's types |
//! | [`escape`] | the one escape for text that Postgres refuses |
//! | [`crash`] | the boundaries at which tests end the process; empty without the feature `failpoints` |
//! | [`meter`] | what is counted and timed, under which names |
//! | [`config`] | settings, read once and checked all together |
//! | [`wire`] | the messages on the broker, strict and versioned, and their JSON Schemas |
//! | [`conversation`] | the pure machine: entries fold into a state, the state says what is next |
//! | [`broker`] | adapter: connections that come back, deliveries, confirmed publishes |
//! | [`store`] | adapter: claim, append, finish, park, sweep, presence, and all other SQL |
//! | [`model`] | adapter: Chat Completions and Responses, errors classified, short troubles waited out |
//! | [`tools`] | adapter: tool servers as pools of child processes and HTTP sessions, catalogue, calls |
//! | [`runner`] | drives one job: step, do, store, repeat |
//! | [`worker`] | one process: take, decide, publish, sweep, presence, drain, health |
//! | [`telemetry`] | logs; keeps the figures and shows them |
//! | [`app`] | composition of a worker |
//! | [`cli`] | the commands |
//!
//! # What is not there
//!
//! These absences are kept, and tests or lints hold them:
//!
//! - Nothing but [`broker`] names lapin, nothing but [`store`] sqlx, nothing but [`model`]
//!   `async_openai`, nothing but [`tools`] rmcp, nothing but these two reqwest.
//! - [`conversation`] has no IO, no async, no clock and no logging. It is never stored itself.
//! - Nothing but [`config`] reads the environment; nothing but [`clock::SystemClock`] reads the wall
//!   clock.
//! - [`broker`] does not know what a job is; [`runner`] does not know that there is a broker.
//! - No write of a run without its fence: the job's row with the run's attempt and worker.
//! - No decision from how long a job runs, and no clock but the database's in who is alive.
//! - No acknowledgement before the commit that it speaks of; no result counted as sent before its
//!   confirm.
//! - No label of a figure that a producer, a model or a tool can make up ([`meter`]).
//! - No prompt, argument, result or body in logs; no secret in errors or `Debug` output
//!   ([`config::Secret`]).
//! - No `unsafe`, no panic in production code, no lint that is allowed without a reason.

pub mod chat;
pub mod clock;
pub mod config;
pub mod cost;
pub mod crash;
pub mod escape;
pub mod fault;
pub mod ids;
pub mod meter;

pub mod app;
pub mod broker;
pub mod cli;
pub mod conversation;
pub mod model;
pub mod runner;
pub mod store;
pub mod telemetry;
pub mod tools;
pub mod wire;
pub mod worker;
