use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::documents::{job, with};
use super::ground::{Ground, enqueue};

#[tokio::test]
async fn the_same_job_again_changes_nothing_however_it_is_written() {
    Ground::run(async |ground| {
        let id = Uuid::now_v7();
        let named = |mut job: Value| {
            job.as_object_mut().unwrap().insert("job_id".to_owned(), json!(id));
            job
        };
        let first = named(with(json!({"tools": {"servers": ["calc"]}, "options": {"temperature": 1}})));
        assert_eq!(ground.enqueue(&first).await, Ok(id));
        let before = ground.stored(id).await;
        let mut listener = ground.listener().await;
        for again in [
            first.clone(),
            named(with(json!({"conversation_id": id, "version": 1, "stream": false, "on_busy": "enqueue", "model": null,
                "tools": {"servers": ["calc"], "allow": [], "deny": [], "choice": "auto"},
                "options": {"temperature": 1.0, "seed": null}}))),
        ] {
            assert_eq!(ground.enqueue(&again).await, Ok(id));
        }
        assert_eq!(ground.stored(id).await, before);
        for other in [
            named(job()),
            named(with(json!({"tools": {"servers": ["calc"]}, "options": {"temperature": 2}}))),
            named(with(json!({"tools": {"servers": ["calc"]}, "options": {"temperature": 1}, "metadata": {"a": null}}))),
            named(with(json!({"tools": {"servers": ["calc"]}, "options": {"temperature": 1}, "user_id": "v"}))),
            named(with(json!({"tools": {"servers": ["calc"]}, "options": {"temperature": 1},
                "conversation_id": Uuid::now_v7()}))),
        ] {
            let said = ground.enqueue(&other).await.unwrap_err();
            assert_eq!(said, "JB004 job_id_conflict: this job_id was used before with other content");
        }
        assert_eq!(ground.stored(id).await, before);
        assert_eq!((ground.count("jobs").await, ground.count("conversations").await), (1, 1));
        // Of all these nobody was told: the first that is heard of is the next job.
        ground.enqueue(&job()).await.unwrap();
        listener.recv().await.unwrap();
        assert!(listener.next_buffered().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_job_that_came_over_the_broker_is_known() {
    Ground::run(async |ground| {
        let id = Uuid::now_v7();
        sqlx::query("INSERT INTO chat.conversations (id, user_id) VALUES ($1, 'u')")
            .bind(id)
            .execute(&ground.pool)
            .await
            .unwrap();
        sqlx::query(
            "INSERT INTO chat.jobs (id, conversation_id, user_id, status, request, request_hash)
            VALUES ($1, $1, 'u', 'queued', $2::text::json, 'hash')",
        )
        .bind(id)
        .bind(r#"{ "messages":[{"content":"␛241b ␛0000", "role":"user"}] , "user_id":"u", "version":1}"#)
        .execute(&ground.pool)
        .await
        .unwrap();
        let same = |text: &str| with(json!({"job_id": id, "messages": [{"role": "user", "content": text}]}));
        // What came as NUL is no text that SQL can say.
        assert!(ground.enqueue(&same("␛ ␛0000")).await.unwrap_err().starts_with("JB004"));
        sqlx::query("UPDATE chat.jobs SET request = replace(request::text, ' ␛0000', '')::json")
            .execute(&ground.pool)
            .await
            .unwrap();
        assert_eq!(ground.enqueue(&same("␛")).await, Ok(id));
    })
    .await;
}

#[tokio::test]
async fn a_conversation_goes_on_for_its_user_and_for_nobody_else() {
    Ground::run(async |ground| {
        let first = ground.enqueue(&job()).await.unwrap();
        let next = ground
            .enqueue(&with(json!({"conversation_id": first})))
            .await
            .unwrap();
        assert_ne!(first, next);
        let foreign = with(json!({"conversation_id": first, "user_id": "v"}));
        let said = ground.enqueue(&foreign).await.unwrap_err();
        assert_eq!(
            said,
            "JB005 conversation_forbidden: the conversation belongs to another user"
        );
        assert_eq!(
            (
                ground.count("jobs").await,
                ground.count("conversations").await
            ),
            (2, 1)
        );
    })
    .await;
}

#[tokio::test]
async fn of_many_who_hand_one_job_in_at_once_all_get_its_id() {
    Ground::run(async |ground| {
        for round in 1..=10 {
            let id = Uuid::now_v7();
            let job = with(json!({"job_id": id}));
            let ids = join_all((0..8).map(|_| ground.enqueue(&job))).await;
            assert!(ids.iter().all(|given| *given == Ok(id)), "{ids:?}");
            assert_eq!(ground.count("jobs").await, round);
        }
    })
    .await;
}

#[tokio::test]
async fn who_comes_second_waits_for_the_first_to_make_up_its_mind() {
    Ground::run(async |ground| {
        for first_commits in [true, false] {
            let id = Uuid::now_v7();
            let body = with(json!({"job_id": id})).to_string();
            let mut first = ground.pool.begin().await.unwrap();
            enqueue(&mut *first, &body).await.unwrap();
            let ends = async {
                ground.until_somebody_waits().await;
                if first_commits {
                    first.commit().await
                } else {
                    first.rollback().await
                }
            };
            let (second, ended) = tokio::join!(enqueue(&ground.pool, &body), ends);
            ended.unwrap();
            assert_eq!(second, Ok(id));
        }
        assert_eq!(ground.count("jobs").await, 2);
    })
    .await;
}

#[tokio::test]
async fn one_id_in_two_conversations_at_once_is_a_conflict_and_leaves_no_conversation() {
    Ground::run(async |ground| {
        let id = Uuid::now_v7();
        let body = |conversation: Uuid| {
            with(json!({"job_id": id, "conversation_id": conversation})).to_string()
        };
        let mut first = ground.pool.begin().await.unwrap();
        enqueue(&mut *first, &body(Uuid::now_v7())).await.unwrap();
        let ends = async {
            ground.until_somebody_waits().await;
            first.commit().await
        };
        let other = body(Uuid::now_v7());
        let (second, ended) = tokio::join!(enqueue(&ground.pool, &other), ends);
        ended.unwrap();
        assert!(
            second.as_ref().is_err_and(|said| said.starts_with("JB004")),
            "{second:?}"
        );
        assert_eq!(
            (
                ground.count("jobs").await,
                ground.count("conversations").await
            ),
            (1, 1)
        );
    })
    .await;
}
