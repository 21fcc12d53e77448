use std::time::Duration;

use lapin::ErrorKind;

use crate::fault::Fault;

/// Why the broker cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL is not one that the client library can read.
    #[error("AMQP_URL is not readable; write amqp://user:password@host:5672/%2f")]
    Url,
    /// Nothing answered.
    #[error(
        "RabbitMQ at {address} cannot be reached ({reason}); is it running, and is AMQP_URL right?"
    )]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the attempt ended with.
        reason: String,
    },
    /// The broker does not accept the user, the password or the vhost.
    #[error("RabbitMQ at {address} refuses ({reason}); check user, password and vhost in AMQP_URL")]
    Denied {
        /// Host and port.
        address: String,
        /// What the broker said.
        reason: String,
    },
    /// A queue, exchange or binding is missing and could not be declared.
    #[error("{what} could not be declared ({reason}); declare it, or let this user configure it")]
    Topology {
        /// Which one.
        what: String,
        /// What the broker said.
        reason: String,
    },
    /// An established connection ended.
    #[error("the connection to RabbitMQ ended: {reason}")]
    Lost {
        /// What it ended with.
        reason: String,
    },
    /// This process is stopping.
    #[error("the broker connection is stopping")]
    Stopped,
}

impl BrokerError {
    /// Whether trying again can help.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } => Fault::Retry { after: None },
            Self::Url | Self::Denied { .. } | Self::Topology { .. } => Fault::Permanent,
            Self::Stopped => Fault::Cancelled,
        }
    }

    pub(super) fn connecting(address: &str, error: &lapin::Error) -> Self {
        let (address, reason) = (address.to_owned(), error.to_string());
        match protocol_code(error) {
            // ACCESS_REFUSED is the user or the password, NOT_ALLOWED the vhost.
            Some(403 | 530) => Self::Denied { address, reason },
            Some(_) | None => Self::Unreachable { address, reason },
        }
    }

    pub(super) fn lost(error: &lapin::Error) -> Self {
        Self::Lost {
            reason: error.to_string(),
        }
    }
}

/// Why a message may not have reached its queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no such queue, or nothing is bound.
    #[error("no queue takes messages for {to}; declare it, or bind one")]
    Unroutable {
        /// Where it was to go.
        to: String,
    },
    /// The queue took no more: it is full, or could not store it.
    #[error("the queue behind {to} refused the message; it is full or its storage fails")]
    Refused {
        /// Where it was to go.
        to: String,
    },
    /// The broker closed the channel over this very message.
    #[error("the broker does not accept the message: {reason}")]
    Rejected {
        /// What the broker said.
        reason: String,
    },
    /// Body or headers are larger than the broker takes; nothing was sent.
    #[error("the message is too large: {bytes} bytes of {part}, at most {limit}")]
    TooLarge {
        /// `body`, `headers`, or which property.
        part: &'static str,
        /// How many there are.
        bytes: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Connections ended before the confirm, several times: the message may or may not be there.
    #[error("the connection ended before the broker confirmed: {reason}")]
    Lost {
        /// What the last one ended with.
        reason: String,
    },
    /// No confirm came in time: the message may or may not be there.
    #[error("the broker did not confirm within {} s", .after.as_secs())]
    Timeout {
        /// How long it was waited for.
        after: Duration,
    },
    /// The publisher is stopping; the message may or may not be there.
    #[error("the publisher is stopping")]
    Stopped,
}

impl PublishError {
    /// Whether trying again can help.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unroutable { .. }
            | Self::Refused { .. }
            | Self::Lost { .. }
            | Self::Timeout { .. } => Fault::Retry { after: None },
            Self::Rejected { .. } | Self::TooLarge { .. } => Fault::Permanent,
            Self::Stopped => Fault::Cancelled,
        }
    }
}

/// The AMQP reply code, when it was the broker that ended something.
pub(super) fn protocol_code(error: &lapin::Error) -> Option<u16> {
    if let ErrorKind::ProtocolError(error) = error.kind() {
        Some(error.get_id())
    } else {
        None
    }
}
