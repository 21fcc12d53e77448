use uuid::Uuid;

use super::Job;
use crate::ids::JobId;

/// AMQP `type` of a job; a job may also have none.
pub const JOB_TYPE: &str = "chat.job";
/// AMQP `type` of a result.
pub const RESULT_TYPE: &str = "chat.result";
/// AMQP `type` of an event.
pub const EVENT_TYPE: &str = "chat.event";
/// AMQP `type` of a wake-up: an empty body, and the job's id as `message_id`.
pub const WAKE_TYPE: &str = "chat.wake";
/// AMQP `type` of a control message; it may also have none.
pub const CONTROL_TYPE: &str = "chat.control";

/// The id of a job: its own, else the `message_id` if that is a UUID, else the `UUIDv5` of a
/// non-empty `message_id`, else a fresh one (then nothing recognises a repeat).
///
/// The name space of the `UUIDv5` is that of object identifiers (RFC 9562, section 6.6).
#[must_use]
pub fn job_id_of(job: Option<&Job>, message_id: Option<&str>) -> JobId {
    if let Some(id) = job.and_then(|job| job.job_id) {
        return id;
    }
    JobId(match message_id {
        Some(text) if !text.is_empty() => Uuid::parse_str(text)
            .unwrap_or_else(|_not_a_uuid| Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())),
        Some(_) | None => Uuid::now_v7(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_makes_a_stable_job_id() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(job_id_of(None, Some(id)).to_string(), id);
        assert_eq!(
            job_id_of(None, Some("order-7")),
            job_id_of(None, Some("order-7"))
        );
        assert_ne!(
            job_id_of(None, Some("order-7")),
            job_id_of(None, Some("order-8"))
        );
        assert_ne!(job_id_of(None, None), job_id_of(None, None));
        assert_ne!(job_id_of(None, Some("")), job_id_of(None, Some("")));
    }
}
