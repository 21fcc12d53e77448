//! A bar on a terminal while a run is under way; nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::tally::Tally;

const STEP: Duration = Duration::from_millis(200);

/// Runs `work`, showing how many of `total` results have come since it began.
pub(crate) async fn shown<T>(
    what: &str,
    tally: &Tally,
    total: usize,
    work: impl Future<Output = T>,
) -> T {
    let style = ProgressStyle::with_template("{msg:28} {wide_bar} {pos}/{len}");
    let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX))
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what.to_owned());
    let before = tally.answered();
    let mut work = std::pin::pin!(work);
    let result = loop {
        match tokio::time::timeout(STEP, &mut work).await {
            Ok(result) => break result,
            Err(_elapsed) => {
                let come = tally.answered().saturating_sub(before);
                bar.set_position(u64::try_from(come).unwrap_or_default());
            }
        }
    };
    bar.finish_and_clear();
    result
}
