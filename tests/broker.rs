//! The broker's room against a real `RabbitMQ`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use chat_worker::broker::{
    Address, Broker, Delivery, Intake, IntakeState, Outgoing, PublishError, Publisher, ReplyInbox,
};
use chat_worker::config::{BrokerConfig, Secret, environment};
use chat_worker::ids::JobId;
use futures_util::future::join_all;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, ExchangeDeleteOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Nothing here takes long; who waits longer waits for ever.
const LONG: Duration = Duration::from_secs(30);

fn amqp_url() -> String {
    environment("AMQP_URL").expect(
        "needs RabbitMQ and PostgreSQL: run `cargo xtask test`, or `eval \"$(cargo xtask env)\"` after `cargo xtask up`",
    )
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LONG, what).await.expect("did not happen in time")
}

/// A prefix of its own on the broker, and a way to look at what is there.
struct Ground {
    config: BrokerConfig,
    admin: Connection,
    tasks: TaskTracker,
    stop: CancellationToken,
    more: Vec<String>,
}

impl Ground {
    async fn new() -> Self {
        Self {
            config: config(&amqp_url(), &format!("test-{}", Uuid::new_v4())),
            admin: connect_admin().await,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            more: Vec::new(),
        }
    }

    async fn broker(&self) -> Broker {
        self.broker_at(&self.config).await
    }

    async fn broker_at(&self, config: &BrokerConfig) -> Broker {
        let stop = self.stop.clone();
        soon(Broker::connect(config, "test", &self.tasks, stop))
            .await
            .unwrap()
    }

    fn name(&self, rest: &str) -> String {
        format!("{}.{rest}", self.config.prefix)
    }

    async fn channel(&self) -> Channel {
        self.admin.create_channel().await.unwrap()
    }

    async fn declare(
        &mut self,
        rest: &str,
        arguments: &[(&str, AMQPValue)],
    ) -> Result<String, String> {
        let name = self.name(rest);
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let declared = self
            .channel()
            .await
            .queue_declare(name.as_str().into(), QueueDeclareOptions::durable(), table)
            .await;
        self.more.push(name.clone());
        declared.map(|_| name).map_err(|error| error.to_string())
    }

    async fn ready(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = self.channel().await;
        let queue = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await;
        queue.unwrap().message_count()
    }

    /// How often each id lies in a queue.
    async fn ids(&self, queue: &str) -> HashMap<String, usize> {
        let channel = self.channel().await;
        let mut ids = HashMap::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(message) = channel.basic_get(queue.into(), options).await.unwrap() {
            let id = message.properties.message_id().clone().unwrap().to_string();
            *ids.entry(id).or_default() += 1;
        }
        ids
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        soon(self.tasks.wait()).await;
        let channel = self.admin.create_channel().await.unwrap();
        let mut queues = self.more;
        for rest in ["jobs", "jobs.dead", "results", "control"] {
            queues.push(format!("{}.{rest}", self.config.prefix));
        }
        for queue in queues {
            let options = QueueDeleteOptions::default();
            channel
                .queue_delete(queue.as_str().into(), options)
                .await
                .unwrap();
        }
        for rest in ["dlx", "events"] {
            let name = format!("{}.{rest}", self.config.prefix);
            let options = ExchangeDeleteOptions::default();
            channel
                .exchange_delete(name.as_str().into(), options)
                .await
                .unwrap();
        }
        self.admin.close(200, "bye".into()).await.unwrap();
    }
}

fn config(url: &str, prefix: &str) -> BrokerConfig {
    BrokerConfig {
        url: Secret::new(url),
        prefix: prefix.to_owned(),
        reply_to_allow: globset::GlobSet::empty(),
    }
}

