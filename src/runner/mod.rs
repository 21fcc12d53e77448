//! Drives one job: asks the conversation for its next step, does it, stores the entry, repeats.
//!
//! Every entry is stored before the next step depends on it, so that a run can be lost at any
//! moment; a run that finds itself fenced stops without a word. Knows nothing of the broker. May
//! import everything above it but `broker`.

mod approval;
mod asking;
mod calls;
mod compact;
mod context;
mod deltas;
mod ending;
mod events;
mod leash;
mod over;
mod pace;
mod patience;
mod permission;
mod pulse;
mod run;
mod settlement;
mod spending;
mod standby;

pub use ending::Ended;
pub use events::{Events, JobEvents, Said, Whose};
pub use leash::{Halt, Leash};
pub(crate) use over::tried_again;
pub use pace::Pacer;
pub(crate) use patience::insisting;
pub use patience::{Patience, TRY};
pub use pulse::Pulse;
pub use run::{JobInHand, Ran, Runner};
pub use settlement::{Settlement, settle};
pub use standby::Standby;
