//! The one task that publishes.
//!
//! It alone owns the confirm channel: with two publishing, the client library mixes up whose
//! confirm is whose. Each message is written when it comes, without waiting for others to make up
//! a batch, and many are under way at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::attempt::{Accused, Answer, Broken, Publish};
use super::error::BrokerError;
use super::ledger::{Ledger, Verdict};
use super::link::{Backoff, Link};
use super::parcel::{Mark, Parcel};
use super::topology::{answered, open};

/// How many messages may be under way, and how many bytes of bodies: the client library keeps a
/// copy of each until it is written.
const MAX_UNDER_WAY: usize = 512;
const MAX_BYTES_UNDER_WAY: usize = 32 << 20;

pub(super) struct Post {
    link: Link,
    desk: mpsc::Receiver<Parcel>,
    stop: CancellationToken,
    /// To be sent once more, before anything new.
    again: VecDeque<Parcel>,
    under_way: BTreeMap<u64, Parcel>,
    bytes: usize,
    numbers: u64,
    ledger: Ledger<Mark, Parcel>,
    pace: Pace,
}

/// How many messages may be under way at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Full,
    /// The broker closed the channel over one of several messages. They go one by one until the
    /// one is found, so that it does not take the others with it.
    OneByOne,
}

/// How one time with a channel ended.
enum Ended {
    Stopped,
    Broken(Broken),
}

impl Post {
    pub(super) fn new(link: Link, desk: mpsc::Receiver<Parcel>, stop: CancellationToken) -> Self {
        Self {
            link,
            desk,
            stop,
            again: VecDeque::new(),
            under_way: BTreeMap::new(),
            bytes: 0,
            numbers: 0,
            ledger: Ledger::default(),
            pace: Pace::Full,
        }
    }

    /// Publishes until it is stopped and has nothing left.
    pub(super) async fn run(mut self) {
        let mut pause = Backoff::default();
        while !self.is_done() {
            let Some(opened) = self.open().await else {
                return;
            };
            let ended = match opened {
                Ok((connection, channel)) => {
                    pause = Backoff::default();
                    let ended = self.publish_on(&connection, &channel).await;
                    if matches!(ended, Ended::Broken(_)) {
                        // A new connection declares the topology again, which a deleted exchange needs.
                        self.link.give_up(&connection);
                    }
                    ended
                }
                Err(error) => Ended::Broken(Broken {
                    reason: error.to_string(),
                    accused: Accused::Nobody,
                }),
            };
            let Ended::Broken(broken) = ended else {
                return;
            };
            tracing::warn!(reason = broken.reason, "the publishing channel ended");
            self.take_back(&broken);
            tokio::time::sleep(pause.next()).await;
        }
    }

    fn is_done(&mut self) -> bool {
        if self.stop.is_cancelled() {
            self.desk.close();
        }
        self.desk.is_closed() && self.desk.is_empty() && self.again.is_empty()
    }

    /// A channel in confirm mode; none when there will be no connection any more.
    async fn open(&mut self) -> Option<Result<(Arc<Connection>, Channel), BrokerError>> {
        let idle = self.again.is_empty() && self.desk.is_empty();
        let connection = if idle {
            // Nothing to flush, so stopping need not wait for a connection.
            let stop = self.stop.clone();
            stop.run_until_cancelled(self.link.connection())
                .await?
                .ok()?
        } else {
            self.link.connection().await.ok()?
        };
        let opened = async {
            let channel = open(&connection).await?;
            let select = channel.confirm_select(ConfirmSelectOptions::default());
            answered(select)
                .await?
                .map_err(|error| BrokerError::lost(&error))?;
            Ok(channel)
        };
        let opened = opened.await;
        if opened.is_err() {
            self.link.give_up(&connection);
        }
        Some(opened.map(|channel| (connection, channel)))
    }

    async fn publish_on(&mut self, connection: &Arc<Connection>, channel: &Channel) -> Ended {
        let mut flight = FuturesUnordered::new();
        let stop = self.stop.clone();
        let mut link = self.link.clone();
        let mut gone = std::pin::pin!(link.gone(connection));
        loop {
            tokio::select! {
                biased;
                Some(first) = flight.next(), if !flight.is_empty() => {
                    let answers = all_ready(first, &mut flight);
                    if let Err(broken) = self.settle(answers, flight.len()) {
                        return Ended::Broken(broken);
                    }
                }
                next = next_parcel(&mut self.again, &mut self.desk), if self.has_room() => match next {
                    Some(parcel) => if let Some((number, publish)) = self.launch(parcel) {
                        flight.push(publish.send(number, connection, channel));
                    },
                    None if flight.is_empty() => return Ended::Stopped,
                    None => {}
                },
                () = stop.cancelled(), if !self.desk.is_closed() => self.desk.close(),
                () = &mut gone => return Ended::Broken(Broken {
                    reason: "the connection ended".to_owned(),
                    accused: Accused::Nobody,
                }),
            }
        }
    }

