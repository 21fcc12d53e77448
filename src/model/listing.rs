//! `GET /models`, for `chat-worker check`.

use serde_json::value::RawValue;

use super::classify::Verdict;
use super::lenient::{Fields, elements, text};
use super::transport::Transport;

/// Asks which models there are, and says whether `model` is among them.
pub(super) async fn ask(
    transport: &Transport,
    base_url: &str,
    model: &str,
) -> Result<String, Verdict> {
    let body = match transport.get(&format!("{base_url}/models")).await {
        Ok(body) => body,
        // Not every compatible server has the listing.
        Err(verdict) if matches!(verdict.refusal.status, Some(404 | 405 | 501)) => {
            return Ok(format!("{base_url} answers; it does not list its models"));
        }
        Err(verdict) => return Err(verdict),
    };
    let ids = model_ids(&body);
    Ok(if ids.iter().any(|id| id == model) {
        format!("{base_url} answers and has {model}")
    } else if ids.is_empty() {
        format!("{base_url} answers; it lists no models")
    } else {
        format!(
            "{base_url} answers, but {model} is not among its {} models",
            ids.len()
        )
    })
}

/// The ids of a listing of models: `{"data": [{"id": …}]}`.
fn model_ids(body: &[u8]) -> Vec<String> {
    let Ok(listing) = serde_json::from_slice::<&RawValue>(body) else {
        return Vec::new();
    };
    let models = Fields::read(listing).find("data").map(elements);
    (models.unwrap_or_default().into_iter())
        .filter_map(|model| text(Fields::read(model).find("id")?))
        .collect()
}
