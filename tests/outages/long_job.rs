//! A job that runs longer than the broker waits for an acknowledgement.

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties, Consumer};
use serde_json::json;

use crate::scenario::{Setup, call, puppet, soon};
use crate::{laws, services, victims};

/// How long the job runs.
const MS: u32 = 8000;
const USUAL: &str = "application:set_env(rabbit, consumer_timeout, 1800000), \
                     application:set_env(rabbit, channel_tick_interval, 60000).";
const IMPATIENT: &str = "application:set_env(rabbit, consumer_timeout, 3000), \
                         application:set_env(rabbit, channel_tick_interval, 1000).";

#[tokio::test]
async fn a_job_may_run_longer_than_the_broker_waits_for_an_acknowledgement() {
    let _alone = victims::alone().await;
    victims::rabbitmqctl(&["eval", IMPATIENT]).await;
    Setup::new()
        .calc()
        .model(puppet)
        .run(async |s| {
            let (_connection, mut lazy) = lazy_consumer().await;
            let id = s.send(&call(&[("calc__sleep", json!({"ms": MS}))])).await;
            s.model.arrived(1).await;
            // Who does not acknowledge in time is thrown out: so the broker means it.
            let refused = soon("the end of patience", lazy.next()).await.unwrap();
            let refusal = refused.unwrap_err().to_string();
            assert!(refusal.contains("timed out"), "{refusal}");
            let result = s.result_of(&id).await.json();
            assert_eq!(result["message"]["content"], "slept 8000 ms");
            let took = s
                .row(
                    "SELECT extract(epoch FROM finished_at - started_at) AS seconds FROM chat.jobs",
                )
                .await;
            assert!(
                took["seconds"].as_f64().unwrap() >= f64::from(MS) / 1000.0,
                "{took}"
            );
            laws::check_rows(s, &[id]).await;
            let log = s.worker().log();
            assert!(
                !log.contains("PRECONDITION_FAILED"),
                "the worker was thrown out"
            );
        })
        .await;
    victims::rabbitmqctl(&["eval", USUAL]).await;
}

/// Somebody who takes a message and never acknowledges it.
async fn lazy_consumer() -> (Connection, Consumer) {
    let url = chat_worker::config::environment(services::BROKER).expect(services::NEEDS);
    let connection = Connection::connect(&url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), exclusive, FieldTable::default())
        .await
        .unwrap();
    let name = queue.name().clone();
    let publishing = channel.basic_publish(
        "".into(),
        name.clone(),
        BasicPublishOptions::default(),
        b"work",
        BasicProperties::default(),
    );
    publishing.await.unwrap();
    let mut consumer = channel
        .basic_consume(
            name,
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let delivery = soon("work", consumer.next()).await.unwrap();
    assert!(delivery.is_ok());
    (connection, consumer)
}
