//! Hearing that a server's tools changed, since 2026-07-28: on a stream that the client opens.

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{ErrorCode, SubscriptionFilter};
use rmcp::service::{Peer, RoleClient, ServiceError};
use tokio::sync::Notify;

use super::breaker::backoff;

/// Tells `changed` whenever the tools may have changed, for as long as the server can be talked to.
pub(super) async fn hear(peer: Peer<RoleClient>, changed: Arc<Notify>) {
    let filter = SubscriptionFilter::builder().tools_list_changed().build();
    let (mut failures, mut heard) = (0_u32, false);
    while !peer.is_transport_closed() {
        match peer.listen(filter.clone()).await {
            Ok(mut news) => {
                if heard {
                    // What was said while nobody listened.
                    changed.notify_one();
                }
                (failures, heard) = (0, true);
                while let Ok(Some(_)) = news.next().await {
                    changed.notify_one();
                }
            }
            Err(ServiceError::McpError(error)) if error.code == ErrorCode::METHOD_NOT_FOUND => {
                return;
            }
            Err(_) => {}
        }
        failures = failures.saturating_add(1);
        let delay = backoff(failures).max(Duration::from_millis(500));
        tokio::time::sleep(delay.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
    }
}
