use serde_json::{Value, json};

/// A job with the two fields that it needs.
pub(crate) fn job() -> Value {
    json!({"user_id": "u", "messages": [{"role": "user", "content": "x"}]})
}

/// The job with these fields added or replaced.
pub(crate) fn with(fields: Value) -> Value {
    let mut job = job();
    let Value::Object(fields) = fields else {
        panic!("no fields: {fields}")
    };
    for (field, value) in fields {
        job[field] = value;
    }
    job
}

/// A job that says this one message.
pub(crate) fn saying(message: Value) -> Value {
    let mut job = job();
    job["messages"] = Value::Array(vec![message]);
    job
}

/// A job with every field that this version knows.
pub(crate) fn full() -> Value {
    json!({
        "version": 1, "user_id": "user-42",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "t"},
                {"type": "image_url", "image_url": {"url": "https://example.org/i.png"}}]},
        ],
        "model": "gpt-4o-mini", "max_iterations": 3,
        "tools": {"servers": ["calc"], "allow": ["calc__*"], "deny": [], "choice": "auto"},
        "options": {"temperature": 0.2, "top_p": 1, "max_output_tokens": 800, "seed": 7, "stop": ["END"],
            "reasoning_effort": "low", "parallel_tool_calls": true, "response_format": {"type": "json_object"}},
        "budget": {"total_tokens": 20000, "tool_calls": 50},
        "stream": false, "not_before": "2020-01-01T00:00:00Z", "deadline": "2030-01-01T00:10:00Z", "on_busy": "enqueue", "metadata": {"ticket": 991},
    })
}

