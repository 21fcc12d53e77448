//! Waiting for what is under way when nothing goes wrong any more.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::fleet::Fleet;
use crate::ground::Ground;
use crate::ledger::Ledger;
use crate::records::Health;
use crate::report::Clock;

const LOOK: Duration = Duration::from_millis(500);
const SAY: Duration = Duration::from_secs(5);
/// Without any progress; longer than what waits in the worker by itself: a result that was not
/// confirmed is published again after 30 s, a wake-up that was lost is sent again after a minute.
const PATIENCE: Duration = Duration::from_secs(100);
const ALTOGETHER: Duration = Duration::from_mins(10);

/// How far it is: the fewer the better, all 0 at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    unanswered: usize,
    unsettled: i64,
    in_queue: u32,
}

/// Waits until every job is answered and nothing waits, runs or is to be published.
///
/// # Errors
/// What is left when nothing has moved for long.
pub(crate) async fn wait(
    ground: &Ground,
    ledger: &Ledger,
    fleet: &mut Fleet,
    clock: &Clock,
) -> Result<(), String> {
    let begin = Instant::now();
    let (mut last, mut moved, mut said) = (None, begin, begin - SAY);
    loop {
        fleet.look_after().map_err(|error| format!("{error:#}"))?;
        let left = look(ground, ledger).await;
        if let Ok(Left {
            unanswered: 0,
            unsettled: 0,
            in_queue: 0,
        }) = left
        {
            clock.say(&"every job is answered");
            return Ok(());
        }
        let text = match &left {
            Ok(left) => format!(
                "{} jobs without a result, {} rows not at rest, {} messages in the queue",
                left.unanswered, left.unsettled, left.in_queue
            ),
            Err(error) => format!("{error:#}"),
        };
        let now = left.ok();
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        if moved.elapsed() > PATIENCE || begin.elapsed() > ALTOGETHER {
            let seconds = begin.elapsed().as_secs();
            return Err(format!("after {seconds} s: {text}"));
        }
        if said.elapsed() >= SAY {
            clock.say(&text);
            said = Instant::now();
        }
        sleep(LOOK).await;
    }
}

async fn look(ground: &Ground, ledger: &Ledger) -> anyhow::Result<Left> {
    let (jobs, answered) = ledger.progress();
    let health = Health::load(&ground.pool).await?;
    Ok(Left {
        unanswered: jobs - answered,
        unsettled: health.waiting + health.running + health.unpublished_results,
        in_queue: ground.waiting_in(&ground.jobs()).await?,
    })
}
