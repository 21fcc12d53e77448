use super::{Store, StoreError};
use crate::cost::Cost;
use crate::ids::UserId;

impl Store {
    /// What the model's answers to a user have cost on this UTC day, those of all workers together.
    ///
    /// # Errors
    /// The database fails.
    pub async fn spent_today(&self, user: &UserId) -> Result<Cost, StoreError> {
        let pico = sqlx::query_scalar!(
            r#"
            SELECT (CASE WHEN cost_usd > 9000000 THEN 9000000 ELSE cost_usd END * 1000000000000)::bigint AS "pico!" FROM chat.user_costs
            WHERE user_id = $1 AND day = (now() AT TIME ZONE 'UTC')::date
            "#,
            user.as_str()
        )
        .fetch_optional(&self.pool)
        .await?;
        let pico = pico.and_then(|pico| u64::try_from(pico).ok());
        Ok(Cost::from_picodollars(pico.unwrap_or_default()))
    }
}
