//! `dead`, `prune` and `cancel` through the built program, against a real `PostgreSQL` and `RabbitMQ`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::process::Stdio;
use std::time::Duration;

use chat_worker::config::environment;
use chat_worker::fault::{ErrorCode, Failure};
use chat_worker::ids::JobId;
use chat_worker::store::{Cancelled, DeadLetter, Store};
use chat_worker::wire::{self, Job};
use futures_util::FutureExt as _;
use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

const LONG: Duration = Duration::from_mins(1);
const NEEDS: &str = "needs RabbitMQ and PostgreSQL: run `cargo xtask test`, or `eval \"$(cargo xtask env)\"` after `cargo xtask up`";
const OLD_JOB: Uuid = Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057);

/// A migrated database and a prefix on the broker, both of the test's own.
struct Ground {
    store: Store,
    pool: PgPool,
    admin: String,
    name: String,
    database: String,
    amqp: String,
    prefix: String,
}

/// What a run of the program came to.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// Standard output and the exit code, of a run that is to go well.
    fn good(self) -> String {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out
    }

    fn lines(&self) -> Vec<&str> {
        self.out.lines().collect()
    }
}

impl Ground {
    async fn new() -> Self {
        let admin = environment("DATABASE_URL").expect(NEEDS);
        let name = format!("dead_{}", Uuid::new_v4().simple());
        administer(&admin, format!("CREATE DATABASE {name}")).await;
        let mut url = Url::parse(&admin).expect("DATABASE_URL is no URL");
        url.set_path(&name);
        let pool = PgPoolOptions::new().max_connections(4);
        let pool = pool.connect(url.as_str()).await.expect("a database");
        let store = Store::over(pool.clone());
        store.migrate().await.unwrap();
        Self {
            store,
            pool,
            admin,
            name,
            database: url.to_string(),
            amqp: environment("AMQP_URL").expect(NEEDS),
            prefix: format!("test-{}", Uuid::new_v4()),
        }
    }

    /// Runs `test`, and removes what is its own in any case but that of a failure, which it shows.
    async fn run(test: impl AsyncFnOnce(&Self)) {
        let ground = Self::new().await;
        let ended = std::panic::AssertUnwindSafe(test(&ground));
        let ended = ended.catch_unwind().await;
        ground.delete_queues().await;
        ground.pool.close().await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", ground.name);
        administer(&ground.admin, drop).await;
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    }

    async fn chat_worker(&self, args: &[&str]) -> Ran {
        self.chat_worker_with(args, &[]).await
    }

    async fn chat_worker_with(&self, args: &[&str], more: &[(&str, &str)]) -> Ran {
        let directory = tempfile::tempdir().unwrap();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_chat-worker"));
        command.args(args).env_clear().current_dir(directory.path());
        command.env("DATABASE_URL", &self.database);
        command.env("AMQP_URL", &self.amqp);
        command.env("CHAT_PREFIX", &self.prefix);
        command.envs(more.iter().copied()).kill_on_drop(true);
        command.stdin(Stdio::null());
        let ended = timeout(LONG, command.output());
        let ended = ended.await.expect("it ends").unwrap();
        Ran {
            code: ended.status.code().expect("it ends by itself"),
            out: String::from_utf8(ended.stdout).unwrap(),
            err: String::from_utf8(ended.stderr).unwrap(),
        }
    }

    async fn sql(&self, statement: &str) {
        let sql = AssertSqlSafe(statement.to_owned());
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }

    async fn number(&self, query: &str) -> i64 {
        let query = sqlx::query_scalar(AssertSqlSafe(query.to_owned()));
        query.fetch_one(&self.pool).await.unwrap()
    }

    /// A dead letter as a worker makes it; its id.
    async fn bury(&self, body: &str, properties: &Value) -> Uuid {
        let failure = Failure::new(ErrorCode::ModelUnavailable, "the model is away");
        let letter = DeadLetter {
            job_id: Some(JobId(OLD_JOB)),
            failure: &failure,
            body: body.as_bytes(),
            properties: &properties.to_string(),
        };
        self.store.bury(&letter).await.unwrap();
        let newest = "SELECT id FROM chat.dead_letters ORDER BY created_at DESC LIMIT 1";
        let newest = sqlx::query_scalar(newest).fetch_one(&self.pool);
        newest.await.unwrap()
    }

