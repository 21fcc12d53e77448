//! chat-worker: chat jobs with tools, run in the background.

pub mod chat;
pub mod clock;
pub mod config;
pub mod escape;
pub mod fault;
pub mod ids;

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
