//! Which jobs are published: a pure function of the seed.

use std::time::Duration;

use fastrand::Rng;
use serde_json::json;
use uuid::Uuid;

use crate::wish::Wish;

/// Conversations that grow at the same time.
const CONVERSATIONS: usize = 5;
/// Turns after which a conversation makes room for another.
const TURNS: u32 = 8;
/// The connections that publish.
pub(crate) const PRODUCERS: usize = 4;

/// A job to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// The job's id.
    pub(crate) id: Uuid,
    /// The message.
    pub(crate) body: String,
    /// Whether its result goes to a queue that it names.
    pub(crate) wants_reply: bool,
    /// Whether it is a turn of a conversation with others.
    pub(crate) is_turn: bool,
    /// Who publishes it.
    pub(crate) producer: usize,
    /// How much later it is published again, and by whom.
    pub(crate) repeats: Vec<(Duration, usize)>,
}

/// An endless list of jobs; the same for the same seed.
pub(crate) struct Orders {
    random: Rng,
    conversations: Vec<(Uuid, u32)>,
}

impl Orders {
    /// By this seed. The troubles have the same one, hence the change.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(!seed);
        let conversations = (0..CONVERSATIONS).map(|_| (uuid(&mut random), 0)).collect();
        Self {
            random,
            conversations,
        }
    }

    /// The next job.
    pub(crate) fn next(&mut self) -> Order {
        let random = &mut self.random;
        let id = uuid(random);
        let wish = Wish {
            job: id,
            rounds: random.u32(0..=2),
            calls: random.u32(1..=3),
            pause_ms: random.u32(100..=1500),
        };
        let wants_reply = random.u32(0..100) < 20;
        let producer = random.usize(0..PRODUCERS);
        let repeats = match random.u32(0..100) {
            0..12 => 1,
            12..16 => 3,
            _ => 0,
        };
        let repeats = (0..repeats)
            .map(|_| {
                let later = Duration::from_millis(random.u64(0..10_000));
                (later, random.usize(0..PRODUCERS))
            })
            .collect();
        let conversation = (random.u32(0..100) < 35).then(|| self.conversation());
        let mut job = json!({
            "job_id": id,
            "user_id": "chaos",
            "messages": [{"role": "user", "content": wish.to_string()}],
        });
        if let (Some(conversation), Some(job)) = (conversation, job.as_object_mut()) {
            job.insert("conversation_id".to_owned(), json!(conversation));
        }
        Order {
            id,
            body: job.to_string(),
            wants_reply,
            is_turn: conversation.is_some(),
            producer,
            repeats,
        }
    }

    /// The conversation of a turn. One that is long enough is replaced.
    fn conversation(&mut self) -> Uuid {
        let at = self.random.usize(0..CONVERSATIONS);
        let fresh = uuid(&mut self.random);
        let Some((id, turns)) = self.conversations.get_mut(at) else {
            return fresh;
        };
        if *turns == TURNS {
            (*id, *turns) = (fresh, 0);
        }
        *turns += 1;
        *id
    }
}

fn uuid(random: &mut Rng) -> Uuid {
    uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    fn first(seed: u64, count: usize) -> Vec<Order> {
        let mut orders = Orders::new(seed);
        (0..count).map(|_| orders.next()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_jobs() {
        assert_eq!(first(1, 300), first(1, 300));
        assert_ne!(first(1, 300), first(2, 300));
    }

    #[test]
    fn there_are_jobs_of_every_kind() {
        let orders = first(1, 300);
        let count = |is: fn(&Order) -> bool| orders.iter().filter(|order| is(order)).count();
        assert!(count(|order| order.wants_reply) > 30);
        assert!(count(|order| order.repeats.len() == 1) > 15);
        assert!(count(|order| order.repeats.len() == 3) > 3);
        let mut turns = BTreeMap::new();
        for order in &orders {
            let job: Value = serde_json::from_str(&order.body).unwrap();
            assert_eq!(order.is_turn, job["conversation_id"].is_string());
            if order.is_turn {
                *turns.entry(job["conversation_id"].to_string()).or_insert(0) += 1;
            }
        }
        assert!(turns.len() > CONVERSATIONS);
        assert!(turns.values().all(|turns| *turns <= TURNS));
        assert!(turns.values().any(|turns| *turns == TURNS));
    }
}
