//! Progress, as who binds a queue to the events exchange sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::scenario::{
    Broker, Inbox, Received, Scenario, Setup, ask, broker_url, eventually, puppet, soon, with,
};
use crate::stub_model::Reply;

/// Everything that is said from now on.
async fn listener(s: &Scenario) -> Inbox {
    listener_to(s, "#").await
}

async fn listener_to(s: &Scenario, key: &str) -> Inbox {
    let queue = s.broker.declare("").await;
    s.broker.bind(&queue, &s.name("events"), key).await;
    s.broker.consume(&queue).await
}

/// The events of a job up to its end.
async fn until_finished(inbox: &Inbox, id: &str) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let event = inbox.find(|event| event.json()["job_id"] == id).await;
        assert_is_event(&event, id);
        events.push(event.json());
        if events.last().unwrap()["event"] == "job.finished" {
            return events;
        }
    }
}

fn assert_is_event(message: &Received, id: &str) {
    let event = message.json();
    let name = event["event"].as_str().unwrap();
    assert_eq!(message.key, format!("{id}.{name}"));
    assert_eq!(event["version"], 1);
    let properties = &message.properties;
    let kind = properties.kind().as_ref().map(ToString::to_string);
    assert_eq!(kind.as_deref(), Some("chat.event"));
    assert_eq!(*properties.delivery_mode(), Some(1), "it is transient");
}

fn names(events: &[Value]) -> Vec<&str> {
    let names = events.iter().map(|event| event["event"].as_str().unwrap());
    names.collect()
}

/// Attempt and number of each event.
fn numbers(events: &[Value]) -> Vec<(u64, u64)> {
    let number = |event: &Value, field: &str| event[field].as_u64().unwrap();
    let both = |event| (number(event, "attempt"), number(event, "sequence"));
    events.iter().map(both).collect()
}

#[tokio::test]
async fn a_job_says_what_it_does_from_its_start_to_its_whole_result() {
    let setup = Setup::new().calc().model(puppet);
    setup
        .run(async |s| {
            let inbox = listener(s).await;
            let calls = json!([["calc__add", {"a": 20, "b": 22}], ["calc__fly", {}]]);
            let job = with(ask(&calls.to_string()), "metadata", json!({"ticket": 991}));
            let id = s.send(&job).await;
            let result = s.result_of(&id).await.json();
            let mut events = until_finished(&inbox, &id).await;
            assert_eq!(
                numbers(&events),
                (1..=10).map(|number| (1, number)).collect::<Vec<_>>()
            );
            for event in &events {
                assert_eq!(event["conversation_id"], id);
                assert_eq!(event["user_id"], result["user_id"]);
                assert_eq!(event["metadata"], json!({"ticket": 991}));
            }
            // The calls run together, so that their events come in any order.
            events[3..7].sort_by_key(|event| {
                (
                    event["position"].as_u64(),
                    event["event"] == "tool.finished",
                )
            });
            let expected = [
                "job.started",
                "model.started",
                "model.finished",
                "tool.started",
                "tool.finished",
                "tool.started",
                "tool.finished",
                "model.started",
                "model.finished",
                "job.finished",
            ];
            assert_eq!(names(&events), expected);
            assert_eq!(
                (&events[0]["turn"], &events[0]["iterations"]),
                (&json!(1), &json!(0))
            );
            assert_eq!(
                (&events[2]["iteration"], &events[2]["tool_calls"]),
                (&json!(1), &json!(2))
            );
            assert_eq!(
                (
                    &events[4]["tool"],
                    &events[4]["server"],
                    &events[4]["status"],
                    &events[4]["bytes"]
                ),
                (
                    &json!("calc__add"),
                    &json!("calc"),
                    &json!("succeeded"),
                    &json!(2)
                )
            );
            assert_eq!(
                (
                    &events[6]["tool"],
                    &events[6]["server"],
                    &events[6]["status"]
                ),
                (&json!("calc__fly"), &Value::Null, &json!("refused"))
            );
            assert!(events[4]["call_id"].is_string());
            for call in &events[3..7] {
                assert!(call.get("arguments").is_none() && call.get("result").is_none());
            }
            assert_eq!(events[9]["result"], result, "the whole result");
        })
        .await;
}

#[tokio::test]
async fn a_listener_may_bind_one_kind_of_event_of_all_jobs() {
    let setup = Setup::new().replies([Reply::text("one"), Reply::text("two")]);
    setup
        .run(async |s| {
            let ends = listener_to(s, "*.job.finished").await;
            for reply in ["one", "two"] {
                let id = s.send(&ask("x")).await;
                let event = ends.next().await;
                assert_is_event(&event, &id);
                assert_eq!(event.json()["result"]["message"]["content"], reply);
            }
        })
        .await;
}