async fn connect_admin() -> Connection {
    let properties = ConnectionProperties::default();
    soon(Connection::connect(&amqp_url(), properties))
        .await
        .unwrap()
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn message(queue: &str, id: &str) -> Outgoing {
    let body = Bytes::from(format!("body of {id}"));
    Outgoing::new(Address::Queue(queue.to_owned()), "chat.test", body).with_message_id(id)
}

async fn publish(publisher: &Publisher, queue: &str, id: &str) -> Result<(), PublishError> {
    soon(publisher.publish(message(queue, id))).await
}

fn id(delivery: &Delivery) -> String {
    delivery.properties.message_id.clone().unwrap()
}

async fn next(intake: &mut Intake) -> Delivery {
    soon(intake.next()).await.expect("the intake ended")
}

/// Stands between the client and the broker, and can misbehave.
struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    // The last: it ends the proxy's tasks.
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Open,
    /// Connections end, and no new ones are taken.
    Cut,
    /// Connections stay, but nothing comes through; new ones are well.
    Frozen,
}

impl Proxy {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = url::Url::parse(&amqp_url()).unwrap();
        let target = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672));
        let (line, state) = watch::channel(Line::Open);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut pairs = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let mut state = state.clone();
                if *state.borrow_and_update() != Line::Cut {
                    let server = TcpStream::connect(&target).await.unwrap();
                    pairs.spawn(carry(client, server, state));
                }
            }
        });
        Self {
            address,
            line,
            _tasks: tasks,
        }
    }

    fn url(&self) -> String {
        let mut url = url::Url::parse(&amqp_url()).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        url.to_string()
    }

    fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mut line: watch::Receiver<Line>) {
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = line.changed() => {
            // Held open, and silent.
            drop(line.wait_for(|line| *line == Line::Cut).await);
        }
    }
}

#[tokio::test]
async fn the_topology_is_declared_with_the_arguments_that_the_design_rests_on() {
    let mut ground = Ground::new().await;
    let broker = ground.broker().await;
    let (dlx, quorum) = (broker.names().dlx.clone(), ("x-queue-type", text("quorum")));
    let reject = ("x-overflow", text("reject-publish"));
    let dead = [
        ("x-dead-letter-exchange", text(&dlx)),
        ("x-dead-letter-routing-key", text("jobs.dead")),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-delivery-limit", AMQPValue::LongInt(20)),
    ];
    // Declaring again with the same arguments is agreed to, with any other it is a 406.
    let jobs = [&[quorum.clone(), reject.clone()], &dead[..]].concat();
    ground.declare("jobs", &jobs).await.unwrap();
    ground
        .declare("results", &[quorum.clone(), reject])
        .await
        .unwrap();
    ground
        .declare("jobs.dead", std::slice::from_ref(&quorum))
        .await
        .unwrap();
    ground
        .declare("control", std::slice::from_ref(&quorum))
        .await
        .unwrap();
    for missing in 0..jobs.len() {
        let mut fewer = jobs.clone();
        let (name, _) = fewer.remove(missing);
        let refused = ground.declare("jobs", &fewer).await.unwrap_err();
        assert!(
            refused.contains("inequivalent arg"),
            "without {name}: {refused}"
        );
    }
    // The broker's own dead letters arrive.
    let to = Address::Exchange {
        name: dlx,
        key: "jobs.dead".into(),
    };
    let letter = Outgoing::new(to, "chat.test", Bytes::new()).with_message_id("dead");
    soon(broker.publisher().publish(letter)).await.unwrap();
    assert_eq!(ground.ids(&broker.names().jobs_dead).await["dead"], 1);
    ground.end().await;
}

#[tokio::test]
async fn a_queue_that_an_operator_declared_is_taken_as_it_is() {
    let mut ground = Ground::new().await;
    let jobs = ground
        .declare("jobs", &[("x-max-length", AMQPValue::LongInt(7))])
        .await
        .unwrap();
    let broker = ground.broker().await;
    publish(&broker.publisher(), &jobs, "one").await.unwrap();
    let mut intake = broker.intake(1);
    let delivery = next(&mut intake).await;
    assert_eq!(id(&delivery), "one");
    delivery.ack();
    ground
        .declare("jobs", &[("x-max-length", AMQPValue::LongInt(7))])
        .await
        .unwrap();
    ground.end().await;
}

