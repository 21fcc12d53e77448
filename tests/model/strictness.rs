//! The scripted server refuses what `OpenAI` refuses; and what we send it never is.

use super::*;

/// Why the server refuses `body`.
async fn refused_at(path: &str, body: &Value) -> String {
    let stub = StubModel::start(Script::arithmetic());
    // No model stands between, which would mend it.
    let url = format!("{}{path}", stub.base_url());
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        drop(rustls::crypto::ring::default_provider().install_default());
    }
    let sent = reqwest::Client::new().post(url).body(body.to_string());
    let reply = sent.send().await.unwrap();
    let status = reply.status();
    let said: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
    assert_eq!(status, 400, "{said}");
    assert_eq!(stub.refusals().len(), 1);
    said["error"]["message"].as_str().unwrap().to_owned()
}

async fn refused(messages: &[Value]) -> String {
    let body = json!({"model": "gpt-4o-mini", "messages": messages});
    refused_at("/chat/completions", &body).await
}

fn hi() -> Value {
    json!({"role": "user", "content": "Hi"})
}

fn asking(ids: &[&str]) -> Value {
    let call = |id: &&str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let calls: Vec<_> = ids.iter().map(call).collect();
    json!({"role": "assistant", "content": null, "tool_calls": calls})
}

fn answering(id: &str, content: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": content})
}

#[tokio::test]
async fn the_stub_refuses_an_answer_that_nobody_asked_for() {
    let answer = || answering("a", "x");
    for messages in [
        vec![hi(), answer()],
        vec![hi(), asking(&["a"]), answer(), answer()],
        vec![asking(&["a"]), answer(), hi(), answer()],
    ] {
        let said = refused(&messages).await;
        assert!(
            said.contains("must be a response to a preceeding message"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn the_stub_refuses_a_call_that_is_not_answered() {
    let half = [hi(), asking(&["a", "b"]), answering("b", "x"), hi()];
    let said = refused(&half).await;
    assert!(said.contains("did not have response messages: a"), "{said}");
    let said = refused(&[hi(), asking(&["a"])]).await;
    assert!(said.contains("must be followed by tool messages"), "{said}");
}

#[tokio::test]
async fn the_stub_refuses_an_empty_result() {
    let said = refused(&[hi(), asking(&["a"]), answering("a", "")]).await;
    assert!(said.contains("Invalid value for 'content'"), "{said}");
}

#[tokio::test]
async fn the_stub_refuses_tools_that_openai_would_not_take() {
    let tool = |name: &str, schema: &str| ToolSpec {
        name: name.to_owned(),
        description: String::new(),
        schema: raw(schema),
    };
    let object = r#"{"type":"object"}"#;
    let many: Vec<_> = (0..129)
        .map(|number| tool(&format!("t{number}"), object))
        .collect();
    for (tools, expected) in [
        (vec![tool("a b", object)], "does not match pattern"),
        (vec![tool(&"n".repeat(65), object)], "string too long"),
        (vec![tool("a", object), tool("a", object)], "must be unique"),
        (
            vec![tool("a", r#"{"type":"array"}"#)],
            "Invalid schema for function 'a'",
        ),
        (vec![tool("a", "{}")], "Invalid schema for function 'a'"),
        (many, "array too long"),
    ] {
        let prompt = Prompt {
            tools: tools.into(),
            ..hello()
        };
        for api in [Api::Chat, Api::Responses] {
            let stub = StubModel::start(Script::arithmetic());
            let error = speaking(&stub, api).complete(&prompt, soon()).await;
            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{api:?}: {error}");
        }
    }
}

#[tokio::test]
async fn the_stub_refuses_input_that_openai_would_not_take() {
    let call = |id: &str| json!({"type": "function_call", "id": format!("fc_{id}"), "call_id": id, "name": "f", "arguments": "{}"});
    let output = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "x"});
    let thought = |id: &str, sealed: Value| json!({"type": "reasoning", "id": format!("rs_{id}"), "summary": [], "encrypted_content": sealed});
    let sealed = |id: &str| thought(id, json!(format!("sealed rs_{id}")));
    for (input, expected) in [
        (
            vec![hi(), output("a")],
            "No tool call found for function call output with call_id a",
        ),
        (
            vec![hi(), call("a")],
            "No tool output found for function call a",
        ),
        (
            vec![hi(), call("a"), output("a"), output("a")],
            "No tool call found",
        ),
        (
            vec![hi(), thought("a", json!(null)), call("a"), output("a")],
            "Item with id 'rs_a' not found",
        ),
        (
            vec![hi(), thought("a", json!("other")), call("a"), output("a")],
            "could not be verified",
        ),
        (
            vec![hi(), sealed("a")],
            "without its required following item",
        ),
        (
            vec![
                hi(),
                sealed("a"),
                call("a"),
                output("a"),
                sealed("a"),
                call("b"),
                output("b"),
            ],
            "Duplicate item found with id rs_a",
        ),
        (
            vec![
                hi(),
                json!({"type": "function_call", "id": "fc_thought_a", "call_id": "a", "name": "f", "arguments": "{}"}),
                output("a"),
            ],
            "without its required 'reasoning' item: 'rs_thought_a'",
        ),
        (
            vec![json!({"role": "user", "content": [{"type": "text", "text": "Hi"}]})],
            "Invalid value: 'text'",
        ),
        (
            vec![
                json!({"role": "user", "content": [{"type": "input_image", "image_url": {"url": "x"}}]}),
            ],
            "expected an image URL",
        ),
        (
            vec![
                json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": "{"}),
                output("a"),
            ],
            "expected a JSON object",
        ),
        (
            vec![json!({"type": "function_call_output", "call_id": "a", "output": 1})],
            "output",
        ),
        (vec![], "input"),
    ] {
        let body = json!({"model": "gpt-5.5", "input": input, "store": false});
        let said = refused_at("/responses", &body).await;
        assert!(said.contains(expected), "{expected}: {said}");
    }
    for (field, value, expected) in [
        ("seed", json!(1), "seed"),
        ("max_output_tokens", json!(15), "Expected a value >= 16"),
        (
            "tool_choice",
            json!("required"),
            "only allowed when 'tools' are specified",
        ),
        (
            "tools",
            json!([{"type": "function", "function": {"name": "f"}}]),
            "function",
        ),
        (
            "include",
            json!(["reasoning.encrypted_content"]),
            "Encrypted content is not supported with this model",
        ),
    ] {
        let mut body = json!({"model": "gpt-4o", "input": [hi()]});
        body[field] = value;
        let said = refused_at("/responses", &body).await;
        assert!(said.contains(expected), "{field}: {said}");
    }
}
