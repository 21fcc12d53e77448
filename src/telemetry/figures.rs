use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use super::TelemetryError;
use crate::meter::{self, JOB_BUCKETS, JOB_SECONDS, SHORT_BUCKETS};

/// How often values are sorted into their buckets. Until then each is kept, so that what nobody
/// reads must not gather.
const UPKEEP: Duration = Duration::from_secs(5);

/// The figures that are kept. A clone is the same.
#[derive(Clone)]
pub struct Figures(PrometheusHandle);

impl Figures {
    /// Keeps every figure of this process from now on. What was counted before is lost.
    ///
    /// # Errors
    /// Something else in this process keeps them already.
    pub fn keep() -> Result<Self, TelemetryError> {
        let taken = |error: BuildError| TelemetryError::Taken(error.to_string());
        let kept = PrometheusBuilder::new()
            .set_buckets(SHORT_BUCKETS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Full(JOB_SECONDS.to_owned()), JOB_BUCKETS)
            })
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(taken)?;
        meter::begin();
        Ok(Self(kept))
    }

    /// All figures in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Sorts values into their buckets until `stop`.
    pub async fn look_after(self, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(UPKEEP))
            .await
            .is_some()
        {
            self.0.run_upkeep();
        }
    }
}
