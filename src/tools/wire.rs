//! Messages over the pipes of a process, a line each. Unlike the protocol library's own, this loses
//! no line that answers a call: what is too long or cannot be read fails that call at once.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::RoleClient;
use rmcp::model::{JsonRpcMessage, RequestId};
use rmcp::service::TxJsonRpcMessage;
use rmcp::transport::Transport;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};

use super::mend::{Message, Pending, addressed, failed, mend};

/// A line that is too long is read to its end all the same, if that comes within so many times the
/// most that a line may have.
const PATIENCE: usize = 4;
/// What is kept of such a line at either end: one of them says which call it answers.
const EDGE: usize = 256;

/// The pipes of a process.
pub(super) struct Wire<R, W> {
    reader: BufReader<R>,
    line: Line,
    /// Messages of a line with more than one.
    read: VecDeque<Message>,
    writer: Arc<tokio::sync::Mutex<Option<W>>>,
    pending: Arc<Mutex<Pending>>,
    overrun: Arc<AtomicBool>,
}

/// A line as far as it has been read.
#[derive(Debug)]
struct Line {
    most: usize,
    bytes: Vec<u8>,
    /// Its last bytes, if it is too long to be kept.
    tail: VecDeque<u8>,
    whole: usize,
}

impl<R: AsyncRead, W> Wire<R, W> {
    /// The wire, and a flag that tells whether a line had no end.
    pub(super) fn new(reader: R, writer: W, most: usize) -> (Self, Arc<AtomicBool>) {
        let overrun = Arc::new(AtomicBool::new(false));
        let wire = Self {
            reader: BufReader::new(reader),
            line: Line {
                most,
                bytes: Vec::new(),
                tail: VecDeque::new(),
                whole: 0,
            },
            read: VecDeque::new(),
            writer: Arc::new(tokio::sync::Mutex::new(Some(writer))),
            pending: Arc::default(),
            overrun: Arc::clone(&overrun),
        };
        (wire, overrun)
    }
}