#[tokio::test]
async fn each_attempt_counts_from_one_and_a_job_that_waits_says_why() {
    let busy =
        Reply::error(503, "server_error", "", "as scripted").with_header("retry-after", "3600");
    let setup = Setup::new().replies([busy, Reply::text("at last")]);
    setup
        .run(async |s| {
            let inbox = listener(s).await;
            let id = s.send(&ask("x")).await;
            s.waits(&id, "retry").await;
            s.make_due(&id).await;
            let events = until_finished(&inbox, &id).await;
            let expected = [
                "job.started",
                "model.started",
                "job.waiting",
                "job.started",
                "model.started",
                "model.finished",
                "job.finished",
            ];
            assert_eq!(names(&events), expected);
            assert_eq!(
                numbers(&events),
                [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (2, 4)]
            );
            let waiting = &events[2];
            assert_eq!(
                (&waiting["reason"], &waiting["error"]["code"]),
                (&json!("retry"), &json!("model_unavailable"))
            );
            assert!(waiting["due_at"].is_string());
        })
        .await;
}

#[tokio::test]
async fn a_job_that_is_called_off_says_so_while_it_runs_and_while_it_waits() {
    let setup = Setup::new().replies([Reply::never()]);
    setup
        .run(async |s| {
            let inbox = listener(s).await;
            let later = with(ask("later"), "not_before", "2100-01-01T00:00:00Z");
            for job in [ask("now"), later] {
                let waits = job.get("not_before").is_some();
                let id = s.send(&job).await;
                if waits {
                    s.waits(&id, "schedule").await;
                } else {
                    s.model.arrived(1).await;
                }
                s.cancel(&id, "enough").await;
                let result = s.result_of(&id).await.json();
                let events = until_finished(&inbox, &id).await;
                assert_eq!(events.last().unwrap()["result"], result);
                assert_eq!(result["status"], "cancelled");
                if waits {
                    assert_eq!(names(&events), ["job.waiting", "job.finished"]);
                    assert_eq!(numbers(&events), [(0, 1), (0, 2)]);
                    assert_eq!(events[0]["reason"], "schedule");
                    assert_eq!(events[0]["due_at"], "2100-01-01T00:00:00Z");
                } else {
                    are_all_there(&events);
                }
            }
        })
        .await;
}

/// Who says the last word is another worker than the one that ran the job: the numbers go on.
#[tokio::test]
async fn a_job_that_waits_for_its_turn_or_another_try_is_numbered_on_by_whoever_ends_it() {
    let busy =
        Reply::error(503, "server_error", "", "as scripted").with_header("retry-after", "3600");
    let setup = Setup::new().replicas(3).replies([busy]);
    setup
        .run(async |s| {
            let inbox = listener(s).await;
            let first = s.send(&ask("first")).await;
            s.waits(&first, "retry").await;
            let metadata = json!({"ticket": 991});
            let job = with(ask("second"), "conversation_id", first.clone());
            let second = s.send(&with(job, "metadata", metadata.clone())).await;
            s.waits(&second, "turn").await;
            for id in [&second, &first] {
                s.cancel(id, "enough").await;
            }
            let turn = until_finished(&inbox, &second).await;
            assert_eq!(names(&turn), ["job.waiting", "job.finished"]);
            assert_eq!(numbers(&turn), [(0, 1), (0, 2)]);
            assert_eq!(turn[0]["reason"], "turn");
            assert_eq!(turn[0]["metadata"], metadata);
            assert_eq!(turn[1]["metadata"], metadata);
            let again = until_finished(&inbox, &first).await;
            let expected = [
                "job.started",
                "model.started",
                "job.waiting",
                "job.finished",
            ];
            assert_eq!(names(&again), expected);
            are_all_there(&again);
        })
        .await;
}

#[tokio::test]
async fn tools_that_are_missing_are_named() {
    let setup = Setup::new()
        .unready()
        .server("gone", json!({"command": "/no/such/program"}))
        .replies([Reply::text("without")]);
    setup
        .run(async |s| {
            let inbox = listener(s).await;
            let id = s.send(&ask("x")).await;
            let events = until_finished(&inbox, &id).await;
            assert_eq!(names(&events)[..2], ["job.started", "tools.missing"]);
            assert_eq!(events[1]["servers"], json!(["gone"]));
        })
        .await;
}

#[tokio::test]
async fn events_are_counted_also_when_nobody_listens() {
    let setup = Setup::new().replies([Reply::text("one")]);
    setup
        .run(async |s| {
            s.answer(&ask("x")).await;
            let worker = s.worker();
            eventually("four events", async || {
                let (_, figures) = worker.get("/metrics").await;
                figures
                    .lines()
                    .find(|line| *line == "chat_events_total{outcome=\"published\"} 4")
                    .map(drop)
            })
            .await;
        })
        .await;
}

