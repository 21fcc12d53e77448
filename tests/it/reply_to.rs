//! Where results go.

use serde_json::json;

use crate::scenario::{Properties, Setup, ask};
use crate::stub_model::Reply;

fn to(queue: &str) -> Properties {
    Properties::default()
        .with_reply_to(queue.into())
        .with_correlation_id("mine".into())
}

fn friendly() -> Setup {
    Setup::new().model(|_| Reply::text("yes"))
}

#[tokio::test]
async fn a_result_goes_to_the_inbox_that_the_sender_names() {
    friendly()
        .run(async |s| {
            for name in [s.name("reply.one"), String::new()] {
                let queue = s.broker.declare(&name).await;
                let inbox = s.broker.consume(&queue).await;
                let id = s.send_with(&ask("x"), to(&queue)).await;
                let result = inbox.next().await;
                assert_eq!(
                    (result.message_id(), result.correlation_id()),
                    (id.clone(), "mine".to_owned())
                );
                assert_eq!(result.header("x-chat-reply-to"), None);
                let published = format!("SELECT * FROM chat.jobs WHERE id = '{id}'");
                s.row_where(published, |row| !row["result_published_at"].is_null())
                    .await;
            }
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn a_queue_that_is_not_allowed_gets_nothing_and_the_results_queue_says_so() {
    friendly()
        .run(async |s| {
            let foreign = s.broker.declare(&s.name("private")).await;
            let inbox = s.broker.consume(&foreign).await;
            for queue in [foreign.as_str(), &s.name("jobs"), "somewhere"] {
                let id = s.send_with(&ask("x"), to(queue)).await;
                let result = s.result_of(&id).await;
                assert_eq!(result.header("x-chat-reply-to").as_deref(), Some(queue));
                assert_eq!(
                    (result.json()["status"].clone(), result.correlation_id()),
                    (json!("completed"), "mine".to_owned())
                );
            }
            s.broker
                .publish(&foreign, b"end", Properties::default())
                .await;
            assert_eq!(inbox.next().await.body, b"end");
        })
        .await;
}

#[tokio::test]
async fn an_inbox_that_is_gone_loses_no_result() {
    friendly()
        .run(async |s| {
            let queue = s.broker.declare(&s.name("reply.gone")).await;
            s.broker.delete(&queue).await;
            for queue in [queue.as_str(), "amq.gen-gone", "amq.rabbitmq.reply-to.gone"] {
                let id = s.send_with(&ask("x"), to(queue)).await;
                let result = s.result_of(&id).await;
                assert_eq!(result.header("x-chat-reply-to").as_deref(), Some(queue));
            }
        })
        .await;
}

#[tokio::test]
async fn an_inbox_that_is_full_loses_no_result() {
    friendly()
        .run(async |s| {
            let full = s.broker.declare_full(&s.name("reply.full")).await;
            let id = s.send_with(&ask("x"), to(&full)).await;
            let result = s.result_of(&id).await;
            assert_eq!(
                result.header("x-chat-reply-to").as_deref(),
                Some(full.as_str())
            );
        })
        .await;
}

#[tokio::test]
async fn direct_reply_to_works() {
    friendly()
        .run(async |s| {
            let inbox = s.broker.consume("amq.rabbitmq.reply-to").await;
            let id = s.send_with(&ask("x"), to("amq.rabbitmq.reply-to")).await;
            let result = inbox.next().await;
            assert_eq!(
                (result.message_id(), result.correlation_id()),
                (id, "mine".to_owned())
            );
            s.send_bytes(b"{", to("amq.rabbitmq.reply-to")).await;
            assert_eq!(inbox.next().await.json()["error"]["code"], "invalid_json");
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn the_allowed_inboxes_can_be_configured() {
    friendly()
        .set("CHAT_REPLY_TO_ALLOW", "*.private,other")
        .run(async |s| {
            let queue = s.broker.declare(&s.name("private")).await;
            let inbox = s.broker.consume(&queue).await;
            s.send_with(&ask("x"), to(&queue)).await;
            inbox.next().await;
            let id = s.send_with(&ask("x"), to(&s.name("reply.one"))).await;
            s.result_of(&id).await;
        })
        .await;
}

#[tokio::test]
async fn a_results_queue_that_somebody_deleted_is_declared_again_and_gets_its_result() {
    friendly()
        .run(async |s| {
            s.broker.delete(&s.name("results")).await;
            let id = s.send(&ask("x")).await;
            let published = format!("SELECT * FROM chat.jobs WHERE id = '{id}'");
            s.row_where(published, |row| !row["result_published_at"].is_null())
                .await;
            assert_eq!(s.result_of(&id).await.json()["status"], json!("completed"));
        })
        .await;
}
