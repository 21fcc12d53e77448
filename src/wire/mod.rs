//! The messages as they are on the broker: the job that comes in, the result and the events that
//! go out, the wake-up between workers, the control message. Serde types, versioned and strict; their JSON Schemas come from the
//! same types. Knows nothing of AMQP, Postgres or the model. May import the leaves only.

mod control;
mod decode;
mod event;
mod format;
mod format_bounds;
mod images;
mod job;
mod message;
mod object;
mod properties;
mod read;
mod result;
mod rules;
mod schema;

pub use control::{Control, decode_control};
pub use decode::{Refused, decode};
pub use event::{Event, EventCall, Happening, WaitReason};
pub use format::ReplyFormat;
pub use job::{Budget, Job, OnBusy, ToolSelection};
pub use properties::{CONTROL_TYPE, EVENT_TYPE, JOB_TYPE, RESULT_TYPE, WAKE_TYPE, job_id_of};
pub use result::{FinishReason, JobResult, Reply, ResultError, Status};
pub use rules::check;
pub use schema::{event_schema, job_schema, result_schema};