impl<R, W> Transport<RoleClient> for Wire<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        if let JsonRpcMessage::Request(request) = &item {
            lock(&self.pending).insert(request.id.clone());
        }
        let writer = Arc::clone(&self.writer);
        async move {
            let mut line = serde_json::to_vec(&item)?;
            line.push(b'\n');
            let mut writer = writer.lock().await;
            let writer = writer.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            writer.write_all(&line).await?;
            writer.flush().await
        }
    }

    /// Keeps what it has read when it is dropped before it has a whole line.
    async fn receive(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.read.pop_front() {
                return Some(message);
            }
            let Ok(chunk) = self.reader.fill_buf().await else {
                return None;
            };
            if chunk.is_empty() {
                // Some end without ending their last line; half of one is nothing.
                return serde_json::from_slice(&std::mem::take(&mut self.line.bytes)).ok();
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let content = chunk.get(..end.unwrap_or(chunk.len()));
            self.line.push(content.unwrap_or_default());
            let taken = end.map_or(chunk.len(), |end| end + 1);
            self.reader.consume(taken);
            if end.is_some() {
                self.take_line();
            } else if self.line.whole > self.line.most.saturating_mul(PATIENCE) {
                self.overrun.store(true, Ordering::Relaxed);
                return None;
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        // Whoever writes has the pipe, and ends with the process.
        if let Ok(mut writer) = self.writer.try_lock() {
            writer.take();
        }
        Ok(())
    }
}

impl<R, W> Wire<R, W> {
    fn take_line(&mut self) {
        let mut pending = lock(&self.pending);
        if self.line.is_whole() {
            let line = self.line.bytes.as_slice();
            match serde_json::from_slice::<Message>(line) {
                Ok(message) => self.read.push_back(addressed(message, &pending)),
                Err(_) if line.is_empty() => {}
                Err(error) => {
                    let messages = mend(line, &pending);
                    tracing::debug!(%error, mended = messages.len(), "a line is not as the protocol has it");
                    self.read.extend(messages);
                }
            }
        } else {
            let why = format!(
                "The tool answered with {} bytes; more than {} bytes cannot be read. Ask for less.",
                self.line.whole, self.line.most
            );
            tracing::warn!(bytes = self.line.whole, "a line is too long to be read");
            self.read.extend(failed(&self.line.edges(), &why, &pending));
        }
        for message in &self.read {
            if let Some(id) = answered(message) {
                pending.remove(&id);
            }
        }
        drop(pending);
        self.line.clear();
    }
}

/// The request that is answered, also where its number came back as a text.
fn answered(message: &Message) -> Option<RequestId> {
    let id = match message {
        JsonRpcMessage::Response(response) => &response.id,
        JsonRpcMessage::Error(error) => error.id.as_ref()?,
        JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => return None,
    };
    match id {
        RequestId::String(text) => text.parse().ok().map(RequestId::Number),
        RequestId::Number(_) => Some(id.clone()),
    }
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        self.whole = self.whole.saturating_add(bytes.len());
        if self.is_whole() {
            self.bytes.extend_from_slice(bytes);
            return;
        }
        let room = EDGE.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes
            .extend_from_slice(bytes.get(..room).unwrap_or_default());
        self.bytes.truncate(EDGE);
        let last = bytes.len().saturating_sub(EDGE);
        self.tail.extend(bytes.get(last..).unwrap_or_default());
        let surplus = self.tail.len().saturating_sub(EDGE);
        self.tail.drain(..surplus);
    }

    /// Whether all of it is there.
    fn is_whole(&self) -> bool {
        self.whole <= self.most
    }

    /// Its beginning and its end.
    fn edges(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        let (head, tail) = (
            String::from_utf8_lossy(&self.bytes),
            String::from_utf8_lossy(&tail),
        );
        format!("{head} {tail}")
    }

    fn clear(&mut self) {
        self.bytes.clear();
        // A long line is no reason to keep as much for every short one.
        self.bytes.shrink_to(64 * 1024);
        self.tail.clear();
        self.whole = 0;
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ClientRequest, PingRequest};
    use serde_json::{Value, json};

    use super::*;

    /// What `said` comes to, with the requests 1 and 2 pending.
    async fn heard(said: &[u8], most: usize) -> (Vec<Value>, bool) {
        let (mut wire, overrun) = Wire::new(said, tokio::io::sink(), most);
        for id in [1, 2] {
            let ping = ClientRequest::PingRequest(PingRequest::default());
            let request = JsonRpcMessage::request(ping, RequestId::Number(id));
            wire.send(request).await.unwrap();
        }
        let mut heard = Vec::new();
        while let Some(message) = wire.receive().await {
            heard.push(serde_json::to_value(message).unwrap());
        }
        (heard, overrun.load(Ordering::Relaxed))
    }

    fn result(id: u64, text: &str) -> String {
        format!(
            "{}\n",
            json!({"jsonrpc": "2.0", "result": {"x": text}, "id": id})
        )
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_fails_its_call_and_no_other() {
        let said = format!("{}{}", result(2, &"x".repeat(1000)), result(1, "y"));
        let (heard, overrun) = heard(said.as_bytes(), 500).await;
        assert_eq!(heard[0]["id"], 2);
        let message = heard[0]["error"]["message"].as_str().unwrap();
        assert!(message.contains("more than 500 bytes"), "{message}");
        assert_eq!(heard[1]["result"]["x"], "y");
        assert!(!overrun);
    }

    #[tokio::test]
    async fn a_line_without_an_end_ends_it_all() {
        let (heard, overrun) = heard("x".repeat(100_000).as_bytes(), 500).await;
        assert!(heard.is_empty() && overrun);
    }

    #[tokio::test]
    async fn noise_is_left_out_and_the_last_line_needs_no_end() {
        let said = format!("starting\r\n\n{}{}", result(1, "a"), result(2, "b"));
        let (heard, _) = heard(said.trim_end().as_bytes(), 500).await;
        let texts: Vec<_> = heard
            .iter()
            .map(|message| &message["result"]["x"])
            .collect();
        assert_eq!(texts, ["a", "b"]);
    }

    #[tokio::test]
    async fn what_was_read_of_a_line_is_kept_when_nobody_waits_for_the_rest() {
        let (theirs, ours) = tokio::io::duplex(64);
        let (mut wire, _) = Wire::new(ours, tokio::io::sink(), 500);
        let line = result(1, "a");
        let (first, second) = line.split_at(10);
        let mut theirs = theirs;
        theirs.write_all(first.as_bytes()).await.unwrap();
        let waited = tokio::time::timeout(std::time::Duration::from_millis(20), wire.receive());
        assert!(waited.await.is_err());
        theirs.write_all(second.as_bytes()).await.unwrap();
        assert!(wire.receive().await.is_some());
    }
}
