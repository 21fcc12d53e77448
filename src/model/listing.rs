//! `GET /models`, for `chat-worker check`.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::classify::{Class, Verdict};
use super::lenient::{Fields, elements, text};
use super::server::{Dialect, Server};

/// Asks which models there are, and says whether `model` is among them.
pub(super) async fn ask(server: &Server, model: &str) -> Result<String, Verdict> {
    let url = &server.config.base_url;
    let body = match server.transport.get(&server.listing()).await {
        Ok(body) => body,
        // Not every compatible server has the listing.
        Err(verdict) if matches!(verdict.refusal.status, Some(404 | 405 | 501)) => {
            try_key(server, model).await?;
            return Ok(format!("{url} answers; it does not list its models"));
        }
        Err(verdict) => return Err(verdict),
    };
    // Some show their models to everybody: that proves no key.
    let is_public = server.config.api_key.is_some()
        && (server.transport.anonymous().get(&server.listing()).await).is_ok();
    if is_public {
        try_key(server, model).await?;
    }
    let ids = model_ids(&body);
    Ok(if server.is_resource() {
        // What is listed there are models, what is asked are deployments.
        format!("{url} answers")
    } else if ids.iter().any(|id| is_name(id, model)) {
        format!("{url} answers and has {model}")
    } else if ids.is_empty() {
        format!("{url} answers; it lists no models")
    } else {
        // Some list less than they have.
        try_model(server, model).await?;
        format!(
            "{url} answers, but {model} is not among its {} models",
            ids.len()
        )
    })
}

/// Whether a server that is asked for nothing complains of the key.
async fn try_key(server: &Server, model: &str) -> Result<(), Verdict> {
    if server.config.api_key.is_none() {
        return Ok(());
    }
    match ask_for_nothing(server, model).await {
        Err(verdict) if verdict.class == Class::Auth => Err(verdict),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether a server that is asked for nothing does not know the model.
async fn try_model(server: &Server, model: &str) -> Result<(), Verdict> {
    match ask_for_nothing(server, model).await {
        Err(verdict)
            if verdict.refusal.status == Some(404)
                && verdict.refusal.what.to_ascii_lowercase().contains("model") =>
        {
            Err(verdict)
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Asks for an answer to nothing, which every server refuses and none charges for. Keys and models come first.
async fn ask_for_nothing(server: &Server, model: &str) -> Result<Bytes, Verdict> {
    let base = server.config.base_url.trim_end_matches('/');
    let dialect = server.dialect();
    let url = format!("{base}{}", server.path(dialect, model));
    let nothing = match dialect {
        Dialect::Completions => serde_json::json!({"model": model, "messages": []}),
        Dialect::Responses => serde_json::json!({"model": model, "input": []}),
    };
    server.transport.post(&url, nothing.to_string()).await
}

/// Whether a listed id is what `model` asks for. Ollama lists tags, of which `latest` need not be said.
fn is_name(id: &str, model: &str) -> bool {
    id.strip_suffix(":latest").unwrap_or(id) == model || id == model
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
