use super::{Store, StoreError};

/// What a worker wants of a model's limits. Amounts are seconds of the limit's rate: 0.5 is what the
/// limit allows in half a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RateWanted {
    /// Of the limit of tokens.
    pub tokens: f64,
    /// Of the limit of requests.
    pub requests: f64,
    /// Tokens that earlier calls took beyond what was reserved for them; below 0: that they left.
    pub owed: f64,
    /// What may be used at once after a pause.
    pub burst: f64,
    /// Nothing is reserved whose turn would come later than this, in seconds.
    pub horizon: f64,
    /// What is wanted beyond all that for calls to come, if there is plenty.
    pub ahead: f64,
}

/// What a worker is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateGranted {
    /// Whether anything was reserved.
    pub granted: bool,
    /// In how many seconds the part of the limit of tokens begins; below 0: that long ago.
    pub tokens_in: f64,
    /// The same of the limit of requests.
    pub requests_in: f64,
    /// How long the limit of tokens has not been used; below 0: it is used up for so long.
    pub tokens_idle: f64,
    /// The same of the limit of requests.
    pub requests_idle: f64,
    /// What was given for calls to come, of both limits.
    pub ahead: f64,
}

impl Store {
    /// Reserves a part of the limits that `name` has for all workers together.
    ///
    /// # Errors
    /// The database fails. A repeat of one that was stored reserves twice, which only costs time.
    pub async fn reserve_rate(
        &self,
        name: &str,
        wanted: RateWanted,
    ) -> Result<RateGranted, StoreError> {
        let row = sqlx::query!(
            r#"
            SELECT granted AS "granted!", tokens_in AS "tokens_in!", requests_in AS "requests_in!",
                   tokens_idle AS "tokens_idle!", requests_idle AS "requests_idle!", ahead_granted AS "ahead!"
            FROM chat.reserve_rate($1, $2, $3, $4, $5, $6, $7)
            "#,
            name,
            wanted.tokens,
            wanted.requests,
            wanted.owed,
            wanted.burst,
            wanted.horizon,
            wanted.ahead,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(RateGranted {
            granted: row.granted,
            tokens_in: row.tokens_in,
            requests_in: row.requests_in,
            tokens_idle: row.tokens_idle,
            requests_idle: row.requests_idle,
            ahead: row.ahead,
        })
    }
}
