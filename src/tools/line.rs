//! The line dialect: a line of JSON asks, a line answers. `{"type":"list_tools"}` is answered with
//! `{"tools":[…]}`, `{"type":"call_tool","name":…,"args":{…}}` with one line of text, the result.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::Mutex;

use super::child::{Stdin, Stdout};
use super::error::StartError;
use super::mcp::Pipes;
use super::session::{About, Answer, CallError, Halt, LAST_BYTES, Listed, Request};

/// Lines that a server may say before it lists its tools: banners and the like.
const MAX_NOISE: usize = 100;

/// A process that is talked to line by line, one call at a time.
#[derive(Debug)]
pub(super) struct LineSession {
    talk: Mutex<Talk>,
    open: AtomicBool,
}

#[derive(Debug)]
struct Talk {
    stdin: Stdin,
    stdout: BufReader<Stdout>,
    max_line: usize,
}

/// A line, or its head, and its whole length.
struct Line {
    head: Vec<u8>,
    whole: usize,
}

impl LineSession {
    /// There is no handshake.
    pub(super) fn new(pipes: Pipes) -> Self {
        Self {
            talk: Mutex::new(Talk {
                stdin: pipes.stdin,
                stdout: BufReader::new(pipes.stdout),
                max_line: pipes.max_line,
            }),
            open: AtomicBool::new(true),
        }
    }

    /// All tools.
    pub(super) async fn list(&self) -> Result<Listed, StartError> {
        let gone = || StartError::Protocol("it ended before it listed its tools".to_owned());
        let mut talk = self.talk.lock().await;
        talk.write(&json!({"type": "list_tools"}))
            .await
            .map_err(|_error| gone())?;
        for _ in 0..MAX_NOISE {
            let line = talk.read().await.ok_or_else(gone)?;
            let value = serde_json::from_slice::<Value>(&line.head).unwrap_or_default();
            if let Some(Value::Array(tools)) = value.get("tools") {
                return Ok(Listed {
                    tools: tools.clone(),
                    cut: false,
                    fresh_for: None,
                    about: About {
                        protocol: "line".to_owned(),
                        server: None,
                    },
                });
            }
        }
        Err(StartError::Protocol(
            "its list of tools has no `tools`".to_owned(),
        ))
    }

    /// Makes one call.
    pub(super) async fn call(&self, request: Request, halt: Halt<'_>) -> Result<Answer, CallError> {
        let mut talk = self.talk.lock().await;
        // Whatever ends this early, a late line would answer the wrong call.
        if !self.open.swap(false, Ordering::Relaxed) {
            return Err(CallError::NotSent);
        }
        // There is no progress in this dialect.
        let patience = request.patience.first();
        let asked = json!({"type": "call_tool", "name": request.tool, "args": request.arguments});
        let answer = tokio::time::timeout(patience, async {
            talk.write(&asked).await.ok()?;
            talk.read().await
        });
        let mut answer = Box::pin(answer);
        let line = tokio::select! {
            biased;
            line = &mut answer => line,
            () = halt.cancelled.cancelled() => return Err(CallError::Abandoned),
            () = halt.ended.cancelled() => {
                let last = tokio::time::timeout(LAST_BYTES, &mut answer).await;
                last.map_err(|_elapsed| CallError::Gone)?
            }
        };
        drop(answer);
        let line = line
            .map_err(|_elapsed| CallError::TimedOut(patience))?
            .ok_or(CallError::Gone)?;
        self.open.store(true, Ordering::Relaxed);
        let complete = line.head.len() == line.whole;
        let text = String::from_utf8_lossy(&line.head).into_owned();
        // Bytes that are no text were replaced, which changes the size.
        let whole = if complete { text.len() } else { line.whole };
        Ok(Answer::Text { text, whole })
    }

    /// Whether the process can still be talked to.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }
}

impl Talk {
    async fn write(&mut self, value: &Value) -> std::io::Result<()> {
        self.stdin
            .write_all(format!("{value}\n").as_bytes())
            .await?;
        self.stdin.flush().await
    }

    /// The next line, without its end; none at the end of the stream.
    async fn read(&mut self) -> Option<Line> {
        let mut line = Line {
            head: Vec::new(),
            whole: 0,
        };
        loop {
            let chunk = self.stdout.fill_buf().await.ok()?;
            if chunk.is_empty() {
                return None;
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let content = end.unwrap_or(chunk.len());
            let room = self.max_line.saturating_sub(line.head.len());
            line.head
                .extend_from_slice(chunk.get(..content.min(room)).unwrap_or_default());
            line.whole = line.whole.saturating_add(content);
            self.stdout.consume(end.map_or(content, |end| end + 1));
            if end.is_some() {
                if line.head.last() == Some(&b'\r') && line.head.len() == line.whole {
                    line.head.pop();
                    line.whole -= 1;
                }
                return Some(line);
            }
        }
    }
}