#[tokio::test]
async fn replicas_that_start_together_do_not_disturb_each_other() {
    let ground = Ground::new().await;
    let brokers = join_all((0..4).map(|_| ground.broker())).await;
    assert_eq!(brokers.len(), 4);
    ground.end().await;
}

#[tokio::test]
async fn a_publish_returns_when_the_broker_has_the_message_with_all_its_properties() {
    let ground = Ground::new().await;
    let broker = ground.broker().await;
    let jobs = &broker.names().jobs;
    let mut sent = message(jobs, "m1")
        .with_correlation_id(Some("c1".into()))
        .with_header("traceparent", "00-aa-bb-01")
        .with_header("x-long", &"é".repeat(2000));
    sent.properties.priority = Some(4);
    sent.properties.timestamp = Some(1_700_000_000);
    sent.properties
        .headers
        .insert("x-app".into(), serde_json::json!({"tenant": [1, true]}));
    soon(broker.publisher().publish(sent)).await.unwrap();
    assert_eq!(ground.ready(jobs).await, 1);
    let delivery = next(&mut broker.intake(1)).await;
    assert_eq!(delivery.body, b"body of m1");
    let properties = &delivery.properties;
    assert_eq!(properties.kind.as_deref(), Some("chat.test"));
    assert_eq!(properties.correlation_id.as_deref(), Some("c1"));
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(
        (properties.priority, properties.delivery_mode),
        (Some(4), Some(2))
    );
    assert_eq!(properties.timestamp, Some(1_700_000_000));
    assert_eq!(properties.traceparent(), Some("00-aa-bb-01"));
    assert_eq!(properties.header("x-long").map(str::len), Some(1024));
    assert_eq!(
        properties.headers["x-app"],
        serde_json::json!({"tenant": [1, true]})
    );
    delivery.ack();
    ground.end().await;
}

#[tokio::test]
async fn a_message_for_a_queue_that_does_not_exist_is_unroutable() {
    let ground = Ground::new().await;
    let publisher = ground.broker().await.publisher();
    let nowhere = ground.name("nowhere");
    let error = publish(&publisher, &nowhere, "m").await.unwrap_err();
    assert_eq!(
        error,
        PublishError::Unroutable {
            to: format!("queue {nowhere}")
        }
    );
    // An event that nobody listens to is no failure.
    let to = Address::Exchange {
        name: ground.name("events"),
        key: "job.started".into(),
    };
    let event = Outgoing::new(to, "chat.event", Bytes::new()).transient();
    soon(publisher.publish(event)).await.unwrap();
    ground.end().await;
}

#[tokio::test]
async fn many_publishes_at_once_each_get_their_own_verdict() {
    let mut ground = Ground::new().await;
    let publisher = ground.broker().await.publisher();
    let (free, nowhere) = (ground.name("results"), ground.name("nowhere"));
    let limit = [
        ("x-max-length", AMQPValue::LongInt(1)),
        ("x-overflow", text("reject-publish")),
    ];
    let full = ground.declare("full", &limit).await.unwrap();
    publish(&publisher, &full, "first").await.unwrap();
    for round in 0..20 {
        let outcomes = join_all((0..120).map(|number| {
            let (queue, id) = match number % 3 {
                0 => (&free, format!("free-{round}-{number}")),
                1 => (&full, format!("full-{round}-{number}")),
                _ => (&nowhere, format!("nowhere-{round}-{number}")),
            };
            let publisher = &publisher;
            async move { (publish(publisher, queue, &id).await, id) }
        }));
        for (outcome, id) in outcomes.await {
            match outcome {
                Ok(()) => assert!(id.starts_with("free"), "{id} counted as delivered"),
                Err(PublishError::Refused { .. }) => {
                    assert!(id.starts_with("full"), "{id} refused");
                }
                Err(PublishError::Unroutable { .. }) => {
                    assert!(id.starts_with("nowhere"), "{id} unroutable");
                }
                Err(other) => panic!("{id}: {other}"),
            }
        }
    }
    let arrived = ground.ids(&free).await;
    assert_eq!(arrived.len(), 20 * 40);
    assert!(arrived.values().all(|count| *count == 1), "sent twice");
    assert_eq!(ground.ids(&full).await.len(), 1);
    ground.end().await;
}

