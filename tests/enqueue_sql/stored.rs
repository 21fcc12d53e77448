use chat_worker::escape::disarm;
use chat_worker::store::Enqueued;
use serde_json::{Value, json};
use sqlx::Executor as _;
use uuid::Uuid;

use super::documents::{full, job, saying, with};
use super::ground::{Ground, enqueue};

#[tokio::test]
async fn a_job_is_stored_waiting_and_due_and_workers_are_told() {
    Ground::run(async |ground| {
        let mut listener = ground.listener().await;
        let before = Uuid::now_v7();
        let id = ground.enqueue(&full()).await.unwrap();
        assert_eq!(listener.recv().await.unwrap().payload(), "due");
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        let millis = |id: Uuid| id.get_timestamp().unwrap().to_unix();
        assert!(millis(before) <= millis(id) && millis(id) <= millis(Uuid::now_v7()));

        let trace = id.simple().to_string();
        let facts = ground
            .rows(
                "SELECT conversation_id = id AS starts_one, status, wait_reason, turn, attempt, request_hash, user_id, model,
                    metadata, trace_id, reply_to, due_at BETWEEN enqueued_at AND clock_timestamp() AS due,
                    traceparent ~ ('^00-' || trace_id || '-[0-9a-f]{16}-01$') AS traced
                FROM chat.jobs",
            )
            .await;
        let expected = json!({"starts_one": true, "status": "waiting", "wait_reason": "enqueued", "turn": null, "attempt": 0,
            "request_hash": null, "user_id": "user-42", "model": "gpt-4o-mini", "metadata": {"ticket": 991},
            "trace_id": trace, "reply_to": null, "due": true, "traced": true});
        assert_eq!(facts, [expected]);
        assert_eq!(
            ground.rows("SELECT id, user_id, turns FROM chat.conversations").await,
            [json!({"id": id, "user_id": "user-42", "turns": 0})]
        );
    })
    .await;
}

#[tokio::test]
async fn a_job_for_later_waits_for_its_time_and_every_way_of_waiting_is_a_word() {
    Ground::run(async |ground| {
        let schedule = |id: Uuid| {
            let query = "SELECT wait_reason::text, due_at = '2100-01-01T00:00:00Z' FROM chat.jobs WHERE id = $1";
            sqlx::query_as::<_, (String, bool)>(query).bind(id).fetch_one(&ground.pool)
        };
        let later = with(json!({"not_before": "2100-01-01T01:00:00+01:00"}));
        let id = ground.enqueue(&later).await.unwrap();
        assert_eq!(schedule(id).await.unwrap(), ("schedule".to_owned(), true));
        let past = with(json!({"not_before": "2001-01-01T00:00:00Z"}));
        let id = ground.enqueue(&past).await.unwrap();
        assert_eq!(schedule(id).await.unwrap(), ("enqueued".to_owned(), false));
        for word in ["enqueue", "reject", "interrupt"] {
            ground.enqueue(&with(json!({"on_busy": word}))).await.unwrap();
        }
        // As SQL itself writes a time.
        let own = "SELECT chat.enqueue(jsonb_build_object('user_id', 'u', 'deadline', now() + interval '10 min',
            'messages', '[{\"role\": \"user\", \"content\": \"x\"}]'::jsonb))";
        ground.pool.execute(own).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn jobs_of_one_transaction_are_due_in_their_order() {
    Ground::run(async |ground| {
        let body = with(json!({"conversation_id": Uuid::now_v7()})).to_string();
        let jobs = [body.as_str(); 5];
        let Enqueued::Stored(ids) = ground.store.enqueue(&jobs).await.unwrap() else {
            panic!("refused")
        };
        let due: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM chat.jobs ORDER BY due_at")
            .fetch_all(&ground.pool)
            .await
            .unwrap();
        assert_eq!(due, ids.iter().map(|id| id.0).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn what_the_producer_rolls_back_never_was() {
    Ground::run(async |ground| {
        let mut tx = ground.pool.begin().await.unwrap();
        enqueue(&mut *tx, &job().to_string()).await.unwrap();
        tx.rollback().await.unwrap();
        for table in ["jobs", "conversations"] {
            assert_eq!(ground.count(table).await, 0);
        }
    })
    .await;
}

#[tokio::test]
async fn a_cancel_that_came_first_is_kept_for_the_sweep() {
    Ground::run(async |ground| {
        let id = Uuid::now_v7();
        let kept: bool = sqlx::query_scalar("SELECT chat.cancel($1, 'no')")
            .bind(id)
            .fetch_one(&ground.pool)
            .await
            .unwrap();
        assert!(kept);
        assert_eq!(ground.enqueue(&with(json!({"job_id": id}))).await, Ok(id));
        assert_eq!(ground.count("cancel_requests").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_text_with_the_escape_character_comes_back_as_it_was() {
    Ground::run(async |ground| {
        for text in [
            "␛",
            "␛0000",
            "a␛241b␛d800b␛␛",
            "\u{1}\t\"\\␛é😀",
            r"␛\u241b\␛",
        ] {
            let mut job = saying(json!({"role": "user", "content": text}));
            job.as_object_mut()
                .unwrap()
                .insert("metadata".to_owned(), json!({text: [text]}));
            let id = ground.enqueue(&job).await.unwrap();
            let row = ground.stored(id).await;
            let back: Value =
                serde_json::from_str(&disarm(row.get("json").unwrap().as_str().unwrap())).unwrap();
            assert_eq!(back, job);
            let metadata = row.get("metadata").unwrap().to_string();
            let back: Value = serde_json::from_str(&disarm(&metadata)).unwrap();
            assert_eq!(back, json!({text: [text]}));
        }
    })
    .await;
}

#[tokio::test]
async fn the_store_says_which_of_its_jobs_was_refused_and_keeps_none() {
    Ground::run(async |ground| {
        let (good, bad) = (
            job().to_string(),
            with(json!({"user_id": "two words"})).to_string(),
        );
        let enqueued = ground.store.enqueue(&[&good, &bad, &good]).await.unwrap();
        let Enqueued::Refused { at, failure } = enqueued else {
            panic!("{enqueued:?}")
        };
        assert_eq!((at, failure.code.as_str()), (1, "invalid_job"));
        assert!(
            failure.message.starts_with("/user_id: expected "),
            "{failure}"
        );
        assert_eq!(ground.count("jobs").await, 0);
    })
    .await;
}
