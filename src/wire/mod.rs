//! The messages as they are on the broker: the job that comes in, the result that goes out, the
//! wake-up between workers. Serde types, versioned and strict; their JSON Schemas come from the
//! same types. Knows nothing of AMQP, Postgres or the model. May import the leaves only.

mod decode;
mod job;
mod message;
mod object;
mod properties;
mod result;
mod rules;
mod schema;

pub use decode::{Refused, decode};
pub use job::{Budget, Job, OnBusy, ToolSelection};
pub use properties::{JOB_TYPE, RESULT_TYPE, WAKE_TYPE, job_id_of};
pub use result::{FinishReason, JobResult, Reply, ResultError, Status};
pub use schema::{job_schema, result_schema};
