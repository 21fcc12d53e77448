use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, Connection};
use tokio::time::timeout;

use super::error::protocol_code;
use super::ledger::Confirm;
use super::outgoing::IfUnroutable;
use super::parcel::{Mark, Parcel};

/// After so long without a confirm a channel is taken for broken. Longer than any sender waits: a
/// queue whose replicas are down confirms nothing, and should not cost others their channel.
const SILENCE: Duration = Duration::from_secs(45);

/// Why a channel is of no use any more.
pub(super) struct Broken {
    pub(super) reason: String,
    pub(super) accused: Accused,
}

/// Whether it was over something that was published.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accused {
    Somebody,
    Nobody,
}

/// What became of one attempt to publish.
pub(super) type Answer = Result<Confirm<Mark>, Broken>;

/// What the client library needs of a message to write it.
pub(super) struct Publish {
    exchange: lapin::types::ShortString,
    key: lapin::types::ShortString,
    options: BasicPublishOptions,
    body: bytes::Bytes,
    properties: lapin::BasicProperties,
}

impl Publish {
    pub(super) fn of(parcel: &Parcel) -> Self {
        Self {
            exchange: parcel.exchange.clone(),
            key: parcel.key.clone(),
            options: BasicPublishOptions {
                mandatory: parcel.if_unroutable == IfUnroutable::Tell,
                ..BasicPublishOptions::default()
            },
            body: parcel.body.clone(),
            properties: parcel.properties.clone(),
        }
    }

    /// Writes the message at the first poll and then waits for its confirm; on a connection that
    /// the broker has blocked, for as long as it is blocked.
    pub(super) async fn send(
        self,
        number: u64,
        connection: &Connection,
        channel: &Channel,
    ) -> (u64, Answer) {
        let confirmed = async {
            let Self {
                exchange,
                key,
                options,
                body,
                properties,
            } = self;
            channel
                .basic_publish(exchange, key, options, &body, properties)
                .await?
                .await
        };
        let mut confirmed = std::pin::pin!(confirmed);
        loop {
            let answer = match timeout(SILENCE, &mut confirmed).await {
                Ok(confirmation) => answer(confirmation),
                Err(_elapsed) if connection.status().blocked() => continue,
                Err(_elapsed) => Err(Broken {
                    reason: format!("no confirm within {} s", SILENCE.as_secs()),
                    accused: Accused::Nobody,
                }),
            };
            return (number, answer);
        }
    }
}

/// What a confirm said, without the body of the message that it may carry.
fn answer(confirmation: lapin::Result<Confirmation>) -> Answer {
    let mark = |returned: Option<_>| returned.as_ref().map(Mark::of_returned);
    match confirmation {
        Ok(Confirmation::Ack(returned)) => Ok(Confirm::Taken(mark(returned))),
        Ok(Confirmation::Nack(returned)) => Ok(Confirm::Refused(mark(returned))),
        Ok(Confirmation::NotRequested) => Err(Broken {
            reason: "the channel is not in confirm mode".to_owned(),
            accused: Accused::Nobody,
        }),
        Err(error) => Err(Broken {
            accused: accused(&error),
            reason: error.to_string(),
        }),
    }
}

/// Errors that close a channel, and not the connection, are about what was published on it.
fn accused(error: &lapin::Error) -> Accused {
    match protocol_code(error) {
        Some(311..=313 | 403..=406) => Accused::Somebody,
        Some(_) | None => Accused::Nobody,
    }
}