    /// So many dead letters, an hour apart, the newest an hour old: the job of the n-th is of the
    /// user `u<n>`, and its id ends with n.
    async fn bury_many(&self, many: u32) {
        self.sql(&format!(
            r#"INSERT INTO chat.dead_letters (id, error_code, error_message, body, properties, created_at)
               SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'internal', 'number ' || n,
                      convert_to('{{"user_id":"u' || n || '","messages":[{{"role":"user","content":"x"}}]}}', 'UTF8'), '{{}}',
                      now() - make_interval(hours => {many} + 1 - n)
               FROM generate_series(1, {many}) AS n"#
        ))
        .await;
    }

    async fn replayed(&self) -> i64 {
        self.number("SELECT count(*) FROM chat.dead_letters WHERE replayed_at IS NOT NULL")
            .await
    }

    /// Everything in the jobs queue, in order.
    async fn jobs(&self) -> Vec<BasicGetMessage> {
        let queue = format!("{}.jobs", self.prefix);
        let (connection, channel) = self.channel().await;
        let mut jobs = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(job) = channel
            .basic_get(queue.as_str().into(), options)
            .await
            .unwrap()
        {
            jobs.push(job);
        }
        connection.close(200, "done".into()).await.unwrap();
        jobs
    }

    async fn has_queue(&self, prefix: &str) -> bool {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let (connection, channel) = self.channel().await;
        let name = format!("{prefix}.jobs");
        let asked = channel.queue_declare(name.as_str().into(), options, FieldTable::default());
        let there = asked.await.is_ok();
        connection.close(200, "done".into()).await.unwrap();
        there
    }

    async fn channel(&self) -> (Connection, Channel) {
        let connection = Connection::connect(&self.amqp, ConnectionProperties::default());
        let connection = connection.await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }

    async fn delete_queues(&self) {
        let (connection, channel) = self.channel().await;
        for queue in ["jobs", "results", "jobs.dead", "control"] {
            let name = format!("{}.{queue}", self.prefix);
            let deleted = channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default());
            deleted.await.unwrap();
        }
        for exchange in ["dlx", "events"] {
            let name = format!("{}.{exchange}", self.prefix);
            let deleted =
                channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default());
            deleted.await.unwrap();
        }
        connection.close(200, "done".into()).await.unwrap();
    }
}

async fn administer(url: &str, statement: String) {
    let mut admin = PgConnection::connect(url)
        .await
        .expect("DATABASE_URL leads to no database");
    admin.execute(AssertSqlSafe(statement)).await.unwrap();
    admin.close().await.ok();
}

