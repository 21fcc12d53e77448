use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGTERM and SIGINT: the first asks for a drain, the second for an end.
pub(super) struct Signals {
    first: CancellationToken,
    second: CancellationToken,
}

impl Signals {
    /// Listens from now on.
    pub(super) fn listen() -> std::io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (first, second) = (CancellationToken::new(), CancellationToken::new());
        let told = (first.clone(), second.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "it listens as long as the process lives; no drain waits for it"
        )]
        tokio::spawn(async move {
            for token in [told.0, told.1] {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                token.cancel();
            }
        });
        Ok(Self { first, second })
    }

    /// Waits for the first signal.
    pub(super) async fn first(&self) {
        self.first.cancelled().await;
    }

    /// Waits for the second signal.
    pub(super) async fn second(&self) {
        self.second.cancelled().await;
    }

    /// Cancelled by the second signal, and by whoever else gives running jobs up.
    pub(super) fn abandon(&self) -> CancellationToken {
        self.second.child_token()
    }

    /// Cancelled by the first signal.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.first
    }
}
