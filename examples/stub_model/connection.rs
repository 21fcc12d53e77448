//! HTTP/1.1, as much of it as a model server's clients speak: keep-alive and `Content-Length`.

use std::future::pending;
use std::io;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::reply::{Body, Reply};
use super::stream;
use super::{Asked, Shared, responses};

/// The longest request that is taken.
const MAX_REQUEST: usize = 64 << 20;

/// Serves connections until it is dropped, and they with it.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    // A client that went away is no trouble of ours.
    drop(stream.set_nodelay(true));
    let mut buffer = Vec::with_capacity(8 << 10);
    while let Ok(Some(request)) = read(&mut stream, &mut buffer).await {
        let sent = answer(&mut stream, request, &shared).await;
        if !matches!(sent, Ok(true)) {
            return;
        }
    }
}

struct Request {
    head: String,
    body: Vec<u8>,
}

/// The next request; nothing when the client closed the connection.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut searched = 0;
    let head_end = loop {
        if let Some(end) = find_end(buffer, searched) {
            break end;
        }
        searched = buffer.len().saturating_sub(3);
        if buffer.len() > MAX_REQUEST || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head: Vec<u8> = buffer.drain(..head_end).collect();
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = header(&head, "content-length")
        .and_then(|value| value.parse().ok())
        .unwrap_or(0);
    if length > MAX_REQUEST {
        return Ok(None);
    }
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body = buffer.drain(..length).collect();
    Ok(Some(Request { head, body }))
}

/// The end of the head, which is an empty line.
fn find_end(buffer: &[u8], from: usize) -> Option<usize> {
    let tail = buffer.get(from..)?;
    tail.windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .map(|at| from + at + 4)
}

/// The value of the header `name`.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The headers of a head.
pub(super) fn headers(head: &str) -> HeaderMap {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines
        .filter_map(|(name, value)| {
            let name = HeaderName::try_from(name).ok()?;
            Some((name, HeaderValue::try_from(value.trim()).ok()?))
        })
        .collect()
}

/// Answers one request; false when the connection is not to be used again.
async fn answer(stream: &mut TcpStream, request: Request, shared: &Shared) -> io::Result<bool> {
    let line = request.head.lines().next().unwrap_or_default();
    let mut asked = Asked::default();
    let to = endpoint(line);
    let locked_out = shared.lock_out(&request.head, to.1 == Some("/models"));
    let reply = match to {
        (_, Some(_)) if locked_out.is_some() => locked_out.unwrap_or_else(models),
        ("POST", Some("/chat/completions")) => {
            let (reply, of_chat) = shared.reply(&request.head, &request.body, false);
            asked = of_chat;
            reply
        }
        ("POST", Some("/responses")) => {
            let (reply, of_chat) = shared.reply(&request.head, &request.body, true);
            asked = of_chat;
            reply
        }
        ("GET", Some("/models")) => models(),
        _ => {
            let message = format!("Invalid URL ({line})");
            Reply::error(404, "invalid_request_error", "unknown_url", &message)
        }
    };
    tokio::select! {
        biased;
        due = due(&reply, shared) => due?,
        () = gone(stream) => {
            shared.hung_up.send_modify(|hung_up| *hung_up += 1);
            return Ok(false);
        }
    }
    send(stream, &reply, &asked, request.body.len()).await
}

/// The method and the endpoint that a request's first line names, wherever OpenAI and Azure have it.
fn endpoint(line: &str) -> (&str, Option<&str>) {
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default();
    let path = path(line);
    let below = ["/v1", "/openai/v1", "/openai"]
        .iter()
        .find_map(|base| path.strip_prefix(base));
    let of_deployment = below
        .and_then(|below| below.strip_prefix("/deployments/"))
        .and_then(|below| below.find('/').and_then(|at| below.get(at..)));
    (method, of_deployment.or(below))
}

/// The path that a request's first line names, without what is asked after it.
pub(super) fn path(line: &str) -> &str {
    let target = line.split(' ').nth(1).unwrap_or_default();
    target.split('?').next().unwrap_or_default()
}

/// Waits for the moment at which a reply is to be sent.
async fn due(reply: &Reply, shared: &Shared) -> io::Result<()> {
    if let Some(signal) = &reply.signal {
        signal.acquire().await.map_err(io::Error::other)?.forget();
    }
    let delay = reply.delay.max(shared.latency);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    if matches!(reply.body, Body::Never) {
        pending::<()>().await;
    }
    Ok(())
}

/// Waits until the client closes the connection. One that sends the next request already is there.
async fn gone(stream: &TcpStream) {
    match stream.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        Ok(_) => pending().await,
    }
}

async fn send(
    stream: &mut TcpStream,
    reply: &Reply,
    asked: &Asked,
    request_bytes: usize,
) -> io::Result<bool> {
    match &reply.body {
        Body::Message(message) => {
            let body = if asked.in_responses {
                reply.response(message, &asked.model, request_bytes)
            } else {
                reply.completion(message, &asked.model, request_bytes)
            };
            if let (Some(with_usage), Some(course)) = (asked.with_usage, reply.course) {
                let events = if asked.in_responses {
                    responses::events(&body)
                } else {
                    stream::events(&body, with_usage)
                };
                return stream::send(stream, &events, course).await;
            }
            stream
                .write_all(&response(200, &[], &body, body.len()))
                .await?;
        }
        Body::Raw {
            status,
            headers,
            body,
        } => {
            stream
                .write_all(&response(*status, headers, body, body.len()))
                .await?;
        }
        Body::Truncated(body) => {
            stream
                .write_all(&response(200, &[], body, body.len() * 2))
                .await?;
            return Ok(false);
        }
        // A reply that never comes is never due.
        Body::Close | Body::Never => return Ok(false),
    }
    Ok(true)
}

/// Head and body in one piece, so that they leave in one packet.
fn response(status: u16, headers: &[(String, String)], body: &[u8], length: usize) -> Vec<u8> {
    let mut response = Vec::with_capacity(body.len() + 256);
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nx-request-id: req_stub\r\ncontent-length: {length}\r\n"
    );
    response.extend_from_slice(head.as_bytes());
    for (name, value) in headers {
        response.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    response.extend_from_slice(b"\r\n");
    response.extend_from_slice(body);
    response
}

fn models() -> Reply {
    let model = |id: &str| json!({"id": id, "object": "model", "created": 1_721_172_741, "owned_by": "stub"});
    Reply::json(
        200,
        &json!({"object": "list", "data": [model("gpt-4o-mini"), model("gpt-4o")]}),
    )
}
