use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;

const CAPS: Caps = Caps {
    text: 1000,
    media: 1000,
};

fn read(result: &Value) -> ToolOutcome {
    read_result(result, CAPS)
}

/// The least that is taken for an image.
fn png() -> String {
    STANDARD.encode(b"\x89PNG\r\n\x1a\n")
}

#[test]
fn every_kind_of_content_becomes_text_and_an_unknown_one_costs_nothing_else() {
    let outcome = read(&json!({"content": [
        {"type": "text", "text": "one"},
        {"type": "text", "text": null},
        {"type": "text", "text": 2},
        {"type": "image", "mimeType": "image/png", "data": "QUJDRA=="},
        {"type": "audio", "data": "QUJD"},
        {"type": "resource", "resource": {"uri": "file:///a", "mimeType": "text/plain", "text": "inside"}},
        {"type": "resource", "resource": {"uri": "file:///b", "mimeType": "application/zip", "blob": "QUJD"}},
        {"type": "resource", "resource": {"uri": "file:///c", "mimeType": "text/csv", "blob": "YTtiCg=="}},
        {"type": "resource", "resource": {"uri": "file:///d"}},
        {"type": "resource_link", "uri": "file:///e"},
        {"type": "resource_link", "uri": "file:///f", "name": "f", "mimeType": "text/plain", "description": "About f"},
        {"type": "hologram", "x": 1},
        7, null, "bare", {"text": "untyped"}], "structuredContent": {"not": "shown"}}));
    let lines: Vec<_> = outcome.text.lines().collect();
    assert_eq!(
        lines,
        [
            "one",
            "2",
            "[image: image/png, 4 bytes, not shown]",
            "[audio: unknown type, 3 bytes, not shown]",
            "[resource: file:///a, text/plain]",
            "inside",
            "[resource: file:///b, application/zip, 3 bytes, not shown]",
            "[resource: file:///c, text/csv]",
            "a;b",
            "",
            r#"{"uri":"file:///d"}"#,
            "file:///e",
            "f: file:///f (text/plain)",
            "About f",
            r#"{"type":"hologram","x":1}"#,
            "7",
            "bare",
            "untyped"
        ]
    );
    assert_eq!(outcome.status, OutcomeStatus::Succeeded);
    assert!(outcome.media.is_empty());
}

#[test]
fn what_models_can_look_at_is_shown_in_the_order_of_its_marks() {
    let pdf = STANDARD.encode(b"%PDF-1.7");
    let outcome = read(&json!({"content": [
        {"type": "image", "mimeType": "image/jpeg", "data": png()},
        {"type": "text", "text": "between"},
        {"type": "resource", "resource": {"uri": "file:///x/report.pdf", "mimeType": "application/pdf", "blob": pdf}},
        {"type": "resource", "resource": {"uri": "file:///y.png", "blob": png()}},
        {"type": "image", "mimeType": "image/png", "data": STANDARD.encode([png().as_bytes(), &[0; 2000]].concat())},
    ]}));
    assert_eq!(
        outcome.text,
        "[image: image/png, 8 bytes]\nbetween\n[resource: file:///x/report.pdf, application/pdf, 8 bytes]\n\
         [resource: file:///y.png, image/png, 8 bytes]\n[image: image/png, 2012 bytes, not shown]"
    );
    let shown: Vec<_> = outcome
        .media
        .iter()
        .map(|media| (&media.mime_type[..], media.name.as_deref()))
        .collect();
    assert_eq!(
        shown,
        [
            ("image/png", None),
            ("application/pdf", Some("report.pdf")),
            ("image/png", Some("y.png")),
        ]
    );
}

#[test]
fn structured_content_speaks_only_where_nothing_else_does() {
    let structured = json!({"content": [], "structuredContent": {"a": 1}});
    assert_eq!(read(&structured).text, r#"{"a":1}"#);
    let blank = json!({"content": [{"type": "text", "text": " "}], "structuredContent": [1]});
    assert_eq!(read(&blank).text, "[1]");
    let image =
        json!({"content": [{"type": "image", "data": png()}], "structuredContent": {"a": 1}});
    assert_eq!(read(&image).text, "[image: image/png, 8 bytes]");
    assert_eq!(
        read(&json!({"structuredContent": null})).text,
        "(no output)"
    );
}

#[test]
fn an_answer_without_text_is_never_an_empty_text() {
    for empty in [
        json!({}),
        json!({"content": []}),
        json!({"content": null}),
        json!({"content": [{"type": "text", "text": "\n"}]}),
        json!({"toolResult": ""}),
    ] {
        let outcome = read(&empty);
        assert_eq!(outcome.text, "(no output)", "{empty}");
        assert_eq!(outcome.status, OutcomeStatus::Succeeded);
    }
    let failed = read(&json!({"isError": true}));
    assert_eq!(failed.text, "Error: (no output)");
}

#[test]
fn results_of_old_servers_are_read() {
    for (result, text) in [
        (json!({"content": "a text"}), "a text"),
        (json!({"content": {"type": "text", "text": "one"}}), "one"),
        (json!({"toolResult": "said"}), "said"),
        (json!({"toolResult": {"sum": 3}}), r#"{"sum":3}"#),
        (json!({"toolResult": 42}), "42"),
        (
            json!({"toolResult": [{"type": "text", "text": "blocks"}]}),
            "blocks",
        ),
    ] {
        assert_eq!(read(&result).text, text, "{result}");
    }
}

#[test]
fn a_tool_that_says_it_failed_has_failed_and_the_model_is_told_so_once() {
    let said = |text: &str| {
        let outcome = read(&json!({"content": [{"type": "text", "text": text}], "isError": true}));
        assert_eq!(outcome.status, OutcomeStatus::Failed);
        outcome.text
    };
    assert_eq!(said("no such file"), "Error: no such file");
    assert_eq!(said("ERROR 42: no such file"), "ERROR 42: no such file");
    assert_eq!(said("é"), "Error: é");
    let asks = read(&json!({"resultType": "input_required", "inputRequests": {}}));
    assert_eq!(asks.status, OutcomeStatus::Failed);
    assert!(asks.text.contains("input_required"), "{}", asks.text);
}

#[test]
fn an_unknown_kind_that_is_large_is_only_named() {
    let large = read(&json!({"content": [{"type": "hologram", "data": "x".repeat(5000)}]}));
    assert_eq!(large.text, "[hologram: 5029 bytes, not shown]");
}

#[test]
fn a_long_result_is_cut_in_its_middle_at_characters_and_keeps_its_true_size() {
    let text = format!("{}{}", "é".repeat(600), "ü".repeat(600));
    let outcome = outcome(OutcomeStatus::Succeeded, text, 1000);
    assert_eq!(outcome.bytes, 2400);
    let length = outcome.text.len();
    assert!(length <= 1000 && length > 950, "{length}");
    let (head, rest) = outcome.text.split_once("\n[truncated: ").unwrap();
    let (kept, tail) = rest.split_once(" of 2400 bytes]\n").unwrap();
    assert_eq!(kept, (head.len() + tail.len()).to_string());
    assert!(head.chars().all(|char| char == 'é') && head.len() > 600);
    assert!(tail.chars().all(|char| char == 'ü') && tail.len() > 300);
}

#[test]
fn of_a_line_whose_end_was_not_read_the_head_is_kept() {
    let outcome = read_line("x".repeat(2000), 9_000_000, 500);
    assert_eq!(outcome.bytes, 9_000_000);
    assert!(outcome.text.len() <= 500 && outcome.text.ends_with(" of 9000000 bytes]\n"));
}