fn job_in(message: &BasicGetMessage) -> Job {
    wire::decode(&message.data, 1 << 20).unwrap().0
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

const PLAIN: &str = r#"{"user_id":"u","messages":[{"role":"user","content":"x"}]}"#;
/// Letters of fixed times, whose texts try to act on the terminal.
const ROWS: &str = r#"
    INSERT INTO chat.dead_letters (id, job_id, error_code, error_message, body, properties, created_at, replayed_at) VALUES
    ('00000000-0000-0000-0000-000000000001', NULL, 'invalid_json', E'the body is no JSON:\nat \x1b[2Jonce', '\x7bff00',
        '{}', '2026-01-01 00:00:01Z', NULL),
    ('00000000-0000-0000-0000-000000000002', '01890a5d-ac96-774b-bcce-b302099a8057', 'invalid_job', '/user_id: expected ␛0000',
        convert_to('{"b":1.000000000000000000001,"a":"␛0000\u0000"}', 'UTF8'),
        '{"message_id": "m-1", "headers": {"x-tenant": "a␛0000"}}', '2026-01-01 00:00:02Z', NULL),
    ('00000000-0000-0000-0000-000000000003', NULL, 'internal', 'a bug', 'plain', '{}', '2026-01-01 00:00:03Z', '2026-01-02 00:00:00Z');
"#;

#[tokio::test]
async fn dead_letters_are_listed_newest_first_a_line_each() {
    Ground::run(async |ground| {
        let ran = ground.chat_worker(&["dead", "list"]).await;
        assert_eq!((ran.code, &*ran.out), (0, ""), "{}", ran.err);
        assert!(ran.err.contains("no such dead letters"), "{}", ran.err);
        ground.sql(ROWS).await;
        let listed = ground.chat_worker(&["dead", "list"]).await.good();
        insta::assert_snapshot!(listed, @r"
        00000000-0000-0000-0000-000000000002  2026-01-01 00:00:02 UTC  invalid_job   01890a5d-ac96-774b-bcce-b302099a8057  /user_id: expected \u{0}
        00000000-0000-0000-0000-000000000001  2026-01-01 00:00:01 UTC  invalid_json  -                                     the body is no JSON:\nat \u{1b}[2Jonce
        ");
        let all = ground.chat_worker(&["dead", "list", "--all"]).await;
        assert_eq!(all.lines().len(), 3);
        assert!(all.lines()[0].ends_with("(replayed)  a bug"), "{}", all.out);
        let one = ["dead", "list", "--code", "invalid_json"];
        let one = ground.chat_worker(&one).await;
        assert_eq!(one.lines().len(), 1);
        assert!(one.out.contains("-000000000001 "), "{}", one.out);
    })
    .await;
}

#[tokio::test]
async fn dead_letters_are_listed_as_lines_of_json() {
    Ground::run(async |ground| {
        ground.sql(ROWS).await;
        let args = ["dead", "list", "--all", "--json"];
        let listed = ground.chat_worker(&args).await.good();
        let listed: Vec<_> = listed.lines().map(json).collect();
        assert_eq!(listed.len(), 3);
        assert_eq!(
            listed[0],
            json!({"id": "00000000-0000-0000-0000-000000000003", "job_id": null, "error_code": "internal",
                "error_message": "a bug", "body_bytes": 5, "created_at": "2026-01-01T00:00:03Z",
                "replayed_at": "2026-01-02T00:00:00Z"})
        );
        assert_eq!(listed[1]["error_message"], "/user_id: expected \0");
        assert_eq!(listed[1]["job_id"], OLD_JOB.to_string());
    })
    .await;
}

#[tokio::test]
async fn a_list_ends_at_its_limit_over_many_pages() {
    Ground::run(async |ground| {
        ground.bury_many(1_001).await;
        for (limit, shown, more) in [
            ("1", 1, true),
            ("500", 500, true),
            ("1000", 1_000, true),
            ("1001", 1_001, false),
        ] {
            let ran = ground
                .chat_worker(&["dead", "list", "--limit", limit])
                .await;
            let numbers: Vec<u32> = ran
                .lines()
                .iter()
                .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
                .collect();
            let expected: Vec<u32> = (0..shown).map(|at| 1_001 - at).collect();
            assert_eq!(numbers, expected, "{limit}");
            assert_eq!(ran.err.contains("there are more"), more, "{}", ran.err);
        }
    })
    .await;
}

#[tokio::test]
async fn show_tells_everything_and_nothing_acts_on_the_terminal() {
    Ground::run(async |ground| {
        ground.sql(ROWS).await;
        let show = async |number: &str| {
            let id = format!("00000000-0000-0000-0000-00000000000{number}");
            ground.chat_worker(&["dead", "show", &id]).await.good()
        };
        insta::assert_snapshot!(show("1").await, @r"
        dead letter 00000000-0000-0000-0000-000000000001
          error      invalid_json: the body is no JSON:\nat \u{1b}[2Jonce
          job        -
          created    2026-01-01 00:00:01 UTC
          replayed   no

        properties
          {}

        body  3 bytes, not UTF-8; escaped as \xNN
          {\xff\x00
        ");
        insta::assert_snapshot!(show("2").await, @r#"
        dead letter 00000000-0000-0000-0000-000000000002
          error      invalid_job: /user_id: expected \u{0}
          job        01890a5d-ac96-774b-bcce-b302099a8057
          created    2026-01-01 00:00:02 UTC
          replayed   no

        properties
          {
            "message_id": "m-1",
            "headers": {
              "x-tenant": "a\u0000"
            }
          }

        body  49 bytes, JSON
          {
            "b": 1.000000000000000000001,
            "a": "␛0000\u0000"
          }
        "#);
        insta::assert_snapshot!(show("3").await, @r"
        dead letter 00000000-0000-0000-0000-000000000003
          error      internal: a bug
          job        -
          created    2026-01-01 00:00:03 UTC
          replayed   2026-01-02 00:00:00 UTC

        properties
          {}

        body  5 bytes, text that is no JSON
          plain
        ");
    })
    .await;
}

#[tokio::test]
async fn show_gives_the_body_as_it_came_in_json() {
    Ground::run(async |ground| {
        ground.sql(ROWS).await;
        let show = async |number: &str| {
            let id = format!("00000000-0000-0000-0000-00000000000{number}");
            let shown = ground.chat_worker(&["dead", "show", "--json", &id]).await;
            json(&shown.good())
        };
        let bytes = show("1").await;
        assert_eq!(bytes["body_hex"], "7bff00");
        assert_eq!(bytes["body"], Value::Null);
        let text = show("2").await;
        assert_eq!(
            text["body"],
            r#"{"b":1.000000000000000000001,"a":"␛0000\u0000"}"#
        );
        assert_eq!(text["properties"]["message_id"], "m-1");
        assert_eq!(text["error_message"], "/user_id: expected \0");
        let unknown = Uuid::new_v4().to_string();
        let ran = ground.chat_worker(&["dead", "show", &unknown]).await;
        assert_eq!((ran.code, &*ran.out), (1, ""));
        assert!(
            ran.err.contains(&format!("no dead letter {unknown}")),
            "{}",
            ran.err
        );
    })
    .await;
}

#[tokio::test]
async fn a_replay_is_a_new_job_in_the_queue_and_its_row_says_so() {
    Ground::run(async |ground| {
        let conversation = Uuid::new_v4();
        let body = json!({"job_id": OLD_JOB, "conversation_id": conversation, "user_id": "u",
            "messages": [{"role": "user", "content": "x"}], "metadata": {"ticket": 991}});
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let properties = json!({"message_id": OLD_JOB, "correlation_id": "c-1", "reply_to": "amq.gen-gone",
            "priority": 4, "user_id": "guest", "headers": {"traceparent": trace}});
        let id = ground.bury(&body.to_string(), &properties).await.to_string();
        let ran = ground.chat_worker(&["dead", "replay", &id]).await;
        assert!(ran.err.contains("1 dead letter replayed"), "{}", ran.err);
        let out = ran.good();
        let (letter, new) = out.trim().split_once(' ').unwrap();
        assert_eq!(letter, id);

        let jobs = ground.jobs().await;
        assert_eq!(jobs.len(), 1);
        let job = job_in(&jobs[0]);
        let job_id = job.job_id.unwrap();
        assert_eq!(job_id.to_string(), new);
        assert_ne!(job_id.0, OLD_JOB);
        assert_eq!(job_id.0.get_version_num(), 7);
        assert_eq!(job.conversation_id.unwrap().0, conversation);
        let metadata = json!({"ticket": 991, "replay_of": OLD_JOB});
        assert_eq!(Value::from(job.metadata.unwrap()), metadata);
        let properties = &jobs[0].properties;
        let text = |text: &Option<lapin::types::ShortString>| text.as_ref().unwrap().to_string();
        assert_eq!(text(properties.message_id()), new);
        assert_eq!(text(properties.kind()), "chat.job");
        assert_eq!(text(properties.correlation_id()), "c-1");
        assert_eq!(text(properties.reply_to()), "amq.gen-gone");
        assert_eq!(*properties.priority(), Some(4));
        assert_eq!(*properties.delivery_mode(), Some(2));
        let headers = properties.headers().as_ref().unwrap();
        assert!(headers.contains_key("traceparent"));

        assert_eq!(ground.replayed().await, 1);
        // Named, it is replayed once more, as yet another job.
        let again = ground.chat_worker(&["dead", "replay", &id, &id]).await.good();
        assert_eq!(again.lines().count(), 1, "{again}");
        assert_ne!(again, out);
        let all = ground.chat_worker(&["dead", "replay", "--all"]).await;
        assert!(all.err.contains("0 dead letters replayed"), "{}", all.err);
        assert_eq!(ground.jobs().await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_replayed_is_named_and_keeps_no_other_back() {
    Ground::run(async |ground| {
        let full = format!(r#"{{"user_id":"u","messages":[{{"role":"user","content":"x"}}],"metadata":{{"a":"{}"}}}}"#, "x".repeat(16_370));
        let bad = ground.bury("no job", &json!({})).await.to_string();
        let full = ground.bury(&full, &json!({})).await.to_string();
        let long = ground.bury(PLAIN, &json!({"correlation_id": "c".repeat(300)})).await.to_string();
        let good = ground.bury(PLAIN, &json!({})).await.to_string();
        let unknown = Uuid::new_v4().to_string();
        let ran = ground.chat_worker(&["dead", "replay", &bad, &unknown, &full, &long, &good]).await;
        assert_eq!(ran.code, 1, "{}", ran.err);
        assert_eq!(ran.lines().len(), 1, "{}", ran.out);
        assert!(ran.out.starts_with(&good), "{}", ran.out);
        for (id, says) in [
            (&bad, "it is no job: invalid_json"),
            (&unknown, "there is none"),
            (&full, "/metadata: expected at most 16384"),
            (&long, "too large"),
        ] {
            let line = ran.err.lines().find(|line| line.contains(id.as_str()));
            let line = line.unwrap_or_else(|| panic!("{id}: {}", ran.err));
            assert!(line.contains(says), "{line}");
        }
        assert!(ran.err.contains("1 dead letter replayed, 4 not"), "{}", ran.err);
        assert_eq!(ground.jobs().await.len(), 1);
        assert_eq!(ground.replayed().await, 1);
        // Those that failed are tried again, the other one is not.
        let all = ground.chat_worker(&["dead", "replay", "--all"]).await;
        assert_eq!((all.code, &*all.out), (1, ""));
        assert!(all.err.contains("0 dead letters replayed, 3 not"), "{}", all.err);
    })
    .await;
}

#[tokio::test]
async fn all_are_replayed_once_oldest_first() {
    Ground::run(async |ground| {
        ground.bury_many(1_200).await;
        let ran = ground.chat_worker(&["dead", "replay", "--all"]).await;
        assert!(
            ran.err.contains("1200 dead letters replayed"),
            "{}",
            ran.err
        );
        let out = ran.good();
        let jobs = ground.jobs().await;
        let users: Vec<_> = jobs.iter().map(|job| job_in(job).user_id).collect();
        let expected: Vec<_> = (1..=1_200).map(|number| format!("u{number}")).collect();
        assert_eq!(users, expected);
        let ids = jobs
            .iter()
            .map(|job| job_in(job).job_id.unwrap().to_string());
        let printed = out.lines().map(|line| line.split(' ').nth(1).unwrap());
        assert!(ids.eq(printed));
        assert_eq!(ground.replayed().await, 1_200);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_replayed_to_another_installation_or_without_a_broker() {
    Ground::run(async |ground| {
        ground.store.claim_prefix(&ground.prefix).await.unwrap();
        ground.bury(PLAIN, &json!({})).await;
        let other = format!("test-{}", Uuid::new_v4());
        let args = ["dead", "replay", "--all"];
        let ran = ground
            .chat_worker_with(&args, &[("CHAT_PREFIX", &other)])
            .await;
        assert_eq!((ran.code, &*ran.out), (1, ""));
        assert!(
            ran.err.contains(&format!("CHAT_PREFIX={other}")),
            "{}",
            ran.err
        );
        assert!(!ground.has_queue(&other).await);
        let nowhere = [("AMQP_URL", "amqp://u:hunter2xyz@127.0.0.1:9/%2f")];
        let ran = ground.chat_worker_with(&args, &nowhere).await;
        assert_eq!((ran.code, &*ran.out), (1, ""));
        assert!(ran.err.contains("cannot be reached"), "{}", ran.err);
        assert_eq!(ground.replayed().await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_message_that_spoke_for_another_user_is_not_replayed() {
    Ground::run(async |ground| {
        let id = ground.bury(PLAIN, &json!({"user_id": "mallory"})).await;
        let (id, trust) = (id.to_string(), [("CHAT_TRUST_AMQP_USER", "true")]);
        let args = ["dead", "replay", &*id];
        let ran = ground.chat_worker_with(&args, &trust).await;
        assert_eq!((ran.code, &*ran.out), (1, ""));
        assert!(ran.err.contains("/user_id"), "{}", ran.err);
        ground.chat_worker(&args).await.good();
    })
    .await;
}

#[tokio::test]
async fn dead_letters_are_dropped_by_id_by_age_and_all() {
    Ground::run(async |ground| {
        ground.bury_many(2_100).await;
        let id = |number: u32| format!("00000000-0000-0000-0000-{number:012}");
        let drop = async |args: &[&str]| {
            let args = [&["dead", "drop"], args].concat();
            ground.chat_worker(&args).await
        };
        let ran = drop(&[&id(1), &id(2), &id(9_999)]).await;
        assert_eq!((ran.code, &*ran.out), (1, "2 dead letters dropped\n"));
        assert!(ran.err.contains(&id(9_999)), "{}", ran.err);
        // The n-th is 2101 - n hours old, so that those up to 2052 are older than two days.
        let older = drop(&["--older-than", "2d"]).await.good();
        assert_eq!(older, "2051 dead letters dropped\n");
        let left = ground.number("SELECT count(*) FROM chat.dead_letters").await;
        assert_eq!(left, 47);
        ground.sql("UPDATE chat.dead_letters SET replayed_at = now() WHERE error_message = 'number 2100'").await;
        assert_eq!(drop(&["--all"]).await.good(), "47 dead letters dropped\n");
        assert_eq!(drop(&["--all"]).await.good(), "0 dead letters dropped\n");
    })
    .await;
}

#[tokio::test]
async fn what_is_old_is_deleted_in_batches_and_counted() {
    Ground::run(async |ground| {
        let jobs = r"
            INSERT INTO chat.conversations (id, user_id)
            SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'u' FROM generate_series(1, 501) AS n;
            INSERT INTO chat.jobs (id, conversation_id, user_id, status, request, finished_at)
            SELECT id, id, 'u', 'completed', '{}', now() - interval '91 days' FROM chat.conversations;
            UPDATE chat.jobs SET finished_at = now() - interval '89 days' WHERE id = '00000000-0000-0000-0000-000000000007';
        ";
        ground.sql(jobs).await;
        ground.bury_many(100 * 24).await;
        let costs = "INSERT INTO chat.user_costs (user_id, day, cost_usd)
                     SELECT 'u', (now() AT TIME ZONE 'UTC')::date - days, 1 FROM unnest('{0,89,91,99}'::int[]) AS days";
        ground.sql(costs).await;
        let prune = async |args: &[&str]| ground.chat_worker(&[&["prune"], args].concat()).await;
        let said = prune(&["--older-than", "90d"]).await.good();
        let expected = "deleted 500 jobs, 500 conversations, 241 dead letters, 0 workers, 0 kept cancels, 2 days of users' costs\n";
        assert_eq!(said, expected);
        let left = ground.number("SELECT count(*) FROM chat.jobs WHERE id::text LIKE '%7'").await;
        assert_eq!(left, 1);
        let said = prune(&["--older-than", "90d"]).await.good();
        assert!(said.starts_with("deleted 0 jobs, 0 conversations, 0 dead letters"), "{said}");
        for wrong in [&[][..], &["--older-than", "90"]] {
            assert_eq!(prune(wrong).await.code, 2);
        }
    })
    .await;
}

#[tokio::test]
async fn to_prune_leaves_what_somebody_has_locked_and_says_so() {
    Ground::run(async |ground| {
        ground.sql(JOBS).await;
        ground.sql("UPDATE chat.jobs SET finished_at = now() - interval '1 h' WHERE finished_at IS NOT NULL").await;
        let mut somebody = ground.pool.begin().await.unwrap();
        let lock = "SELECT FROM chat.conversations FOR KEY SHARE";
        sqlx::query(lock).fetch_all(&mut *somebody).await.unwrap();
        let args = ["prune", "--older-than", "1m"];
        let ran = ground.chat_worker(&args).await;
        assert!(ran.err.contains("1 job is in use"), "{}", ran.err);
        assert!(ran.good().starts_with("deleted 0 jobs, "));
        somebody.rollback().await.unwrap();
        let said = ground.chat_worker(&args).await.good();
        assert!(said.starts_with("deleted 1 job, 0 conversations, "), "{said}");
    })
    .await;
}

/// A job that waits for its turn and one that has ended.
const JOBS: &str = r"
    INSERT INTO chat.conversations (id, user_id) VALUES ('00000000-0000-0000-0000-00000000000c', 'u');
    INSERT INTO chat.jobs (id, conversation_id, user_id, status, wait_reason, request, finished_at) VALUES
    ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-00000000000c', 'u', 'waiting', 'turn', '{}', NULL),
    ('00000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-00000000000c', 'u', 'completed', NULL, '{}', now());
";

#[tokio::test]
async fn a_cancel_says_what_becomes_of_it() {
    Ground::run(async |ground| {
        ground.sql(JOBS).await;
        let cancel = async |number: u32, more: &[&str]| {
            let id = format!("00000000-0000-0000-0000-{number:012}");
            let args = [&["cancel", &id], more].concat();
            ground.chat_worker(&args).await.good()
        };
        let said = cancel(1, &["--reason", "no ␛ use"]).await;
        assert!(said.ends_with("is called off; a worker ends it within a second\n"), "{said}");
        let asked = "SELECT count(*) FROM chat.jobs WHERE cancel_requested_at IS NOT NULL AND cancel_reason = 'no ␛241b use'";
        assert_eq!(ground.number(asked).await, 1);
        let said = cancel(2, &[]).await;
        assert!(said.ends_with("had ended already; nothing changed\n"), "{said}");
        let said = cancel(3, &["--reason", "late"]).await;
        assert!(said.starts_with("nobody knows the job"), "{said}");
        assert!(said.contains("24 h"), "{said}");
        let kept = "SELECT count(*) FROM chat.cancel_requests WHERE reason = 'late'";
        assert_eq!(ground.number(kept).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_cancel_for_another_user_changes_nothing() {
    Ground::run(async |ground| {
        ground.sql(JOBS).await;
        let cancel = async |number, user| {
            let job = JobId(Uuid::from_u128(number));
            let asked = ground.store.request_cancel(job, None, Some(user));
            asked.await.unwrap()
        };
        assert_eq!(cancel(1, "mallory").await, Cancelled::Forbidden);
        assert_eq!(cancel(2, "mallory").await, Cancelled::Forbidden);
        let asked = "SELECT count(*) FROM chat.jobs WHERE cancel_requested_at IS NOT NULL";
        assert_eq!(ground.number(asked).await, 0);
        assert_eq!(cancel(1, "u").await, Cancelled::Requested);
        assert_eq!(cancel(2, "u").await, Cancelled::Finished);
        assert_eq!(cancel(3, "u").await, Cancelled::Kept);
        assert_eq!(ground.number(asked).await, 1);
    })
    .await;
}

#[tokio::test]
async fn without_a_schema_each_command_says_what_to_do() {
    Ground::run(async |ground| {
        ground.sql("DROP SCHEMA chat CASCADE").await;
        let id = Uuid::new_v4().to_string();
        for args in [
            &["cancel", &*id][..],
            &["dead", "list"],
            &["dead", "show", &id],
            &["dead", "replay", "--all"],
            &["dead", "drop", "--all"],
        ] {
            let ran = ground.chat_worker(args).await;
            assert_eq!((ran.code, &*ran.out), (1, ""), "{args:?}");
            assert!(
                ran.err.contains("chat-worker migrate"),
                "{args:?}: {}",
                ran.err
            );
        }
    })
    .await;
}