/// Where a bad job is wrong, and the fields that make it so.
const BAD_FIELDS: &str = r#"
/modle                        {"modle": "m"}
/a~1b~0c                      {"a/b~c": 1}
/version                      {"version": "1"}
/version                      {"version": 1.0}
/job_id                       {"job_id": "seven"}
/job_id                       {"job_id": 7}
/conversation_id              {"conversation_id": "018f3c1e7d2a-7000-8000-000000000001"}
/user_id                      {"user_id": null}
/user_id                      {"user_id": ""}
/user_id                      {"user_id": "two words"}
/user_id                      {"user_id": "u\n"}
/messages                     {"messages": null}
/messages                     {"messages": []}
/messages                     {"messages": {}}
/messages/0                   {"messages": ["hi"]}
/model                        {"model": ""}
/model                        {"model": " "}
/max_iterations               {"max_iterations": 0}
/max_iterations               {"max_iterations": 101}
/max_iterations               {"max_iterations": 3.5}
/max_iterations               {"max_iterations": "3"}
/tools                        {"tools": []}
/tools/server                 {"tools": {"server": []}}
/tools/servers/1              {"tools": {"servers": ["calc", 7]}}
/tools/allow                  {"tools": {"allow": null}}
/tools/choice                 {"tools": {"choice": "maybe"}}
/tools/choice                 {"tools": {"choice": null}}
/options/temprature           {"options": {"temprature": 1}}
/options/temperature          {"options": {"temperature": 2.1}}
/options/temperature          {"options": {"temperature": "hot"}}
/options/top_p                {"options": {"top_p": -0.1}}
/options/max_output_tokens    {"options": {"max_output_tokens": 0}}
/options/max_output_tokens    {"options": {"max_output_tokens": 4294967296}}
/options/seed                 {"options": {"seed": 9223372036854775808}}
/options/stop                 {"options": {"stop": "END"}}
/options/stop                 {"options": {"stop": []}}
/options/stop                 {"options": {"stop": ["a", ""]}}
/options/stop                 {"options": {"stop": ["a", "b", "c", "d", "e"]}}
/options/stop/0               {"options": {"stop": [true]}}
/options/reasoning_effort     {"options": {"reasoning_effort": "huge"}}
/options/parallel_tool_calls  {"options": {"parallel_tool_calls": "yes"}}
/options/response_format      {"options": {"response_format": "json"}}
/options/response_format/type {"options": {"response_format": {}}}
/options/response_format/type {"options": {"response_format": {"type": 7}}}
/options/response_format/json_schema {"options": {"response_format": {"type": "json_schema", "name": "x", "schema": {}}}}
/options/response_format/json_schema/name {"options": {"response_format": {"type": "json_schema", "json_schema": {"name": 7, "schema": {}}}}}
/options/response_format/json_schema/name {"options": {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}}}
/options/response_format/json_schema/schema {"options": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": true}}}}
/budget                       {"budget": [1, 2]}
/budget/tokens                {"budget": {"tokens": 1}}
/budget/total_tokens          {"budget": {"total_tokens": 0}}
/budget/tool_calls            {"budget": {"tool_calls": -1}}
/stream                       {"stream": "false"}
/stream                       {"stream": 1}
/not_before                   {"not_before": "soon"}
/not_before                   {"not_before": "9999-12-31T23:59:59-01:00"}
/deadline                     {"deadline": "tomorrow"}
/deadline                     {"deadline": "infinity"}
/deadline                     {"deadline": 1767225600}
/deadline                     {"deadline": "2026-01-01T00:00:00"}
/deadline                     {"deadline": "2026-02-30T00:00:00Z"}
/deadline                     {"deadline": "2026-01-01T24:00:00Z"}
/deadline                     {"deadline": "-9999-01-01T00:00:00Z"}
/deadline                     {"deadline": "0000-01-01T00:00:00Z"}
/deadline                     {"deadline": "9999-12-31T23:59:59-01:00"}
/on_busy                      {"on_busy": "wait"}
/on_busy                      {"on_busy": []}
/metadata                     {"metadata": []}
"#;

/// Where a bad message is wrong, and the message.
const BAD_MESSAGES: &str = r#"
/role                      {"content": "x"}
/role                      {"role": "tool", "content": "x"}
/role                      {"role": {"user": null}, "content": "x"}
/content                   {"role": "user"}
/content                   {"role": "user", "content": null}
/content                   {"role": "user", "content": 7}
/content                   {"role": "user", "content": []}
/name                      {"role": "user", "content": "x", "name": "n"}
/content/0                 {"role": "user", "content": ["x"]}
/content/0/type            {"role": "user", "content": [{"text": "x"}]}
/content/0/type            {"role": "user", "content": [{"type": "video", "text": "x"}]}
/content/0/text            {"role": "user", "content": [{"type": "text"}]}
/content/0/text            {"role": "user", "content": [{"type": "text", "text": null}]}
/content/0/text            {"role": "user", "content": [{"type": "text", "text": 7}]}
/content/0/image_url       {"role": "user", "content": [{"type": "text", "text": "x", "image_url": {"url": "u"}}]}
/content/0/text            {"role": "user", "content": [{"type": "image_url", "text": "x", "image_url": {"url": "u"}}]}
/content/0/image_url       {"role": "user", "content": [{"type": "image_url"}]}
/content/0/image_url       {"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}
/content/0/image_url/url   {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}
/content/0/image_url/url   {"role": "user", "content": [{"type": "image_url", "image_url": {"url": ""}}]}
/content/0/image_url/alt   {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u", "alt": null}}]}
/content/0/image_url/url   {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}
/content/0/image_url/url   {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https:///x"}}]}
/content/0/image_url/url   {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x y"}}]}
/content/0/image_url/url   {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,AAAA"}}]}
/content/0/image_url/url   {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAA"}}]}
/content/0/image_url/url   {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,===="}}]}
/content/0/type            {"role": "system", "content": [{"type": "image_url", "image_url": {"url": "https://u"}}]}
/content/1/type            {"role": "assistant", "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "https://u"}}]}
/content/1/type            {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "Text", "text": "x"}]}
"#;

/// Bad jobs, and the pointer to what is wrong.
pub(crate) fn bad_jobs() -> Vec<(String, Value)> {
    let mut bad = vec![
        ("the job".to_owned(), json!("a job")),
        ("the job".to_owned(), json!([1, null, null, "u"])),
        ("the job".to_owned(), json!(null)),
        ("/messages".to_owned(), json!({"user_id": "u"})),
        (
            "/user_id".to_owned(),
            json!({"messages": job()["messages"]}),
        ),
    ];
    let nested = (0..200).fold(json!(1), |inner, _| json!([inner]));
    for (pointer, fields) in [
        ("/user_id", json!({"user_id": "u".repeat(256)})),
        (
            "/messages",
            json!({"messages": vec![&job()["messages"][0]; 2_001]}),
        ),
        ("/model", json!({"model": "m".repeat(256)})),
        (
            "/tools/servers",
            json!({"tools": {"servers": vec!["s"; 2_001]}}),
        ),
        ("/tools/allow", json!({"tools": {"allow": vec!["*"; 129]}})),
        (
            "/tools/deny/1",
            json!({"tools": {"deny": ["*", "?".repeat(256)]}}),
        ),
        (
            "/options/response_format",
            json!({"options": {"response_format": {"deep": nested}}}),
        ),
        ("/metadata", json!({"metadata": {"deep": nested}})),
        ("/metadata", json!({"metadata": {"a": "x".repeat(16_377)}})),
        ("/metadata", json!({"metadata": {"␛": "␛".repeat(2_340)}})),
    ] {
        bad.push((pointer.to_owned(), with(fields)));
    }
    for (pointer, fields) in table(BAD_FIELDS) {
        bad.push((pointer.to_owned(), with(fields)));
    }
    for (pointer, message) in table(BAD_MESSAGES) {
        bad.push((format!("/messages/0{pointer}"), saying(message)));
    }
    bad
}

fn table(lines: &'static str) -> impl Iterator<Item = (&'static str, Value)> {
    lines.trim().lines().map(|line| {
        let (pointer, json) = line.split_once(' ').expect("two columns");
        (pointer, serde_json::from_str(json).expect(line))
    })
}

/// Fields of good jobs.
const GOOD_FIELDS: &str = r#"
{}
{"version": null, "job_id": null, "conversation_id": null, "model": null, "max_iterations": null, "tools": null}
{"options": null, "budget": null, "stream": null, "not_before": null, "deadline": null, "on_busy": null, "metadata": null}
{"stream": true}
{"stream": false}
{"tools": {"servers": null}, "budget": {"total_tokens": null, "tool_calls": 0}, "max_iterations": 100}
{"tools": {}, "options": {}, "budget": {"tool_calls": 18446744073709551615}, "metadata": {}}
{"options": {"temperature": 2, "top_p": 0.0, "seed": -9223372036854775808, "stop": null}}
{"options": {"response_format": {"type": "text", "schema": {"minimum": -1.5e300}}}}
{"options": {"response_format": {"type": "json_schema", "json_schema": {"name": "a-B_9", "strict": true, "schema": {"type": "object"}}}}}
{"metadata": {"a": [1, [2, {}], [], {"b": null, "c": "␛ \" \\ \u0001 é"}], "/": {"~": true}}}
{"messages": [{"role": "user", "content": [{"type": "text", "text": "", "image_url": null}]}]}
{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://u"}, "text": null}]}]}
{"deadline": "2030-01-01T00:00:00Z"}
{"deadline": "2030-01-01T00:00:00.123456000+05:30"}
{"deadline": "2024-02-29T23:59:59-08:00", "not_before": "2024-02-29T23:59:59-08:00"}
{"on_busy": "reject", "not_before": "2100-01-01T00:00:00.5Z"}
{"on_busy": "interrupt", "not_before": "0001-01-01T00:00:00Z", "deadline": "9999-12-31T23:59:59Z"}
{"job_id": "018f3c1e-7d2a-7000-8000-00000000000a", "conversation_id": "018f3c1e-7d2a-7000-8000-0000000000aa"}
{"job_id": "018F3C1E-7D2A-7000-8000-00000000000B", "conversation_id": "018F3C1E-7D2A-7000-8000-0000000000AA"}
{"job_id": "018f3c1e7d2a7000800000000000000c", "conversation_id": "018f3c1e7d2a700080000000000000aa"}
{"job_id": "urn:uuid:018f3c1e-7d2a-7000-8000-00000000000d", "conversation_id": "{018f3c1e-7d2a-7000-8000-0000000000aa}"}
"#;

/// Good jobs.
pub(crate) fn good_jobs() -> Vec<Value> {
    let mut good = vec![
        full(),
        with(json!({"user_id": "u".repeat(255)})),
        with(json!({"messages": vec![json!({"role": "assistant", "content": ""}); 2_000]})),
        with(json!({"metadata": {"a": "x".repeat(16_376)}})),
    ];
    for line in GOOD_FIELDS.trim().lines() {
        good.push(with(serde_json::from_str(line).expect(line)));
    }
    good
}
