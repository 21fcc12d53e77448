//! Servers over HTTP as others publish them: left out where npm or node is not installed.

use std::process::Stdio;
use std::time::{Duration, Instant};

use chat_worker::chat::OutcomeStatus;
use chat_worker::config::ServerConfig;
use chat_worker::tools::ServerState;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::elsewhere::remote;
use crate::harness::{Lines, Tools, calc, eventually};
use crate::npm::installed;

/// The reference server over HTTP, which can be stopped and started again at the same address.
struct Everything {
    main: String,
    port: u16,
    process: Option<Child>,
    said: Lines,
}

impl Everything {
    /// It is not started yet; nobody else has its port.
    async fn new() -> Self {
        let main = installed("server-everything").await;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        Self {
            main: main.to_str().expect("a path in UTF-8").to_owned(),
            port: listener.local_addr().expect("an address").port(),
            process: None,
            said: Lines::new(),
        }
    }

    /// Starts it and waits until it takes requests.
    async fn start(&mut self) {
        let said = std::fs::File::create(self.said.path()).expect("a file");
        let mut process = Command::new("node")
            .args([&self.main, "streamableHttp"])
            .env("PORT", self.port.to_string())
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("this test needs node (https://nodejs.org) on the PATH");
        let stderr = process.stderr.take().expect("its standard error");
        let mut lines = BufReader::new(stderr).lines();
        loop {
            let line = lines.next_line().await.expect("a line");
            let line = line.expect("it ended before it took requests");
            if line.contains("listening on port") {
                break;
            }
        }
        self.process = Some(process);
    }

    async fn stop(&mut self) {
        let mut process = self.process.take().expect("a process");
        process.kill().await.expect("its end");
    }

    fn server(&self) -> ServerConfig {
        remote("web", &format!("http://127.0.0.1:{}/mcp", self.port), &[])
    }
}

const HELLO: &str = r#"{"message": "hello"}"#;

#[tokio::test]
async fn the_reference_server_over_http_is_listed_called_and_left_in_good_order() {
    let mut everything = Everything::new().await;
    everything.start().await;
    let tools = Tools::start([everything.server()]);
    let outcome = tools.call("web__echo", HELLO).await;
    assert_eq!(outcome.text, "Echo: hello", "{:?}", tools.health());
    // It says that its tools changed on the stream that stays open.
    eventually("the late tools", async || {
        (tools.offer().await.specs().len() >= 13).then_some(())
    })
    .await;
    let begun = Instant::now();
    let long = r#"{"duration": 1, "steps": 2}"#;
    let long = || tools.call("web__trigger-long-running-operation", long);
    let (one, two, three) = tokio::join!(long(), long(), long());
    for outcome in [one, two, three] {
        assert_eq!(outcome.status, OutcomeStatus::Succeeded, "{}", outcome.text);
    }
    assert!(
        begun.elapsed() < Duration::from_millis(2900),
        "one after the other: {:?}",
        begun.elapsed()
    );
    tools.end().await;
    let lines = everything.said.read();
    let ended = lines
        .iter()
        .filter(|line| line.contains("session termination request"));
    assert_eq!(ended.count(), 1, "{lines:?}");
}

#[tokio::test]
async fn the_reference_server_is_restarted_between_two_calls() {
    let mut everything = Everything::new().await;
    everything.start().await;
    let tools = Tools::start([everything.server()]);
    let offer = tools.offer().await;
    let call = async || tools.call_of(&offer, "web__echo", HELLO).await;
    assert_eq!(call().await.text, "Echo: hello", "{:?}", tools.health());
    for _ in 0..2 {
        everything.stop().await;
        everything.start().await;
        // The job goes on with the tools that it was offered.
        assert_eq!(call().await.text, "Echo: hello", "{:?}", tools.health());
    }
    tools.end().await;
}

#[tokio::test]
async fn a_server_that_is_away_fails_its_calls_at_once_and_is_found_when_it_is_back() {
    let mut everything = Everything::new().await;
    everything.start().await;
    let tools = Tools::start([everything.server(), calc()]);
    let offer = tools.offer().await;
    let call = async || tools.call_of(&offer, "web__echo", HELLO).await;
    assert_eq!(
        call().await.text,
        "Echo: hello",
        "{:?}",
        tools.toolbox.health()
    );
    everything.stop().await;
    eventually("the open breaker", async || {
        let text = call().await.text;
        text.contains("the next try is in").then_some(())
    })
    .await;
    let fastest = |outcomes: Vec<Duration>| outcomes.into_iter().min().expect("a call");
    let mut took = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let outcome = call().await;
        took.push(begun.elapsed());
        assert!(
            outcome.text.contains("is not available"),
            "{}",
            outcome.text
        );
        // Others do not wait for it.
        let sum = tools
            .call_of(&offer, "calc__add", r#"{"a": 20, "b": 22}"#)
            .await;
        assert_eq!(sum.text, "42");
    }
    let took = fastest(took);
    assert!(took < Duration::from_millis(50), "{took:?}");
    everything.start().await;
    let back = Instant::now();
    eventually("the server again", async || {
        let health = tools.toolbox.health();
        let web = health.iter().find(|health| health.name == "web")?;
        (web.state == ServerState::Ready).then_some(())
    })
    .await;
    assert!(
        back.elapsed() < Duration::from_secs(30),
        "{:?}",
        back.elapsed()
    );
    assert_eq!(call().await.text, "Echo: hello");
    tools.end().await;
}
