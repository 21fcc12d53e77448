use std::time::Duration;

use http::HeaderMap;
use serde_json::value::RawValue;

use crate::clock::{Clock, SystemClock};
use crate::fault::{ErrorCode, Fault};
use crate::model::ModelError;
use crate::model::classify::{Class, Mend, Verdict, classify};
use crate::model::hints::Hints;

use Class::{Auth, ContentFiltered, ContextTooLong, Protocol, Quota, Rejected, Unavailable};

fn verdict(status: u16, headers: &[(&'static str, &str)], body: &str) -> Verdict {
    let headers: HeaderMap = (headers.iter())
        .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
        .collect();
    classify(
        status,
        &Hints::read(&headers, SystemClock.now()),
        body.as_bytes(),
    )
}

/// Status, body, and what it means: answers as OpenAI, Azure, Groq, vLLM, llama.cpp, Ollama, Gemini,
/// routers and proxies give them.
const ANSWERS: [(u16, &str, Class); 55] = [
    (
        400,
        r#"{"error":{"message":"Unknown parameter: 'x'.","type":"invalid_request_error","param":"x","code":"unknown_parameter"}}"#,
        Rejected,
    ),
    (
        400,
        r#"{"error":{"message":"This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
        ContextTooLong,
    ),
    (
        400,
        r#"{"error":{"message":"too long","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
        ContextTooLong,
    ),
    (
        400,
        r#"{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_prompt_tokens":3000,"n_ctx":2048}}"#,
        ContextTooLong,
    ),
    (
        400,
        r#"{"error":{"code":400,"message":"","type":"exceed_context_size_error"}}"#,
        ContextTooLong,
    ),
    (
        400,
        r#"{"object":"error","message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","param":null,"code":400}"#,
        ContextTooLong,
    ),
    (
        400,
        r#"{"error":{"message":"prompt is too long: 210000 tokens > 200000 maximum","type":"invalid_request_error"}}"#,
        ContextTooLong,
    ),
    (
        400,
        r#"[{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}]"#,
        ContextTooLong,
    ),
    (
        422,
        r#"{"detail":"Input is too long for requested model."}"#,
        ContextTooLong,
    ),
    (413, "", ContextTooLong),
    (
        413,
        r#"{"error":{"message":"Request too large for model `llama` on tokens per minute (TPM): Limit 6000, Requested 9000","type":"tokens","code":"rate_limit_exceeded"}}"#,
        ContextTooLong,
    ),
    (
        429,
        r#"{"error":{"message":"Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
        ContextTooLong,
    ),
    // LiteLLM's own mistake is not repeated: a long field is no long conversation.
    (
        400,
        r#"{"error":{"message":"Invalid 'metadata.x': string too long. Expected a string with maximum length 512","type":"invalid_request_error","code":"string_above_max_length"}}"#,
        Rejected,
    ),
    (
        400,
        r#"{"error":{"message":"The response was filtered","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
        ContentFiltered,
    ),
    (
        400,
        r#"{"error":{"message":"x","code":null,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
        ContentFiltered,
    ),
    (
        400,
        r#"{"error":{"message":"x","type":"image_generation_user_error","code":"content_policy_violation"}}"#,
        ContentFiltered,
    ),
    (
        403,
        r#"{"error":{"code":403,"message":"Your chosen model requires moderation and your input was flagged","metadata":{"reasons":["violence"]}}}"#,
        ContentFiltered,
    ),
    (
        401,
        r#"{"error":{"message":"Incorrect API key provided","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
        Auth,
    ),
    (401, "", Auth),
    (401, r#"{"detail":"Unauthorized"}"#, Auth),
    (
        403,
        r#"{"error":{"message":"Country, region, or territory not supported","type":"request_forbidden","code":"unsupported_country_region_territory"}}"#,
        Auth,
    ),
    (403, "<html>Forbidden</html>", Auth),
    (
        402,
        r#"{"error":{"code":402,"message":"Insufficient credits"}}"#,
        Quota,
    ),
    (
        402,
        r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","code":"invalid_request_error"}}"#,
        Quota,
    ),
    (
        429,
        r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
        Quota,
    ),
    (
        429,
        r#"{"error":{"message":"You exceeded your current quota","type":"requests","code":"insufficient_quota"}}"#,
        Quota,
    ),
    (
        429,
        r#"{"error":{"message":"x","type":"billing_not_active","code":null}}"#,
        Quota,
    ),
    (
        429,
        r#"{"error":{"message":"x","code":"billing_hard_limit_reached"}}"#,
        Quota,
    ),
    (
        429,
        r#"{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#,
        Unavailable,
    ),
    (
        429,
        r#"{"error":{"code":429,"message":"Rate limit exceeded: free-models-per-min"}}"#,
        Unavailable,
    ),
    (429, "<html>Too Many Requests</html>", Unavailable),
    (429, "", Unavailable),
    (
        404,
        r#"{"error":{"message":"The model `x` does not exist","type":"invalid_request_error","code":"model_not_found"}}"#,
        Rejected,
    ),
    (404, r#"{"error":"model 'x' not found"}"#, Rejected),
    (404, "404 page not found", Rejected),
    (405, "", Rejected),
    (415, "", Rejected),
    (
        422,
        r#"{"detail":[{"loc":["body","messages"],"msg":"field required"}]}"#,
        Rejected,
    ),
    (400, "", Rejected),
    (400, "null", Rejected),
    (400, "[]", Rejected),
    (
        400,
        r#"{"error":{"message":"Function tools with reasoning_effort are not supported for gpt-5.6 in /v1/chat/completions. To use function tools, use /v1/responses or set reasoning_effort to 'none'.","type":"invalid_request_error","param":"reasoning_effort","code":null}}"#,
        Rejected,
    ),
    (301, "", Rejected),
    (307, "", Rejected),
    (308, "<html></html>", Rejected),
    (408, "", Unavailable),
    (409, "", Unavailable),
    (425, "", Unavailable),
    (
        500,
        r#"{"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}"#,
        Unavailable,
    ),
    (
        500,
        r#"{"error":{"code":500,"message":"Failed to parse tool call arguments as JSON","type":"server_error"}}"#,
        Unavailable,
    ),
    (502, "<html>Bad Gateway</html>", Unavailable),
    (
        503,
        r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#,
        Unavailable,
    ),
    (504, "upstream request timeout", Unavailable),
    (524, "", Unavailable),
    (
        529,
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        Unavailable,
    ),
];

#[test]
fn every_answer_that_servers_are_known_to_give_is_told_apart() {
    for (status, body, expected) in ANSWERS {
        let verdict = verdict(status, &[], body);
        assert_eq!(verdict.class, expected, "{status} {body}");
        let retried = matches!(verdict.fault, Fault::Retry { .. });
        assert_eq!(retried, expected == Unavailable, "{status} {body}");
    }
}

#[test]
fn a_context_that_is_too_long_is_known_in_all_its_spellings() {
    for (status, message) in [
        (400, "This model's maximum context length is 8192 tokens."),
        (400, "context length of 4096 exceeded by your prompt"),
        (
            400,
            "the request exceeds the available context size, try increasing it",
        ),
        (500, "Context size has been exceeded."),
        (400, "Your input exceeds the context window of this model."),
        (400, "prompt is too long: 210000 tokens > 200000 maximum"),
        (
            400,
            "Input length (9000) exceeds maximum allowed token size 8192",
        ),
        (
            400,
            "The decoder prompt is longer than the maximum model length of 4096",
        ),
        (422, "Too many tokens in the prompt"),
        (400, "litellm.ContextWindowExceededError: too long"),
        (
            400,
            "This model's maximum prompt length is 131072 but the request contains 150000 tokens.",
        ),
        (400, "`inputs` tokens + `max_new_tokens` must be <= 4097"),
        (
            400,
            "Trying to keep the first 9000 tokens, which is greater than the context length",
        ),
        (
            400,
            "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        ),
        (400, "Your request exceeded model token limit: 8192"),
        (
            400,
            "prompt token count of 130000 exceeds the limit of 128000",
        ),
        (400, "Range of input length should be [1, 30720]"),
        (400, "Prompt exceeds max length"),
    ] {
        let body = serde_json::json!({"error": {"message": message, "code": status}});
        let verdict = verdict(status, &[], &body.to_string());
        assert_eq!(verdict.class, ContextTooLong, "{message}");
    }
    for message in [
        "Invalid 'metadata.x': string too long. Expected a string with maximum length 512",
        "Invalid 'messages[0].name': string too long, the context window has nothing to do with it",
        "Invalid input length",
        "max_tokens 90000 exceeds the model's maximum output tokens 16384",
    ] {
        let body = serde_json::json!({"error": {"message": message}});
        assert_eq!(
            verdict(400, &[], &body.to_string()).class,
            Rejected,
            "{message}"
        );
    }
}

#[test]
fn what_only_has_to_be_asked_in_another_way_is_known() {
    for (status, code, message, mend) in [
        (
            400,
            "",
            "Function tools with reasoning_effort are not supported for gpt-5.6 in /v1/chat/completions. To use function tools, use /v1/responses or set reasoning_effort to 'none'.",
            Some(Mend::SpeakResponses),
        ),
        (
            404,
            "",
            "This model is only supported in v1/responses and not in v1/chat/completions.",
            Some(Mend::SpeakResponses),
        ),
        (
            400,
            "",
            "Encrypted content is not supported with this model.",
            Some(Mend::AskForNoThoughts),
        ),
        (
            400,
            "invalid_encrypted_content",
            "x",
            Some(Mend::ForgetThoughts),
        ),
        (
            400,
            "",
            "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false.",
            Some(Mend::ForgetThoughts),
        ),
        (
            404,
            "",
            "Item with id 'rs_1' not found.",
            Some(Mend::ForgetThoughts),
        ),
        (
            400,
            "",
            "Item 'rs_1' of type 'reasoning' was provided without its required following item.",
            Some(Mend::ForgetThoughts),
        ),
        (
            400,
            "",
            "Item 'fc_1' of type 'function_call' was provided without its required 'reasoning' item: 'rs_1'.",
            Some(Mend::ForgetThoughts),
        ),
        (
            400,
            "unsupported_parameter",
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            Some(Mend::LimitCompletionTokens),
        ),
        (
            400,
            "",
            "Unrecognized request argument supplied: stream_options",
            Some(Mend::StreamWithoutUsage),
        ),
        (
            400,
            "",
            "Unsupported value: 'temperature' does not support 0.2 with this model.",
            None,
        ),
        (
            401,
            "",
            "Encrypted content is not supported with this model.",
            None,
        ),
        (500, "", "use /v1/responses: not supported", None),
    ] {
        let body = serde_json::json!({"error": {"message": message, "code": code}});
        assert_eq!(
            verdict(status, &[], &body.to_string()).mend,
            mend,
            "{message}"
        );
    }
}

#[test]
fn errors_inside_a_success_mean_what_they_say() {
    for (error, expected) in [
        (
            r#"{"code":429,"message":"Rate limited upstream"}"#,
            Unavailable,
        ),
        (r#"{"code":"429","message":"x"}"#, Unavailable),
        (r#"{"code":402,"message":"x"}"#, Quota),
        (r#"{"code":"insufficient_quota","message":"x"}"#, Quota),
        (
            r#"{"code":502,"message":"Provider returned error"}"#,
            Unavailable,
        ),
        (
            r#"{"code":"rate_limit_exceeded","message":"x"}"#,
            Unavailable,
        ),
        (r#"{"code":"invalid_api_key","message":"x"}"#, Auth),
        (
            r#"{"type":"invalid_request_error","message":"x"}"#,
            Rejected,
        ),
        (
            r#"{"code":"context_length_exceeded","message":"x"}"#,
            ContextTooLong,
        ),
        (
            r#"{"code":"content_filter","message":"x"}"#,
            ContentFiltered,
        ),
        (
            r#"{"type":"invalid_request_error","code":"unsupported_parameter","message":"x"}"#,
            Rejected,
        ),
        (
            r#"{"type":"rate_limit_error","code":"tokens","message":"x"}"#,
            Unavailable,
        ),
        (
            r#"{"type":"authentication_error","code":"bad_key","message":"x"}"#,
            Auth,
        ),
        (r#"{"code":"invalid_prompt","message":"x"}"#, Rejected),
        (r#"{"code":"invalid_image_url","message":"x"}"#, Rejected),
        (
            r#"{"code":"image_content_policy_violation","message":"x"}"#,
            ContentFiltered,
        ),
        (r#"{"message":"something broke"}"#, Unavailable),
        (r#""something broke""#, Unavailable),
        ("{}", Unavailable),
        ("[]", Unavailable),
        ("42", Unavailable),
    ] {
        let raw = RawValue::from_string(error.to_owned()).unwrap();
        assert_eq!(Verdict::error_in_reply(&raw).class, expected, "{error}");
    }
}

#[test]
fn a_server_may_overrule_what_its_status_says() {
    let told_to = verdict(400, &[("x-should-retry", "true")], "");
    assert_eq!(told_to.class, Unavailable);
    let told_not_to = verdict(500, &[("x-should-retry", "false")], "");
    assert_eq!(
        (told_not_to.class, told_not_to.most_attempts),
        (Unavailable, 1)
    );
}

#[test]
fn the_wait_that_a_server_names_reaches_the_caller_up_to_an_hour() {
    let after = |value: &str| {
        let error = ModelError::new(verdict(429, &[("retry-after", value)], ""), 1);
        error.fault()
    };
    let seconds = |seconds| Fault::Retry {
        after: Some(Duration::from_secs(seconds)),
    };
    assert_eq!(after("30"), seconds(30));
    assert_eq!(after("86400"), seconds(3600));
    let date = (SystemClock.now() + Duration::from_secs(90)).format("%a, %d %b %Y %H:%M:%S GMT");
    let Fault::Retry { after: Some(wait) } = after(&date.to_string()) else {
        panic!("an HTTP date is a wait");
    };
    assert!((85..=90).contains(&wait.as_secs()), "{wait:?}");
}

#[test]
fn each_kind_of_failure_has_its_code() {
    for (verdict, code) in [
        (verdict(400, &[], ""), ErrorCode::ModelRejected),
        (verdict(401, &[], ""), ErrorCode::ModelAuth),
        (verdict(402, &[], ""), ErrorCode::ModelQuota),
        (verdict(413, &[], ""), ErrorCode::ContextTooLong),
        (
            verdict(400, &[], r#"{"error":{"code":"content_filter"}}"#),
            ErrorCode::ContentFiltered,
        ),
        (verdict(500, &[], ""), ErrorCode::ModelUnavailable),
        (
            Verdict::timeout(Duration::from_secs(1)),
            ErrorCode::ModelUnavailable,
        ),
        (Verdict::malformed("x"), ErrorCode::ModelProtocol),
        (Verdict::too_large(1 << 20), ErrorCode::ModelProtocol),
    ] {
        assert_eq!(ModelError::new(verdict, 1).code(), code);
    }
    assert_eq!(Verdict::too_large(1).class, Protocol);
}

#[test]
fn an_error_says_what_failed_why_and_what_to_do_in_one_line() {
    let body = r#"{"error":{"message":"Incorrect API key\nprovided","code":"invalid_api_key"}}"#;
    let error = ModelError::new(verdict(401, &[("x-request-id", "req_7")], body), 1);
    insta::assert_snapshot!(error, @"the model server did not accept the credentials: HTTP 401: Incorrect API key provided; check OPENAI_API_KEY and what it may do (request req_7)");
    let page = ModelError::new(verdict(502, &[], "<html>x</html>"), 3);
    insta::assert_snapshot!(page, @"the model server is unavailable: HTTP 502: a page of HTML (3 times in a row)");
}

#[test]
fn a_providers_message_is_cut_at_500_characters() {
    let body = format!(r#"{{"error":{{"message":"{}"}}}}"#, "é".repeat(600));
    let error = ModelError::new(verdict(400, &[], &body), 1).to_string();
    assert_eq!(error.matches('é').count(), 500);
    assert!(error.contains('…'));
}