    fn has_room(&self) -> bool {
        let most = match self.pace {
            Pace::Full => MAX_UNDER_WAY,
            Pace::OneByOne => 1,
        };
        let drained = self.desk.is_closed() && self.desk.is_empty() && self.again.is_empty();
        // When all is taken, only the last confirm can end the loop.
        let waits = drained && !self.under_way.is_empty();
        self.under_way.len() < most && self.bytes < MAX_BYTES_UNDER_WAY && !waits
    }

    fn launch(&mut self, parcel: Parcel) -> Option<(u64, Publish)> {
        if parcel.is_abandoned() {
            return None;
        }
        if self.again.is_empty() && self.under_way.is_empty() {
            self.pace = Pace::Full;
        }
        let publish = Publish::of(&parcel);
        self.numbers += 1;
        self.bytes += parcel.body.len();
        self.under_way.insert(self.numbers, parcel);
        Some((self.numbers, publish))
    }

    fn settle(&mut self, answers: Vec<(u64, Answer)>, under_way: usize) -> Result<(), Broken> {
        let mut confirms = Vec::with_capacity(answers.len());
        let mut broken = None;
        for (number, answer) in answers {
            match answer {
                Ok(confirm) => {
                    if let Some(parcel) = self.under_way.remove(&number) {
                        self.bytes = self.bytes.saturating_sub(parcel.body.len());
                        confirms.push((parcel.mark(), parcel, confirm));
                    }
                }
                // Stays among those under way, all of which are taken back.
                Err(error) => broken = Some(error),
            }
        }
        for (parcel, verdict) in self.ledger.round(confirms, under_way) {
            match verdict {
                Verdict::Delivered => parcel.settle(Ok(())),
                Verdict::Unroutable => parcel.unroutable(),
                Verdict::Refused => parcel.refused(),
            }
        }
        broken.map_or(Ok(()), Err)
    }

    /// Everything without a confirm goes into the line again, in the order in which it came.
    fn take_back(&mut self, broken: &Broken) {
        let mut taken: Vec<Parcel> = self.ledger.clear();
        let under_way = std::mem::take(&mut self.under_way);
        self.bytes = 0;
        if broken.accused == Accused::Somebody {
            let alone = under_way.len() == 1;
            self.pace = Pace::OneByOne;
            taken.extend(under_way.into_values());
            if alone && let Some(culprit) = taken.pop() {
                culprit.rejected(&broken.reason);
            }
            self.line_up(taken);
            return;
        }
        taken.extend(under_way.into_values());
        let again = taken
            .into_iter()
            .filter_map(|parcel| parcel.once_more(&broken.reason));
        let again = again.collect();
        self.line_up(again);
    }

    fn line_up(&mut self, parcels: Vec<Parcel>) {
        for parcel in parcels.into_iter().rev() {
            self.again.push_front(parcel);
        }
    }
}

async fn next_parcel(
    again: &mut VecDeque<Parcel>,
    desk: &mut mpsc::Receiver<Parcel>,
) -> Option<Parcel> {
    match again.pop_front() {
        Some(parcel) => Some(parcel),
        None => desk.recv().await,
    }
}

/// Everything that the client library has worked off by now, as the ledger needs it.
fn all_ready<F: Future>(first: F::Output, flight: &mut FuturesUnordered<F>) -> Vec<F::Output> {
    // The set answers "pending" out of courtesy when it has polled as often as it has futures. Each
    // future is polled in vain twice at most, before its message is written and before it is
    // confirmed, so the third such answer in a row is meant.
    const MEANT: u8 = 3;
    let mut answers = vec![first];
    let mut pending = 0;
    while pending < MEANT {
        match flight.next().now_or_never() {
            Some(Some(answer)) => answers.push(answer),
            Some(None) => break,
            None => pending += 1,
        }
    }
    answers
}
