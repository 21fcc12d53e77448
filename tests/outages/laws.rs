//! What holds after every outage.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::scenario::{Broker, Scenario};

/// Each job ended once, in the one run that it had, and one result of it went out.
pub(crate) async fn check(s: &Scenario, ids: &[String]) {
    for (id, bodies) in results(s, ids).await {
        assert!(ids.contains(&id), "{id} is no job");
        assert_eq!(bodies.len(), 1, "{id} has different results: {bodies:?}");
    }
    check_rows(s, ids).await;
}

/// The same without the results, of which a test may have read some.
pub(crate) async fn check_rows(s: &Scenario, ids: &[String]) {
    for id in ids {
        let row = s.job(id).await;
        assert_eq!(row["status"], "completed", "{row:#}");
        assert_eq!(
            (&row["attempt"], &row["failures"]),
            (&json!(1), &json!(0)),
            "{row:#}"
        );
        let attempts = s
            .rows(format!(
                "SELECT attempt, outcome FROM chat.attempts WHERE job_id = '{id}'"
            ))
            .await;
        assert_eq!(
            attempts,
            [json!({"attempt": 1, "outcome": "completed"})],
            "{id}"
        );
    }
    let jobs = s.row("SELECT count(*) AS jobs FROM chat.jobs").await;
    assert_eq!(jobs["jobs"], json!(ids.len()), "a job was made of another");
    let nothing = json!({"waiting": 0, "running": 0, "unpublished_results": 0});
    s.row_where(
        "SELECT waiting, running, unpublished_results FROM chat.queue_health",
        |row| *row == nothing,
    )
    .await;
    assert!(s.rows("SELECT * FROM chat.dead_letters").await.is_empty());
}

/// The different bodies of each job's results. The test's own line to the broker may be cut, so
/// this is another.
async fn results(s: &Scenario, ids: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let queue = s.name("results");
    let broker = Broker::connect(queue.trim_end_matches(".results")).await;
    let inbox = broker.consume(&queue).await;
    let mut bodies: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut note = |id: String, body: Value| {
        assert_eq!(body["job_id"], id.as_str(), "a result's id is its job's");
        bodies.entry(id).or_default().insert(body.to_string());
        bodies.len()
    };
    let mut answered = 0;
    while answered < ids.len() {
        let result = inbox.next().await;
        answered = note(result.message_id(), result.json());
    }
    for result in broker.all_of(&queue, &inbox).await {
        note(result.message_id(), result.json());
    }
    bodies
}
