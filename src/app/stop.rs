use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// SIGTERM and SIGINT: the first asks for a drain, the second for an end.
pub(super) struct Signals {
    since: Arc<OnceLock<Instant>>,
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
        let since: Arc<OnceLock<Instant>> = Arc::default();
        let noted = Arc::clone(&since);
        #[expect(
            clippy::disallowed_methods,
            reason = "it listens as long as the process lives; no drain waits for it"
        )]
        tokio::spawn(async move {
            for token in [told.0, told.1] {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                noted.get_or_init(Instant::now);
                token.cancel();
            }
        });
        Ok(Self {
            since,
            first,
            second,
        })
    }

    /// Waits for the first signal.
    pub(super) async fn first(&self) {
        self.first.cancelled().await;
    }

    /// When the first signal came.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since.get().copied()
    }

    /// Waits until the first signal is so long ago.
    pub(super) async fn over(&self, after: Duration) {
        self.first().await;
        let since = self.since().unwrap_or_else(Instant::now);
        tokio::time::sleep_until(since + after).await;
    }

    /// Waits for the second signal.
    pub(super) async fn second(&self) {
        self.second.cancelled().await;
    }

    /// Cancelled by the first signal.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.first
    }
}
