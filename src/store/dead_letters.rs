use uuid::Uuid;

use super::{Store, StoreError};
use crate::crash::{self, Act};
use crate::fault::Failure;
use crate::ids::JobId;

/// A message that was no job.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// The job's id, if one could be read or derived.
    pub job_id: Option<JobId>,
    /// What was wrong.
    pub failure: &'a Failure,
    /// The message's body, byte for byte.
    pub body: &'a [u8],
    /// Its AMQP properties and headers, as JSON text.
    pub properties: &'a str,
}

impl Store {
    /// Keeps a message that was no job.
    ///
    /// # Errors
    /// The database fails.
    pub async fn bury(&self, letter: &DeadLetter<'_>) -> Result<(), StoreError> {
        let properties = crate::escape::armour(letter.properties);
        crash::before(Act::Bury);
        sqlx::query!(
            r#"
            INSERT INTO chat.dead_letters (id, job_id, error_code, error_message, body, properties)
            VALUES ($1, $2, $3, $4, $5, $6::text::json)
            "#,
            Uuid::now_v7(),
            letter.job_id.map(|job| job.0),
            letter.failure.code.as_str(),
            letter.failure.message,
            letter.body,
            properties.as_ref(),
        )
        .execute(&self.pool)
        .await?;
        crash::after(Act::Bury);
        Ok(())
    }
}
