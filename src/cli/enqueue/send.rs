use super::super::sender::Sender;
use crate::broker::{BrokerError, ReplyInbox};
use crate::config::BrokerConfig;

/// What the broker's own tools show.
const NAME: &str = "chat-worker enqueue";

pub(super) async fn connect(config: &BrokerConfig) -> Result<Sender, BrokerError> {
    Sender::connect(config, NAME).await
}

/// An inbox whose name the workers accept.
pub(super) async fn open_inbox(config: &BrokerConfig) -> anyhow::Result<ReplyInbox> {
    let inbox = ReplyInbox::open(config, NAME).await?;
    if !config.reply_to_allow.is_match(inbox.name()) {
        anyhow::bail!(
            "CHAT_REPLY_TO_ALLOW does not allow amq.gen-*, so the result could not come here; add it, or leave --wait out"
        );
    }
    Ok(inbox)
}
