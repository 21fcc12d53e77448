//! A tool server over stdio that misbehaves on demand, written without any library so that it can.
//!
//! Its one argument is the fault. Faults of calls happen in the tool `bad`, those of the handshake and
//! of the list at the start; the tool `good` always answers with the server's process id. `FAULT_LOG`
//! is a file that gets the process ids of what a fault starts.

use std::fs::OpenOptions;
use std::io::{BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};

type Done = Result<(), Box<dyn std::error::Error>>;

fn main() -> Done {
    let fault = std::env::args().nth(1).unwrap_or_default();
    if fault == "floods_stderr" {
        let line = format!("{}\n", "a long complaint ".repeat(60));
        std::io::stderr().write_all(line.repeat(2000).as_bytes())?;
    }
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let Some(id) = request.get("id") else {
            continue;
        };
        match request.get("method").and_then(Value::as_str) {
            Some("initialize") => answer(id, &hello(&fault))?,
            Some("tools/list") => list(&fault, id, &request)?,
            Some("tools/call") => call(&fault, id, &request)?,
            Some(_) => say(
                &json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no such method"}}),
            )?,
            // The answer to what it asked itself.
            None => answer_asked(&request)?,
        }
    }
    Ok(())
}

fn hello(fault: &str) -> Value {
    let version = match fault {
        "too_old" => "2024-10-07",
        "too_new" => "2099-01-01",
        _ => "2025-11-25",
    };
    json!({"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "fault", "version": "1"}})
}

fn list(fault: &str, id: &Value, request: &Value) -> Done {
    let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}});
    let mut tools = vec![tool("good"), tool("bad")];
    let page = request.pointer("/params/cursor").and_then(Value::as_str);
    let number: u64 = page.and_then(|page| page.parse().ok()).unwrap_or(0);
    let next = match fault {
        "same_page_for_ever" => json!("0"),
        "new_page_for_ever" => json!((number + 1).to_string()),
        _ => Value::Null,
    };
    match fault {
        "mute_list" => return sleep(),
        "no_list" => return answer(id, &json!({"nothing": []})),
        "bad_tools" => tools.extend([
            json!({"name": "a", "inputSchema": null}),
            json!({"name": "b", "inputSchema": 7}),
            json!({"inputSchema": {"type": "object"}}),
            json!({"name": "c", "inputSchema": {"type": "object"}, "outputSchema": true, "annotations": []}),
            json!("d"),
        ]),
        "new_page_for_ever" if number > 0 => tools = vec![tool(&format!("page-{number}"))],
        _ => {}
    }
    answer(id, &json!({"tools": tools, "nextCursor": next}))?;
    if fault == "stops_reading" {
        return sleep();
    }
    Ok(())
}

fn call(fault: &str, id: &Value, request: &Value) -> Done {
    let name = request.pointer("/params/name").and_then(Value::as_str);
    if name == Some("good") {
        return answer(id, &said(&std::process::id().to_string()));
    }
    match fault {
        "exits" => exit(),
        "closes_stdout" => {
            // The same process goes on, without its pipe.
            let error = Command::new("sleep")
                .arg("600")
                .stdout(Stdio::null())
                .exec();
            Err(error.into())
        }
        "leaves_orphan" => {
            note(Command::new("sleep").arg("600").spawn()?.id())?;
            exit()
        }
        "half_line_and_exits" => {
            write("{\"jsonrpc\":\"2.0\",\"id\":")?;
            exit()
        }
        "half_line_and_hangs" => {
            write("{\"jsonrpc\":\"2.0\",\"id\":")?;
            sleep()
        }
        "stopped" => Ok(kill_process(getpid(), Signal::STOP)?),
        "hangs" => sleep(),
        "asks_for_sampling" => {
            let params = json!({"messages": [], "maxTokens": 1});
            say(
                &json!({"jsonrpc": "2.0", "id": format!("ask-{id}"), "method": "sampling/createMessage", "params": params}),
            )
        }
        _ => odd(fault, id),
    }
}

/// Answers that are answers, in some way.
fn odd(fault: &str, id: &Value) -> Done {
    match fault {
        "noise" => {
            write(
                "starting up\n\u{1b}[31mcolours\u{1b}[0m\n\n{\"level\":\"info\",\"id\":1}\nnull\n{broken\n",
            )?;
            answer(id, &said("after the noise"))
        }
        "unknown_content" => answer(
            id,
            &json!({"content": [{"type": "hologram"}, {"type": "text", "text": "seen"}]}),
        ),
        "content_is_text" => answer(id, &json!({"content": "bare"})),
        "empty_result" => answer(id, &json!({})),
        "no_result" => say(&json!({"jsonrpc": "2.0", "id": id})),
        "long_line" => answer(id, &said(&"x".repeat(6 * 1024 * 1024))),
        "line_without_end" => loop {
            write(&"x".repeat(64 * 1024))?;
        },
        "half_a_surrogate" => write(&format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[{{\"type\":\"text\",\"text\":\"x\\ud83dy\"}}]}}}}\n"
        )),
        "not_a_number" => write(&format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"structuredContent\":{{\"mean\":NaN}}}}}}\n"
        )),
        "broken_json" => write(&format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\"\n"
        )),
        "float_code" => say(
            &json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32000.0, "message": "it is full"}}),
        ),
        "id_is_text" => {
            say(&json!({"jsonrpc": "2.0", "id": id.to_string(), "result": said("by text")}))
        }
        "error_without_id" => say(
            &json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "cannot read this"}}),
        ),
        "answers_twice" => {
            answer(id, &said("once"))?;
            answer(id, &said("twice"))
        }
        "batch" => say(&json!([{"jsonrpc": "2.0", "id": id, "result": said("in a batch")}])),
        other => answer(id, &said(other)),
    }
}

/// Ends the call in which it asked for something, with the code it was answered.
fn answer_asked(reply: &Value) -> Done {
    let id = reply.get("id").and_then(Value::as_str).unwrap_or_default();
    let id: u64 = id.trim_start_matches("ask-").parse()?;
    let code = reply.pointer("/error/code").cloned().unwrap_or_default();
    answer(&json!(id), &said(&format!("refused with {code}")))
}

fn said(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

fn answer(id: &Value, result: &Value) -> Done {
    say(&json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn say(message: &Value) -> Done {
    write(&format!("{message}\n"))
}

fn write(text: &str) -> Done {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

#[expect(
    clippy::disallowed_methods,
    reason = "to end in the middle of a call is a fault"
)]
fn exit() -> Done {
    std::process::exit(7)
}

#[expect(clippy::disallowed_methods, reason = "to do nothing at all is a fault")]
fn sleep() -> Done {
    std::thread::sleep(Duration::from_mins(10));
    Err("nobody ended it".into())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program of its own, with settings of its own"
)]
fn note(pid: u32) -> Done {
    if let Ok(path) = std::env::var("FAULT_LOG") {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{pid}")?;
    }
    Ok(())
}
