//! What servers say of how far calls are. The protocol library hands over each notification on a
//! task of its own, in no order and without a limit: here only the latest of each call is kept.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::model::{NumberOrString, ProgressNotificationParam, ProgressToken};
use tokio::sync::watch;

use crate::escape::armour_text;

/// Notifications that are kept for calls that nobody follows yet.
const MAX_EARLY: usize = 64;
/// The longest message, in characters.
const MAX_MESSAGE_CHARS: usize = 500;

/// How far a tool says that it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolProgress {
    /// How far; it grows.
    pub progress: f64,
    /// How far it has to come, if it says so.
    pub total: Option<f64>,
    /// What it says of it, at most 500 characters.
    pub message: Option<String>,
}

/// The calls of a session that somebody follows.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Desk>);

#[derive(Debug, Default)]
struct Desk {
    followed: HashMap<String, watch::Sender<Option<ToolProgress>>>,
    /// A call is followed as soon as its token is known, which may be after its first progress.
    early: VecDeque<(String, ToolProgress)>,
}

/// The progress of one call; it is followed until this is dropped.
#[derive(Debug)]
pub(super) struct Following {
    board: Arc<Board>,
    token: String,
    latest: watch::Receiver<Option<ToolProgress>>,
}

impl Board {
    /// Takes a notification in.
    pub(super) fn note(&self, said: &ProgressNotificationParam) {
        let progress = ToolProgress {
            progress: said.progress,
            total: said.total,
            message: said.message.as_deref().map(short),
        };
        let mut desk = self.lock();
        let token = key(&said.progress_token);
        if let Some(followed) = desk.followed.get(&token) {
            // One that was overtaken is a sign of life as well.
            followed.send_modify(|latest| {
                let goes_on = |latest: &ToolProgress| latest.progress <= progress.progress;
                if latest.as_ref().is_none_or(goes_on) {
                    *latest = Some(progress);
                }
            });
        } else {
            desk.early.truncate(MAX_EARLY - 1);
            desk.early.push_front((token, progress));
        }
    }

    /// Follows the call of this token.
    pub(super) fn follow(self: &Arc<Self>, token: &ProgressToken) -> Following {
        let mut desk = self.lock();
        let token = key(token);
        let (sender, latest) = watch::channel(None);
        if let Some(at) = desk.early.iter().position(|(early, _)| *early == token) {
            let early = desk.early.remove(at).map(|(_, progress)| progress);
            sender.send_replace(early);
        }
        desk.followed.insert(token.clone(), sender);
        Following {
            board: Arc::clone(self),
            token,
            latest,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Following {
    /// Returns at the next sign of life.
    pub(super) async fn sign(&mut self) {
        // The sender is on the board for as long as this is.
        self.latest.changed().await.ok();
    }

    /// The furthest that was said.
    pub(super) fn latest(&mut self) -> Option<ToolProgress> {
        self.latest.borrow_and_update().clone()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.board.lock().followed.remove(&self.token);
    }
}

/// Some servers send back a number as a text.
fn key(token: &ProgressToken) -> String {
    match &token.0 {
        NumberOrString::Number(number) => number.to_string(),
        NumberOrString::String(text) => text.chars().take(64).collect(),
    }
}

fn short(message: &str) -> String {
    let message: String = message.chars().take(MAX_MESSAGE_CHARS).collect();
    armour_text(&message).into_owned()
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;

    fn said(token: NumberOrString, progress: f64) -> ProgressNotificationParam {
        let said = ProgressNotificationParam::new(ProgressToken(token), progress);
        said.with_message("x".repeat(10_000))
    }

    #[tokio::test]
    async fn progress_that_comes_early_or_out_of_order_is_not_lost_and_does_not_go_back() {
        let board = Arc::new(Board::default());
        for other in 100..1000 {
            board.note(&said(NumberOrString::Number(other), 1.0));
        }
        board.note(&said(NumberOrString::Number(7), 1.0));
        let mut following = board.follow(&ProgressToken(NumberOrString::Number(7)));
        following.sign().await;
        let latest = following.latest().unwrap();
        assert_eq!(latest.progress.partial_cmp(&1.0), Some(Ordering::Equal));
        board.note(&said(NumberOrString::String("7".into()), 3.0));
        board.note(&said(NumberOrString::Number(7), 2.0));
        following.sign().await;
        let latest = following.latest().unwrap();
        assert_eq!(latest.progress.partial_cmp(&3.0), Some(Ordering::Equal));
        assert_eq!(latest.message.unwrap().len(), MAX_MESSAGE_CHARS);
        drop(following);
        let desk = board.lock();
        assert_eq!((desk.followed.len(), desk.early.len()), (0, MAX_EARLY - 1));
    }
}
