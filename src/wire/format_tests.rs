use serde_json::json;

use super::*;

fn format_of(format: Value) -> Result<Option<ReplyFormat>, Failure> {
    let options = Map::from_iter([("response_format".to_owned(), format)]);
    ReplyFormat::of(&serde_json::from_value(options.into()).unwrap())
}

fn with_schema(schema: Value) -> Result<Option<ReplyFormat>, Failure> {
    let mut named = json!({"name": "reply"});
    named["schema"] = schema;
    format_of(json!({"type": "json_schema", "json_schema": named}))
}

fn refusal(format: Value) -> String {
    let failure = format_of(format).unwrap_err();
    assert_eq!(failure.code, ErrorCode::InvalidJob);
    failure.message
}

fn city() -> ReplyFormat {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}},
        "required": ["city"], "additionalProperties": false});
    with_schema(schema).unwrap().unwrap()
}

#[test]
fn a_reply_that_fits_is_read_with_or_without_a_fence() {
    let value = json!({"city": "Lima"});
    for reply in [
        r#"{"city": "Lima"}"#,
        " {\"city\": \"Lima\"}\n",
        "```json\n{\"city\": \"Lima\"}\n```",
        "```\n{\"city\": \"Lima\"}\n```\n",
    ] {
        assert_eq!(city().read(reply), Ok(value.clone()), "{reply}");
    }
}

#[test]
fn a_reply_that_does_not_fit_says_why() {
    for (reply, why) in [
        ("Lima", "no JSON"),
        ("", "no JSON"),
        (r#"{"city": "Lima"} is it"#, "no JSON"),
        (r#"{"city": 7}"#, "/city: 7 is not of type \"string\""),
        ("[]", "/: [] is not of type \"object\""),
        (r#"{"town": "Lima"}"#, "required"),
    ] {
        let told = city().read(reply).unwrap_err();
        assert!(told.contains(why), "{reply}: {told}");
    }
    let object = format_of(json!({"type": "json_object"})).unwrap().unwrap();
    assert_eq!(object.read("{}"), Ok(json!({})));
    assert!(object.read("[]").unwrap_err().contains("no object"));
}

#[test]
fn any_text_will_do_without_a_format_and_with_one_that_is_not_ours() {
    assert!(ReplyFormat::of(&ModelOptions::default()).unwrap().is_none());
    for kind in ["text", "structural_tag"] {
        assert!(format_of(json!({ "type": kind })).unwrap().is_none());
    }
}

#[test]
fn a_wrong_format_is_refused_by_its_place() {
    let named = |fields: Value| json!({"type": "json_schema", "json_schema": fields});
    for (format, place) in [
        (json!({}), "/type"),
        (json!({"type": 7}), "/type"),
        (json!({"type": "json_schema"}), "/json_schema"),
        (
            json!({"type": "json_schema", "name": "x", "schema": {}}),
            "/json_schema",
        ),
        (named(json!({"schema": {}})), "/json_schema/name"),
        (
            named(json!({"name": "a b", "schema": {}})),
            "/json_schema/name",
        ),
        (named(json!({"name": "x"})), "/json_schema/schema"),
        (
            named(json!({"name": "x", "schema": true})),
            "/json_schema/schema",
        ),
        (
            named(json!({"name": "x", "schema": {"type": "strin"}})),
            "/json_schema/schema",
        ),
        (
            named(json!({"name": "x", "schema": {"pattern": "("}})),
            "/json_schema/schema",
        ),
    ] {
        let said = refusal(format.clone());
        let start = format!("/options/response_format{place}: expected");
        assert!(said.starts_with(&start), "{format}: {said}");
    }
}

#[test]
fn a_schema_that_is_too_much_is_refused() {
    let mut deep = json!({});
    for _ in 0..70 {
        deep = json!({ "not": deep });
    }
    // Twice as many at each of 40 steps.
    let mut steps = serde_json::Map::new();
    for step in 0..40 {
        let next = json!({"$ref": format!("#/$defs/s{}", step + 1)});
        steps.insert(format!("s{step}"), json!({"allOf": [next, next]}));
    }
    steps.insert("s40".into(), json!({}));
    for (schema, why) in [
        (json!({"description": "x".repeat(70_000)}), "bytes"),
        (deep, "levels"),
        (
            json!({"$ref": "#/$defs/s0", "$defs": steps}),
            "schemas for one value",
        ),
        (json!({"$ref": "#"}), "come to an end"),
        (
            json!({"properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}]}}}),
            "come to an end",
        ),
        (
            json!({"$ref": "http://127.0.0.1:1/schema.json"}),
            "within the schema",
        ),
        (json!({"$ref": "#/$defs/none"}), "within the schema"),
    ] {
        let said = with_schema(schema).unwrap_err().message;
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[test]
fn a_schema_may_refer_to_itself_for_what_lies_within() {
    let tree = json!({"type": "object", "properties": {"left": {"$ref": "#"}}});
    let format = with_schema(tree).unwrap().unwrap();
    assert!(format.read(r#"{"left": {"left": {}}}"#).is_ok());
    assert!(format.read(r#"{"left": {"left": 7}}"#).is_err());
}

#[test]
fn a_pattern_that_never_ends_is_a_misfit() {
    let format = with_schema(json!({"pattern": "^(?=(a+)+$)(a+)+b$"}))
        .unwrap()
        .unwrap();
    let reply = format!("\"{}\"", "a".repeat(64));
    assert!(format.read(&reply).is_err());
}
