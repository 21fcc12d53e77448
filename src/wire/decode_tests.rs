use super::*;

const LIMIT: usize = 1 << 20;

fn refusal(body: &str) -> Failure {
    match decode(body.as_bytes(), LIMIT) {
        Ok((job, _)) => panic!("taken: {body}: {job:?}"),
        Err(refused) => refused.failure,
    }
}

#[test]
fn a_job_needs_a_user_and_messages_only() {
    let body = br#"{"user_id":"u","messages":[{"role":"user","content":"hi"}]}"#;
    let (job, text) = decode(body, LIMIT).unwrap();
    assert_eq!(job.user_id, "u");
    assert_eq!(text.as_bytes(), body);
}

#[test]
fn every_field_of_the_contract_is_read() {
    let body = r#"{"version":1,"job_id":"01890a5d-ac96-774b-bcce-b302099a8057",
      "conversation_id":"01890a5d-ac96-774b-bcce-b302099a8058","user_id":"user-42",
      "messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"t"},
        {"type":"image_url","image_url":{"url":"https://example.org/i.png"}}]}],
      "model":"gpt-4o-mini","max_iterations":3,
      "tools":{"servers":["calc"],"allow":["calc__*"],"deny":[],"choice":"auto"},
      "options":{"temperature":0.2,"top_p":1,"max_output_tokens":800,"seed":7,"stop":["END"],
        "reasoning_effort":"low","parallel_tool_calls":true,"response_format":{"type":"json_object"}},
      "budget":{"total_tokens":20000,"tool_calls":50,"cost_usd":0.25},"stream":false,
      "deadline":"2026-01-01T00:10:00Z","on_busy":"enqueue","metadata":{"ticket":991}}"#;
    let (job, _) = decode(body.as_bytes(), LIMIT).unwrap();
    let again = serde_json::to_string(&job).unwrap();
    assert_eq!(decode(again.as_bytes(), LIMIT).unwrap().0, job);
}

#[test]
fn what_says_no_more_than_its_absence_makes_no_other_job() {
    let short = br#"{"user_id":"u","messages":[{"role":"user","content":"x"}]}"#;
    let long = br#"{"version":1,"user_id":"u","messages":[{"role":"user","content":"x"}],
        "stream":false,"on_busy":"enqueue","model":null}"#;
    assert_eq!(
        decode(short, LIMIT).unwrap().0,
        decode(long, LIMIT).unwrap().0
    );
}