#[tokio::test]
async fn a_tool_that_says_how_far_it_is_is_heard_between_its_start_and_its_end() {
    let setup = Setup::new().calc().model(puppet);
    setup
        .run(async |s| {
            let inbox = listener(s).await;
            let calls = json!([["calc__sleep", {"ms": 2000, "steps": 5}]]);
            let id = s.send(&ask(&calls.to_string())).await;
            let events = until_finished(&inbox, &id).await;
            let names = names(&events);
            let place = |name: &str| names.iter().position(|found| *found == name).unwrap();
            let within = &events[place("tool.started") + 1..place("tool.finished")];
            assert!(!within.is_empty(), "{names:?}");
            for event in within {
                assert_eq!(event["event"], "tool.progress");
                let told = json!([
                    event["iteration"],
                    event["position"],
                    event["tool"],
                    event["server"]
                ]);
                assert_eq!(told, json!([1, 1, "calc__sleep", "calc"]));
                assert_eq!(event["total"], 5.0);
                let step = event["progress"].as_f64().unwrap();
                assert_eq!(event["message"], format!("step {step}"));
            }
            assert!(within.is_sorted_by_key(|event| event["progress"].as_f64()));
        })
        .await;
}

fn aloud(text: &str) -> Value {
    with(ask(text), "stream", true)
}

/// The texts of the deltas of a round since the model was last asked for it.
fn deltas(events: &[Value], iteration: u64) -> Vec<&str> {
    let mut texts = Vec::new();
    for event in events
        .iter()
        .filter(|event| event["iteration"] == iteration)
    {
        match event["event"].as_str().unwrap() {
            "model.delta" => texts.push(event["text"].as_str().unwrap()),
            "model.restarted" => texts.clear(),
            _ => {}
        }
    }
    texts
}

fn are_all_there(events: &[Value]) {
    let numbers: Vec<_> = numbers(events).iter().map(|(_, number)| *number).collect();
    let all: Vec<_> = (1..=events.len() as u64).collect();
    assert_eq!(numbers, all);
}

const LONG_TEXT: &str =
    "Veinte más veintidós son cuarenta y dos, y eso es todo lo que hay que decir. ";

#[tokio::test]
async fn a_job_that_asks_for_it_says_its_words_as_they_come() {
    let text = LONG_TEXT.repeat(20);
    let reply = Reply::text(&text).paced(Duration::from_millis(5));
    let setup = Setup::new().calc().replies([
        Reply::calls([("calc__add", json!({"a": 1, "b": 2}))]),
        reply,
    ]);
    setup
        .run(async |s| {
            let inbox = listener(s).await;
            let id = s.send(&aloud("x")).await;
            let events = until_finished(&inbox, &id).await;
            are_all_there(&events);
            assert_eq!(deltas(&events, 1), Vec::<&str>::new(), "calls are no words");
            let said = deltas(&events, 2);
            assert_eq!(said.concat(), text);
            let result = &events.last().unwrap()["result"];
            assert_eq!(result["message"]["content"], text);
            let stored = s.job(&id).await;
            assert_eq!(stored["reply"], text);
            assert!(said.len() > 5, "{} pieces in two seconds", said.len());
            at_most_twenty_a_second(&events);
            let before_the_end = events
                .iter()
                .position(|event| event["event"] == "model.delta");
            assert!(before_the_end.unwrap() < events.len() - 3);
        })
        .await;
}

