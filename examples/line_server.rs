//! A small tool server in the line dialect for tests: a line of JSON asks, a line answers.

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

fn main() -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "line server at your service")?;
    for line in std::io::stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line?).unwrap_or_default();
        let answer = match asked.get("type").and_then(Value::as_str) {
            Some("list_tools") => list().to_string(),
            Some("call_tool") => call(&asked),
            Some(_) | None => "error: unknown request".to_owned(),
        };
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}

fn list() -> Value {
    json!({"tools": [
        {"name": "upper", "description": "Says it in capitals"},
        {"name": "pid", "description": "Says the process id"},
        {"name": "late", "description": "Answers after some milliseconds"},
        {"name": "big", "description": "Says a lot"},
        {"name": "die", "description": "Ends the server during the call"},
    ]})
}

fn call(asked: &Value) -> String {
    let argument = |name| asked.pointer("/args").and_then(|args| args.get(name));
    let number = |name| argument(name).and_then(Value::as_u64).unwrap_or(0);
    match asked.get("name").and_then(Value::as_str) {
        Some("upper") => argument("text")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_uppercase(),
        Some("pid") => std::process::id().to_string(),
        Some("late") => {
            pause(number("ms"));
            "late".to_owned()
        }
        Some("big") => "x".repeat(usize::try_from(number("bytes")).unwrap_or(0)),
        Some("die") => die(),
        Some(_) | None => "error: unknown tool".to_owned(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "no runtime here; to be late is this tool's purpose"
)]
fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

#[expect(
    clippy::disallowed_methods,
    reason = "to end in the middle of a call is this tool's purpose"
)]
fn die() -> String {
    std::process::exit(7)
}
