//! The conversation as a pure machine: the stored entries fold into a state, and the state says
//! what comes next.
//!
//! The log is the state: [`Conversation::resume`] folds it, [`Conversation::next_step`] asks it and
//! changes nothing, [`Conversation::after`] is the only transition. No IO, no clock (the time is
//! given), no logging. May import the leaves, `config` and `wire`.

mod compaction;
mod draft;
mod history;
mod hygiene;
mod limits;
mod media;
mod prompt;
mod state;
mod step;
mod verdict;
mod weight;

pub use compaction::Older;
pub use draft::{Draft, Fitted};
pub use history::{History, PastRound, PastTurn, Summary};
pub use hygiene::not_made;
pub use limits::Limits;
pub use prompt::{Opening, model_view, system_prompt};
pub use state::{Conversation, Entry, IllegalEntry, Totals};
pub use step::{Approval, Ask, Barred, Interrupted, Outcome, PendingCall, Step};
pub use weight::{Count, estimated, least, most, overhead, weight};
