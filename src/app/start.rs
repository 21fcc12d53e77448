use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{Announcer, Broker};
use crate::config::Config;
use crate::fault::Fault;
use crate::store::{Store, StoreError};
use crate::wire::EVENT_TYPE;

/// How long a service that is not there yet is waited for: in a fresh deployment all start at once.
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_secs(1);

/// The services, connected.
pub(super) struct Services {
    pub(super) store: Store,
    pub(super) broker: Broker,
    pub(super) announcer: Announcer,
}

/// Connects to the database and the broker, and prepares both.
pub(super) async fn services(
    config: &Config,
    migrate: bool,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Services> {
    let store = patiently(
        "the database",
        async || prepared_store(config, migrate).await,
        StoreError::fault,
    )
    .await
    .context("DATABASE_URL: the database cannot be used")?;
    let name = format!("chat-worker {}", crate::worker::host_name());
    let broker = patiently(
        "the broker",
        async || Broker::connect(&config.broker, &name, tasks, stop.clone()).await,
        crate::broker::BrokerError::fault,
    )
    .await
    .context("AMQP_URL: the broker cannot be used")?;
    let announcer = patiently(
        "the broker",
        async || Announcer::connect(&config.broker, &name, EVENT_TYPE, tasks).await,
        crate::broker::BrokerError::fault,
    )
    .await
    .context("AMQP_URL: the broker cannot be used")?;
    Ok(Services {
        store,
        broker,
        announcer,
    })
}

async fn prepared_store(config: &Config, migrate: bool) -> Result<Store, StoreError> {
    if migrate {
        Store::migrate_directly(&config.store).await?;
    }
    let store = Store::connect(&config.store).await?;
    store.claim_prefix(&config.broker.prefix).await?;
    let context = config.model.widest_context(config.jobs.context_tokens);
    Ok(match context {
        // No text of less than four bytes a token is counted on; twice that, since a summary may be
        // made of what is left out.
        Some(tokens) => store.reading_history_up_to(8 * u64::from(tokens)),
        None => store,
    })
}

/// Tries again while that may help.
async fn patiently<T, E: std::error::Error>(
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
    fault: impl Fn(&E) -> Fault,
) -> Result<T, E> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        match fault(&error) {
            Fault::Retry { .. } if Instant::now() < give_up => {}
            Fault::Retry { .. } | Fault::Permanent | Fault::Cancelled => return Err(error),
        }
        tracing::warn!(%error, "{what} is not there yet; trying again");
        sleep(PAUSE).await;
    }
}
