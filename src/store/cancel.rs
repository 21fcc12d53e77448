use super::{Store, StoreError};
use crate::crash::{self, Act};
use crate::ids::JobId;

/// What became of a wish to call a job off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The job ends as cancelled, within a second where a worker runs.
    Requested,
    /// The job had ended already; nothing changed.
    Finished,
    /// Nobody knows the job; should it come within 24 h, it is called off.
    Kept,
    /// The job is another user's; nothing changed.
    Forbidden,
}

impl Store {
    /// Calls a job off, if it is that of `user` where one is named. `reason` is escaped as all
    /// stored text is (see [`crate::escape`]); at most 1000 characters of it are kept.
    ///
    /// # Errors
    /// The database fails. The same may be asked again.
    pub async fn request_cancel(
        &self,
        job: JobId,
        reason: Option<&str>,
        user: Option<&str>,
    ) -> Result<Cancelled, StoreError> {
        crash::before(Act::Cancel);
        let outcome = sqlx::query_scalar!(
            r#"SELECT chat.request_cancel($1, $2, $3) AS "outcome!""#,
            job.0,
            reason,
            user
        )
        .fetch_one(&self.pool)
        .await?;
        crash::after(Act::Cancel);
        match outcome.as_str() {
            "requested" => Ok(Cancelled::Requested),
            "finished" => Ok(Cancelled::Finished),
            "kept" => Ok(Cancelled::Kept),
            "forbidden" => Ok(Cancelled::Forbidden),
            other => Err(StoreError::Damaged {
                table: "chat.request_cancel",
                job: job.to_string(),
                what: format!("it answers {other:?}"),
            }),
        }
    }
}