/// The client library hangs a returned message on whichever confirm it works off next: without
/// the ledger about twenty of these are told the wrong thing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returned_message_is_never_taken_for_another() {
    let mut ground = Ground::new().await;
    let publisher = ground.broker().await.publisher();
    let free = ground.declare("free", &[]).await.unwrap();
    let nowhere = ground.name("nowhere");
    for round in 0..60 {
        let outcomes = join_all((0..200).map(|number| {
            let routable = number % 4 != 0;
            let queue = if routable { &free } else { &nowhere };
            let publisher = &publisher;
            async move {
                let outcome = publish(publisher, queue, &format!("{round}-{number}")).await;
                (outcome, routable)
            }
        }));
        for (outcome, routable) in outcomes.await {
            assert_eq!(outcome.is_ok(), routable, "{outcome:?}");
        }
    }
    assert_eq!(ground.ready(&free).await, 60 * 150);
    ground.end().await;
}

/// Thirty, because of a burst of acks the broker passes 32 on to a quorum queue at first, and forgets
/// the others with their channel.
#[tokio::test]
async fn what_was_acked_before_a_stop_does_not_come_again() {
    let ground = Ground::new().await;
    let broker = ground.broker().await;
    let jobs = broker.names().jobs.clone();
    for number in 0..30 {
        publish(&broker.publisher(), &jobs, &format!("m{number}"))
            .await
            .unwrap();
    }
    let mut intake = broker.intake(30);
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(next(&mut intake).await);
    }
    held.into_iter().for_each(Delivery::ack);
    ground.stop.cancel();
    ground.tasks.close();
    soon(ground.tasks.wait()).await;
    drop((intake, broker));
    assert_eq!(ground.ready(&jobs).await, 0);
    ground.end().await;
}

