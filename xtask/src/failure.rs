//! What may go wrong in a command, and the exit status that tells it.

/// Why a command ended without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// There is no way to get RabbitMQ and PostgreSQL here.
    NoServices(String),
    /// Something was tried and failed.
    Failed(String),
    /// A signal asked us to stop.
    Interrupted,
    /// A program that we ran failed and has told why itself.
    Child(u8),
}

impl Failure {
    /// The exit status: 2 for what the person must change, 130 after a signal, 1 or the program's own otherwise.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::NoServices(_) => 2,
            Self::Failed(_) => 1,
            Self::Interrupted => 130,
            Self::Child(status) => (*status).max(1),
        }
    }

    /// The line to print, if somebody else has not printed it yet.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Usage(text) | Self::NoServices(text) | Self::Failed(text) => Some(text.clone()),
            Self::Interrupted => {
                Some("interrupted; everything that was started is stopped".to_owned())
            }
            Self::Child(_) => None,
        }
    }

    /// For `map_err` on I/O: what was being done, and what the system said.
    pub(crate) fn io<'a>(
        doing: impl Into<String> + 'a,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |error| Self::Failed(format!("{}: {error}", doing.into()))
    }
}