fn at_most_twenty_a_second(events: &[Value]) {
    let at = |event: &Value| {
        let at = event["at"].as_str().unwrap();
        chrono::DateTime::parse_from_rfc3339(at).unwrap()
    };
    let deltas = events
        .iter()
        .filter(|event| event["event"] == "model.delta");
    let times: Vec<_> = deltas.map(at).collect();
    for window in times.windows(21) {
        let took = window[20] - window[0];
        assert!(took >= chrono::TimeDelta::seconds(1), "21 deltas in {took}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_void_and_the_next_one_counts() {
    let text = LONG_TEXT.repeat(3);
    let broken = Reply::text(&text)
        .paced(Duration::from_millis(5))
        .breaks_after(20);
    let setup = Setup::new().replies([broken, Reply::text(&text)]);
    setup
        .run(async |s| {
            let inbox = listener(s).await;
            let id = s.send(&aloud("x")).await;
            let events = until_finished(&inbox, &id).await;
            are_all_there(&events);
            let restarted = events
                .iter()
                .find(|event| event["event"] == "model.restarted")
                .expect("a restart");
            assert_eq!(restarted["error"]["code"], "model_unavailable");
            let before = names(&events)
                .into_iter()
                .take_while(|name| *name != "model.restarted")
                .filter(|name| *name == "model.delta");
            assert!(before.count() > 0, "something was said before it broke off");
            assert_eq!(deltas(&events, 1).concat(), text);
        })
        .await;
}

#[tokio::test]
async fn words_are_said_of_jobs_that_ask_for_it_alone() {
    let setup = Setup::new().set("CHAT_MODEL_STREAM", "true").replies([
        Reply::text("quiet"),
        Reply::text("in one piece").in_one_piece(),
    ]);
    setup
        .run(async |s| {
            let inbox = listener(s).await;
            let id = s.send(&ask("x")).await;
            let events = until_finished(&inbox, &id).await;
            let quiet = [
                "job.started",
                "model.started",
                "model.finished",
                "job.finished",
            ];
            assert_eq!(names(&events), quiet);
            assert_eq!(s.model.requests()[0].body["stream"], true);
            // A server that cannot stream is no reason to hear nothing.
            let id = s.send(&aloud("x")).await;
            let events = until_finished(&inbox, &id).await;
            assert_eq!(deltas(&events, 1), ["in one piece"]);
        })
        .await;
}

#[tokio::test]
async fn who_waits_at_a_prompt_sees_what_the_job_does_and_then_the_reply() {
    let setup = Setup::new().calc();
    setup
        .run(async |s| {
            for stream in [false, true] {
                let mut arguments = vec!["enqueue", "--wait"];
                if stream {
                    arguments.push("--stream");
                }
                arguments.push("What is 20 plus 22?");
                let (out, err) = s.command_aloud(&arguments).await;
                assert_eq!(out, "The answer is 42\n", "a pipe gets the reply alone");
                let lines: Vec<_> = err.lines().skip(1).collect();
                let progress = ["the job runs", "calc__add is called", "calc__add succeeded"];
                assert_eq!(lines, progress, "{err}");
                let asked = s.model.requests().pop().unwrap().body;
                assert_eq!(asked.get("stream").is_some(), stream);
            }
        })
        .await;
}

/// The way to the broker, which can be stopped: nothing is read from the broker any more then, and the
/// connection stays.
struct Way {
    url: String,
    stop: Arc<Notify>,
    /// Ends with this.
    _forwarding: JoinSet<()>,
}

impl Way {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut url = url::Url::parse(&broker_url()).unwrap();
        let to = (
            url.host_str().unwrap().to_owned(),
            url.port().unwrap_or(5672),
        );
        url.set_host(Some("127.0.0.1")).unwrap();
        let port = listener.local_addr().unwrap().port();
        url.set_port(Some(port)).unwrap();
        let stop = Arc::<Notify>::default();
        let stopped = Arc::clone(&stop);
        let mut forwarding = JoinSet::new();
        forwarding.spawn(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(to).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                () = stopped.notified() => std::future::pending().await,
            }
        });
        Self {
            url: url.to_string(),
            stop,
            _forwarding: forwarding,
        }
    }

    fn stop(&self) {
        self.stop.notify_one();
    }
}

/// Sends `jobs` that say much, and waits for all their results.
async fn burst(s: &Scenario, jobs: usize) -> Duration {
    let begun = Instant::now();
    let mut ids = Vec::new();
    for _ in 0..jobs {
        ids.push(s.send(&aloud("x")).await);
    }
    for id in ids {
        let result = s.result_of(&id).await.json();
        assert_eq!(result["status"], "completed");
    }
    begun.elapsed()
}

#[tokio::test]
async fn a_listener_that_reads_slowly_or_never_slows_no_job() {
    let text = LONG_TEXT.repeat(40);
    let setup = Setup::new()
        .set("CHAT_CONCURRENCY", "8")
        .model(move |_| Reply::text(&text));
    setup
        .run(async |s| {
            let unheard = burst(s, 40).await;
            // A short queue that nobody reads, and a long one.
            let short = s.broker.declare_short(10).await;
            let long = s.broker.declare("").await;
            // A consumer whose end of the line is not read any more.
            let way = Way::open().await;
            let stuck = Broker::connect_to(&s.name("stuck"), &way.url).await;
            let queue = stuck.declare("").await;
            for queue in [&short, &long] {
                s.broker.bind(queue, &s.name("events"), "#").await;
            }
            stuck.bind(&queue, &s.name("events"), "#").await;
            let inbox = stuck.consume(&queue).await;
            let first = s.send(&aloud("x")).await;
            soon(
                "an event",
                inbox.find(|event| event.key.starts_with(&first)),
            )
            .await;
            way.stop();
            let heard_by_nobody = burst(s, 40).await;
            assert!(
                heard_by_nobody < unheard * 4 + Duration::from_secs(5),
                "{heard_by_nobody:?} with listeners that do not read, {unheard:?} without"
            );
        })
        .await;
}