#[tokio::test]
async fn two_thousand_publishes_at_once_arrive_once_each() {
    let ground = Ground::new().await;
    let publisher = ground.broker().await.publisher();
    let queue = ground.name("results");
    let ids: Vec<_> = (0..2_000).map(|number| format!("m{number}")).collect();
    let outcomes = join_all(ids.iter().map(|id| publish(&publisher, &queue, id))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let arrived = ground.ids(&queue).await;
    assert_eq!(arrived.len(), 2_000);
    assert!(arrived.values().all(|count| *count == 1));
    ground.end().await;
}

#[tokio::test]
async fn one_message_that_the_broker_refuses_does_not_take_others_with_it() {
    let ground = Ground::new().await;
    let publisher = ground.broker().await.publisher();
    let queue = ground.name("results");
    let to = Address::Exchange {
        name: ground.name("no-such-exchange"),
        key: "k".into(),
    };
    let bad = Outgoing::new(to, "chat.test", Bytes::new()).with_message_id("bad");
    let ids: Vec<_> = (0..40).map(|number| format!("m{number}")).collect();
    let good = join_all(ids.iter().map(|id| publish(&publisher, &queue, id)));
    let (bad, good) = tokio::join!(soon(publisher.publish(bad)), good);
    assert!(matches!(bad, Err(PublishError::Rejected { .. })), "{bad:?}");
    assert!(good.iter().all(Result::is_ok), "{good:?}");
    assert_eq!(ground.ids(&queue).await.len(), 40);
    ground.end().await;
}

#[tokio::test]
async fn intake_and_publisher_survive_the_death_of_their_connections() {
    let ground = Ground::new().await;
    let proxy = Proxy::new().await;
    let broker = ground
        .broker_at(&config(&proxy.url(), &ground.config.prefix))
        .await;
    let (publisher, jobs) = (broker.publisher(), broker.names().jobs.clone());
    let ids: Vec<_> = (0..30).map(|number| format!("m{number}")).collect();
    for id in &ids[..20] {
        publish(&publisher, &jobs, id).await.unwrap();
    }
    let mut intake = broker.intake(5);
    let mut held = next(&mut intake).await;
    let mut acked = HashSet::new();
    for _ in 0..4 {
        let delivery = next(&mut intake).await;
        acked.insert(id(&delivery));
        delivery.ack();
    }
    assert!(broker.health().consuming());

    proxy.set(Line::Cut);
    let during = join_all(ids[20..].iter().map(|id| publish(&publisher, &jobs, id)));
    let meanwhile = async {
        // Deliveries that were prefetched still come, and then nothing until it is mended.
        while broker.health().publishing || broker.health().consuming() {
            tokio::task::yield_now().await;
            if let Ok(Some(delivery)) = timeout(Duration::from_millis(20), intake.next()).await {
                drop(delivery);
            }
        }
        assert_eq!(broker.health().intake, IntakeState::Waiting);
        assert!(broker.health().last_error.is_some());
        proxy.set(Line::Open);
    };
    let (during, ()) = tokio::join!(during, meanwhile);
    assert!(during.iter().all(Result::is_ok), "{during:?}");

    // An old delivery may be settled whenever; it comes again.
    let old = id(&held);
    assert!(!acked.contains(&old));
    held.body.clear();
    held.ack();
    let mut again = HashSet::new();
    while acked.union(&again).count() < 30 {
        let delivery = next(&mut intake).await;
        again.insert(id(&delivery));
        delivery.ack();
    }
    assert!(again.contains(&old));
    assert!(broker.health().consuming() && broker.health().publishing);
    intake.stop().await;
    drop(intake);
    ground.end().await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_through_is_replaced() {
    let ground = Ground::new().await;
    let proxy = Proxy::new().await;
    let url = format!("{}?heartbeat=1", proxy.url());
    let broker = ground.broker_at(&config(&url, &ground.config.prefix)).await;
    let (publisher, jobs) = (broker.publisher(), broker.names().jobs.clone());
    publish(&publisher, &jobs, "before").await.unwrap();
    let mut intake = broker.intake(1);
    let held = next(&mut intake).await;
    proxy.set(Line::Frozen);
    publish(&publisher, &jobs, "after").await.unwrap();
    held.ack();
    let mut ids = HashSet::new();
    while ids.len() < 2 {
        let delivery = next(&mut intake).await;
        ids.insert(id(&delivery));
        delivery.ack();
    }
    drop(intake);
    ground.end().await;
}

#[tokio::test]
async fn the_intake_comes_back_after_its_queue_was_deleted() {
    let ground = Ground::new().await;
    let broker = ground.broker().await;
    let (publisher, jobs) = (broker.publisher(), broker.names().jobs.clone());
    let mut intake = broker.intake(3);
    publish(&publisher, &jobs, "before").await.unwrap();
    next(&mut intake).await.ack();
    let channel = ground.channel().await;
    channel
        .queue_delete(jobs.as_str().into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    let after = async {
        while !publisher.queue_exists(&jobs).await.unwrap() {
            tokio::task::yield_now().await;
        }
        publish(&publisher, &jobs, "after").await.unwrap();
    };
    let (delivery, ()) = tokio::join!(next(&mut intake), soon(after));
    assert_eq!(id(&delivery), "after");
    delivery.ack();
    ground.end().await;
}

#[tokio::test]
async fn a_stopped_intake_hands_over_what_it_prefetched_and_ends() {
    let ground = Ground::new().await;
    let broker = ground.broker().await;
    let (publisher, jobs) = (broker.publisher(), broker.names().jobs.clone());
    for number in 0..10 {
        publish(&publisher, &jobs, &format!("m{number}"))
            .await
            .unwrap();
    }
    let mut intake = broker.intake(4);
    let first = next(&mut intake).await;
    soon(async {
        while ground.ready(&jobs).await > 6 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    intake.stop().await;
    assert_eq!(broker.health().intake, IntakeState::Stopped);
    first.ack();
    let mut handed = 1;
    while let Some(delivery) = soon(intake.next()).await {
        handed += 1;
        delivery.ack();
    }
    assert_eq!(handed, 4);
    drop(intake);
    // Those that were acked after the stop are gone, and another intake gets the others.
    let mut intake = broker.intake(10);
    for _ in 0..6 {
        let delivery = next(&mut intake).await;
        assert!(!delivery.redelivered);
        delivery.ack();
    }
    intake.stop().await;
    assert!(soon(intake.next()).await.is_none());
    assert_eq!(ground.ready(&jobs).await, 0);
    ground.end().await;
}

#[tokio::test]
async fn a_delivery_requeued_or_dropped_comes_again() {
    let ground = Ground::new().await;
    let broker = ground.broker().await;
    let jobs = broker.names().jobs.clone();
    publish(&broker.publisher(), &jobs, "m").await.unwrap();
    let mut intake = broker.intake(1);
    let first = next(&mut intake).await;
    assert!(!first.redelivered);
    first.requeue();
    let second = next(&mut intake).await;
    assert!(second.redelivered);
    drop(second);
    next(&mut intake).await.ack();
    ground.end().await;
}

#[tokio::test]
async fn no_more_deliveries_than_the_prefetch_are_unsettled_at_once() {
    let ground = Ground::new().await;
    let broker = ground.broker().await;
    let jobs = broker.names().jobs.clone();
    for number in 0..5 {
        publish(&broker.publisher(), &jobs, &format!("m{number}"))
            .await
            .unwrap();
    }
    let mut intake = broker.intake(2);
    let held = [next(&mut intake).await, next(&mut intake).await];
    // All that the broker was to send at once has left the queue before the first came.
    assert_eq!(ground.ready(&jobs).await, 3);
    for delivery in held {
        delivery.ack();
    }
    next(&mut intake).await.ack();
    ground.end().await;
}

#[tokio::test]
async fn a_direct_reply_to_exists_as_long_as_its_requester() {
    let ground = Ground::new().await;
    let publisher = ground.broker().await.publisher();
    let requester = connect_admin().await;
    let channel = requester.create_channel().await.unwrap();
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let direct = "amq.rabbitmq.reply-to";
    let consumer = channel.basic_consume(direct.into(), "".into(), options, FieldTable::default());
    let mut replies = consumer.await.unwrap();
    let properties = lapin::BasicProperties::default()
        .with_reply_to(direct.into())
        .with_message_id("m".into());
    let (to, options) = (
        ground.name("jobs"),
        lapin::options::BasicPublishOptions::default(),
    );
    channel
        .basic_publish("".into(), to.as_str().into(), options, b"", properties)
        .await
        .unwrap();
    let broker = ground.broker().await;
    let delivery = next(&mut broker.intake(1)).await;
    let reply_to = delivery.properties.reply_to.clone().unwrap();
    delivery.ack();
    assert!(reply_to.starts_with("amq.rabbitmq.reply-to."));
    assert!(soon(publisher.queue_exists(&reply_to)).await.unwrap());
    soon(publisher.publish(message(&reply_to, "reply").may_get_lost()))
        .await
        .unwrap();
    let reply = soon(futures_util::StreamExt::next(&mut replies))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(reply.data, b"body of reply");
    requester.close(200, "bye".into()).await.unwrap();
    assert!(!soon(publisher.queue_exists(&reply_to)).await.unwrap());
    assert!(
        !soon(publisher.queue_exists(&ground.name("nowhere")))
            .await
            .unwrap()
    );
    assert!(
        soon(publisher.queue_exists(&ground.name("jobs")))
            .await
            .unwrap()
    );
    ground.end().await;
}

#[tokio::test]
async fn an_inbox_gets_the_reply_and_the_events_of_its_job() {
    let ground = Ground::new().await;
    let publisher = ground.broker().await.publisher();
    let mut inbox = soon(ReplyInbox::open(&ground.config, "test"))
        .await
        .unwrap();
    let job = JobId(Uuid::new_v4());
    inbox.also_events(job).await.unwrap();
    for of in [JobId(Uuid::new_v4()), job] {
        let key = chat_worker::broker::Names::event_key(of, "tool.finished");
        let to = Address::Exchange {
            name: ground.name("events"),
            key,
        };
        soon(publisher.publish(Outgoing::new(to, "chat.event", Bytes::new()).transient()))
            .await
            .unwrap();
    }
    publish(&publisher, inbox.name(), "reply").await.unwrap();
    let event = inbox.next(LONG).await.unwrap().unwrap();
    assert_eq!(event.routing_key, format!("{job}.tool.finished"));
    let reply = inbox.next(LONG).await.unwrap().unwrap();
    assert_eq!(reply.properties.message_id.as_deref(), Some("reply"));
    assert!(inbox.next(Duration::ZERO).await.unwrap().is_none());
    inbox.close().await;
    ground.end().await;
}

#[tokio::test]
async fn a_stop_sends_what_is_under_way_and_refuses_the_rest() {
    let ground = Ground::new().await;
    let broker = ground.broker().await;
    let (publisher, queue) = (broker.publisher(), ground.name("results"));
    let ids: Vec<_> = (0..100).map(|number| format!("m{number}")).collect();
    let sending = join_all(ids.iter().map(|id| publish(&publisher, &queue, id)));
    let mut sending = std::pin::pin!(sending);
    // Polled once, each has handed its message over.
    assert!(futures_util::poll!(&mut sending).is_pending());
    ground.stop.cancel();
    let outcomes = sending.await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(
        publish(&publisher, &queue, "late").await,
        Err(PublishError::Stopped)
    );
    assert!(soon(broker.intake(1).next()).await.is_none());
    assert_eq!(ground.ids(&queue).await.len(), 100);
    ground.end().await;
}

#[tokio::test]
async fn an_unreachable_broker_and_a_wrong_password_are_told_apart() {
    let url = amqp_url();
    let ground = Ground::new().await;
    let tasks = TaskTracker::new();
    let connect = |url: String| {
        let config = config(&url, &ground.config.prefix);
        let tasks = tasks.clone();
        async move {
            let stop = CancellationToken::new();
            let connected = Publisher::connect(&config, "test", &tasks, stop).await;
            connected.err().expect("connected").to_string()
        }
    };
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let error = soon(connect(format!(
        "amqp://guest:hunter2@127.0.0.1:{port}/%2f"
    )))
    .await;
    assert!(
        error.contains("cannot be reached") && !error.contains("hunter2"),
        "{error}"
    );
    let mut wrong = url::Url::parse(&url).unwrap();
    wrong.set_password(Some("hunter2")).unwrap();
    let error = soon(connect(wrong.to_string())).await;
    assert!(error.contains("check user, password and vhost"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    drop(ground.broker().await);
    ground.end().await;
}

/// Kept here so that a test of the proxy's cut fails by itself when the cut does not.
#[tokio::test]
async fn the_proxy_cuts() {
    let proxy = Proxy::new().await;
    let properties = ConnectionProperties::default();
    let connection = soon(Connection::connect(&proxy.url(), properties))
        .await
        .unwrap();
    proxy.set(Line::Cut);
    soon(async {
        while connection.status().connected() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
