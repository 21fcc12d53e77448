//! Tools: the servers that have them, as pools of child processes that are kept warm, and the
//! calls that models make.
//!
//! A [`Toolbox`] starts every configured server in the background, knows what they list, [offers]
//! a job its tools under names that every model takes, and [makes the calls]. A call never fails
//! towards its caller: whatever happens, its outcome is a text that the model can read. If this
//! process is killed, a guard ends the servers: this program, [started for that](stand_guard).
//!
//! It does not decide which calls are made, nor does it store anything. It may import the leaves
//! and `config`; nothing else in the crate names `rmcp`.
//!
//! [offers]: Toolbox::offer
//! [makes the calls]: Toolbox::call

mod acceptable;
mod aftermath;
mod blocks;
mod breaker;
mod call;
mod catalogue;
mod child;
mod content;
mod core;
mod cut;
mod each;
mod elicitation;
mod era;
mod error;
mod ground;
mod guard;
mod handshake;
mod http;
mod invocation;
mod jobs;
mod kept;
mod line;
mod listing;
mod mcp;
mod media;
mod mend;
mod names;
mod news;
mod pool;
mod process;
mod progress;
mod rounds;
mod schema;
mod seat;
mod server;
mod session;
mod stderr;
mod strays;
mod toolbox;
mod wait;
mod watch;
mod wire;

pub use self::core::ServerState;
pub use aftermath::stand_guard;
pub use catalogue::{Offer, RetryClass, Route, Selection};
pub use error::ToolsError;
pub use guard::GUARD_COMMAND;
pub use invocation::{CallMeta, Invocation, Listener};
pub use progress::ToolProgress;
pub use session::About;
pub use toolbox::{ServerHealth, Session, Toolbox};
