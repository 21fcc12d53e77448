use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{Store, StoreError};

/// The head of a dead letter: all but the message itself.
#[derive(Clone, Debug, Serialize)]
pub struct BuriedHead {
    /// The dead letter's id.
    pub id: Uuid,
    /// The job's id, if one could be read or derived.
    pub job_id: Option<Uuid>,
    /// What kind of error.
    pub error_code: String,
    /// What was wrong.
    pub error_message: String,
    /// The body's size.
    pub body_bytes: i32,
    /// When it was put here.
    pub created_at: DateTime<Utc>,
    /// When it was last sent again as a new job.
    pub replayed_at: Option<DateTime<Utc>>,
}

/// A dead letter.
#[derive(Clone, Debug)]
pub struct BuriedLetter {
    /// All but the message.
    pub head: BuriedHead,
    /// The message's body, byte for byte.
    pub body: Vec<u8>,
    /// Its AMQP properties and headers, as JSON text.
    pub properties: String,
}

/// Which dead letters a listing shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuriedFilter<'a> {
    /// Those with this error code alone.
    pub code: Option<&'a str>,
    /// Those that were replayed as well.
    pub replayed: bool,
}

/// A place in the order of dead letters: that of their times, then of their ids.
pub type BuriedPlace = (DateTime<Utc>, Uuid);

impl BuriedHead {
    /// Its place in the order.
    #[must_use]
    pub fn place(&self) -> BuriedPlace {
        (self.created_at, self.id)
    }
}

/// How many dead letters there are up to a moment of the database's clock.
#[derive(Clone, Copy, Debug)]
pub struct BuriedCount {
    /// The moment.
    pub until: DateTime<Utc>,
    /// How many.
    pub many: i64,
}

impl Store {
    /// At most `limit` dead letters, newest first, that come `after` a place in that order.
    ///
    /// # Errors
    /// The database fails.
    pub async fn newest_dead_letters(
        &self,
        filter: BuriedFilter<'_>,
        after: Option<BuriedPlace>,
        limit: i64,
    ) -> Result<Vec<BuriedHead>, StoreError> {
        let heads = sqlx::query_as!(
            BuriedHead,
            r#"
            SELECT id, job_id, error_code, error_message, octet_length(body) AS "body_bytes!", created_at, replayed_at
            FROM chat.dead_letters
            WHERE ($1::text IS NULL OR error_code = $1) AND ($2 OR replayed_at IS NULL)
              AND (created_at, id) < (coalesce($3, 'infinity'::timestamptz), coalesce($4, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
            ORDER BY created_at DESC, id DESC LIMIT $5
            "#,
            filter.code,
            filter.replayed,
            after.map(|(at, _)| at),
            after.map(|(_, id)| id),
            limit
        );
        Ok(heads.fetch_all(&self.pool).await?)
    }

    /// The ids of at most `limit` dead letters that were not replayed, oldest first, that come
    /// `after` a place in that order and not later than `until`.
    ///
    /// # Errors
    /// The database fails.
    pub async fn unreplayed_dead_letters(
        &self,
        until: DateTime<Utc>,
        after: Option<BuriedPlace>,
        limit: i64,
    ) -> Result<Vec<BuriedPlace>, StoreError> {
        let rows = sqlx::query!(
            r#"
            SELECT created_at, id FROM chat.dead_letters
            WHERE replayed_at IS NULL AND created_at <= $1
              AND (created_at, id) > (coalesce($2, '-infinity'::timestamptz), coalesce($3, '00000000-0000-0000-0000-000000000000'::uuid))
            ORDER BY created_at, id LIMIT $4
            "#,
            until,
            after.map(|(at, _)| at),
            after.map(|(_, id)| id),
            limit
        );
        let rows = rows.fetch_all(&self.pool).await?;
        Ok(rows
            .into_iter()
            .map(|row| (row.created_at, row.id))
            .collect())
    }

    /// A whole dead letter; none if there is no such.
    ///
    /// # Errors
    /// The database fails.
    pub async fn find_dead_letter(&self, id: Uuid) -> Result<Option<BuriedLetter>, StoreError> {
        let row = sqlx::query!(
            r#"
            SELECT job_id, error_code, error_message, body, properties::text AS "properties!", created_at, replayed_at
            FROM chat.dead_letters WHERE id = $1
            "#,
            id
        );
        let row = row.fetch_optional(&self.pool).await?;
        Ok(row.map(|row| BuriedLetter {
            head: BuriedHead {
                id,
                job_id: row.job_id,
                error_code: row.error_code,
                error_message: row.error_message,
                // The database holds no body of 2 GiB.
                body_bytes: i32::try_from(row.body.len()).unwrap_or(i32::MAX),
                created_at: row.created_at,
                replayed_at: row.replayed_at,
            },
            body: row.body,
            properties: row.properties,
        }))
    }

    /// Notes that a dead letter was sent again.
    ///
    /// # Errors
    /// The database fails; the mark may be set again.
    pub async fn mark_replayed(&self, id: Uuid) -> Result<(), StoreError> {
        let marked = sqlx::query!(
            "UPDATE chat.dead_letters SET replayed_at = now() WHERE id = $1",
            id
        );
        marked.execute(&self.pool).await?;
        Ok(())
    }

    /// How many dead letters are at least as old as `age`, with or without those that were
    /// replayed.
    ///
    /// # Errors
    /// The database fails.
    pub async fn count_dead_letters(
        &self,
        age: Duration,
        replayed: bool,
    ) -> Result<BuriedCount, StoreError> {
        let count = sqlx::query_as!(
            BuriedCount,
            r#"
            SELECT t.until AS "until!", count(d.id) AS "many!"
            FROM (SELECT now() - make_interval(secs => $1) AS until) AS t
            LEFT JOIN chat.dead_letters AS d ON d.created_at <= t.until AND ($2 OR d.replayed_at IS NULL)
            GROUP BY t.until
            "#,
            age.as_secs_f64(),
            replayed
        );
        Ok(count.fetch_one(&self.pool).await?)
    }

    /// Deletes dead letters; the ids of those that were there.
    ///
    /// # Errors
    /// The database fails.
    pub async fn drop_dead_letters(&self, ids: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let dropped = sqlx::query_scalar!(
            "DELETE FROM chat.dead_letters WHERE id = ANY($1) RETURNING id",
            ids
        );
        Ok(dropped.fetch_all(&self.pool).await?)
    }

    /// Deletes at most `limit` dead letters, oldest first, that are not later than `until`; how
    /// many there were.
    ///
    /// # Errors
    /// The database fails.
    pub async fn drop_dead_letters_until(
        &self,
        until: DateTime<Utc>,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let dropped = sqlx::query!(
            r#"
            DELETE FROM chat.dead_letters WHERE id = ANY(ARRAY(
                SELECT id FROM chat.dead_letters WHERE created_at <= $1 ORDER BY created_at LIMIT $2))
            "#,
            until,
            limit
        );
        Ok(dropped.execute(&self.pool).await?.rows_affected())
    }
}