#[test]
fn a_wrong_job_is_refused_by_the_pointer_to_its_field() {
    let with = |field: &str| {
        format!(r#"{{"user_id":"u","messages":[{{"role":"user","content":"x"}}],{field}}}"#)
    };
    for (body, code, says) in [
        (String::new(), "invalid_json", "no JSON"),
        ("{".into(), "invalid_json", "no JSON"),
        ("{} {}".into(), "invalid_job", "user_id"),
        (with(r#""model":"m"}{"x":1"#), "invalid_json", "more than one"),
        ("[]".into(), "invalid_job", "the body"),
        (r#"[1,null,null,"u",[{"role":"user","content":"x"}]]"#.into(), "invalid_job", "the body"),
        (r#"{"user_id":"u","messages":[["user","x"]]}"#.into(), "invalid_job", "/messages/0"),
        (with(r#""budget":[1,2]"#), "invalid_job", "/budget"),
        ("null".into(), "invalid_job", "the body"),
        (r#"{"messages":[]}"#.into(), "invalid_job", "/user_id: "),
        (r#"{"user_id":"u","messages":[{"role":"user"}]}"#.into(), "invalid_job", "/messages/0/content: "),
        (with(r#""deadline":"-9999-01-01T00:00:00Z""#), "invalid_job", "/deadline"),
        (with(&format!(r#""tools":{{"deny":["{}"]}}"#, "?".repeat(256))), "invalid_job", "/tools/deny/0"),
        (r#"{"user_id":"u"}"#.into(), "invalid_job", "messages"),
        (with(r#""modle":"m""#), "invalid_job", "/modle"),
        (with(r#""version":2,"new_field":1"#), "unsupported_version", "/version"),
        (with(r#""version":"1""#), "invalid_job", "/version"),
        (with(r#""job_id":"seven""#), "invalid_job", "/job_id"),
        (with(r#""max_iterations":0"#), "invalid_job", "/max_iterations"),
        (with(r#""options":{"temperature":3}"#), "invalid_job", "/options/temperature"),
        (with(r#""options":{"stop":[""]}"#), "invalid_job", "/options/stop"),
        (with(r#""tools":{"allow":["["]}"#), "invalid_job", "/tools/allow/0"),
        (with(r#""tools":{"choice":"maybe"}"#), "invalid_job", "/tools/choice"),
        (with(r#""tools":{"choice":{"auto":null}}"#), "invalid_job", "/tools/choice"),
        (with(r#""tools":{"choice":7}"#), "invalid_job", "/tools/choice"),
        (with(r#""options":{"reasoning_effort":true}"#), "invalid_job", "/options/reasoning_effort"),
        (with(r#""on_busy":[]"#), "invalid_job", "/on_busy"),
        (r#"{"user_id":"u","messages":[{"role":1,"content":"x"}]}"#.into(), "invalid_job", "/messages/0/role"),
        (r#"{"user_id":"u","messages":[{"role":{"user":null},"content":"x"}]}"#.into(), "invalid_job", "/messages/0/role"),
        (with(r#""budget":{"total_tokens":0}"#), "invalid_job", "/budget/total_tokens"),
        (with(r#""budget":{"cost_usd":-1}"#), "invalid_job", "/budget/cost_usd"),
        (with(r#""budget":{"cost_usd":"1"}"#), "invalid_job", "/budget/cost_usd"),
        (with(r#""deadline":"tomorrow""#), "invalid_job", "/deadline"),
        (with(r#""stream":"true""#), "invalid_job", "/stream"),
        (with(r#""metadata":[]"#), "invalid_job", "/metadata"),
        (r#"{"user_id":"a b","messages":[{"role":"user","content":"x"}]}"#.into(), "invalid_job", "/user_id"),
        (r#"{"user_id":"u","messages":[]}"#.into(), "invalid_job", "/messages"),
        (r#"{"user_id":"u","messages":[{"role":"tool","content":"x"}]}"#.into(), "invalid_job", "/messages/0/role"),
        (r#"{"user_id":"u","messages":[{"role":"user","content":7}]}"#.into(), "invalid_job", "/messages/0/content"),
        (r#"{"user_id":"u","messages":[{"role":"user","content":[{"type":"text"}]}]}"#.into(), "invalid_job", "/messages/0/content/0"),
        (r#"{"user_id":"u","messages":[{"role":"user","content":[{"type":"video","text":"x"}]}]}"#.into(), "invalid_job", "/messages/0/content/0/type"),
        (r#"{"user_id":"u","messages":[{"role":"user","content":"x","name":"n"}]}"#.into(), "invalid_job", "/messages/0/name"),
    ] {
        let failure = refusal(&body);
        assert_eq!(failure.code.as_str(), code, "{body}: {failure}");
        assert!(failure.message.contains(says), "{body}: {failure}");
    }
}

#[test]
fn a_body_beyond_the_limit_is_too_large_before_it_is_read() {
    let refused = decode(&[b'{'; 2_000], 1_999).unwrap_err();
    assert_eq!(refused.failure.code, ErrorCode::JobTooLarge);
}

#[test]
fn what_can_be_read_of_a_bad_job_is_told() {
    let body = br#"{"job_id":"01890a5d-ac96-774b-bcce-b302099a8057","user_id":"u","messages":7}"#;
    let refused = decode(body, LIMIT).unwrap_err();
    assert_eq!(
        refused.job_id.unwrap().to_string(),
        "01890a5d-ac96-774b-bcce-b302099a8057"
    );
    assert_eq!(refused.user_id.as_deref(), Some("u"));
}

#[test]
fn text_that_postgres_refuses_is_no_failure() {
    let body = br#"{"user_id":"u","messages":[{"role":"user","content":"a\u0000b\ud800c"}]}"#;
    let (_, text) = decode(body, LIMIT).unwrap();
    assert_eq!(crate::escape::disarm(&text).as_bytes(), body);
}
