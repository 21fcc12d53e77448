use super::*;

const LIMIT: usize = 64 << 10;
const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn message(kind: &str, fields: &str) -> String {
    format!(r#"{{"type":"{kind}","job_id":"{ID}"{fields}}}"#)
}

fn taken(kind: &str, fields: &str) -> Control {
    decode_control(message(kind, fields).as_bytes(), LIMIT).unwrap()
}

fn job_id() -> JobId {
    JobId(ID.parse().unwrap())
}

#[test]
fn every_message_of_the_contract_is_read() {
    let cancel = |reason, user_id| Control::Cancel {
        job_id: job_id(),
        reason,
        user_id,
    };
    assert_eq!(taken("cancel", ""), cancel(None, None));
    let nulls = r#","version":null,"reason":null,"user_id":null,"call_id":null"#;
    assert_eq!(taken("cancel", nulls), cancel(None, None));
    assert_eq!(
        taken("cancel", r#","version":1,"reason":"no use","user_id":"u""#),
        cancel(Some("no use".to_owned()), Some("u".to_owned()))
    );
    assert_eq!(
        taken("approve", r#","call_id":"c1","by":"ann","reason":"fine""#),
        Control::Approve {
            job_id: job_id(),
            call_id: "c1".to_owned(),
            by: Some("ann".to_owned()),
            reason: Some("fine".to_owned()),
        }
    );
    assert_eq!(
        taken("deny", r#","call_id":"c1""#),
        Control::Deny {
            job_id: job_id(),
            call_id: "c1".to_owned(),
            by: None,
            reason: None,
        }
    );
}

#[test]
fn a_byte_order_mark_and_text_that_postgres_refuses_are_no_failure() {
    let body = format!(
        "\u{FEFF}{}",
        message("cancel", r#","reason":"a\u0000\ud800␛""#)
    );
    let Ok(Control::Cancel { reason, .. }) = decode_control(body.as_bytes(), LIMIT) else {
        panic!("not taken: {body}");
    };
    assert_eq!(reason.as_deref(), Some("a␛0000␛d800␛241b"));
}

#[test]
fn the_longest_texts_are_taken() {
    let text = "é".repeat(500);
    taken("cancel", &format!(r#","reason":"{text}""#));
    let id = "c".repeat(16 << 10);
    taken(
        "deny",
        &format!(r#","call_id":"{id}","by":"{text}","reason":"{text}""#),
    );
}

fn refused(body: &str, code: &str, says: &str) {
    let failure = decode_control(body.as_bytes(), LIMIT).unwrap_err();
    assert_eq!(failure.code.as_str(), code, "{body}: {failure}");
    assert!(failure.message.contains(says), "{body}: {failure}");
}

#[test]
fn a_wrong_message_is_refused_by_the_pointer_to_its_field() {
    for (body, code, says) in [
        (String::new(), "invalid_json", "no JSON"),
        ("{".into(), "invalid_json", "no JSON"),
        ("cancel".into(), "invalid_json", "no JSON"),
        (
            message("cancel", "") + "{}",
            "invalid_json",
            "more than one",
        ),
        ("[]".into(), "invalid_job", "the body: "),
        (
            format!(r#"[null,"cancel","{ID}"]"#),
            "invalid_job",
            "the body: ",
        ),
        (r#"{"type":"cancel"}"#.into(), "invalid_job", "/job_id: "),
        (
            r#"{"type":"cancel","job_id":"x"}"#.into(),
            "invalid_job",
            "/job_id: ",
        ),
        (
            r#"{"type":"cancel","job_id":7}"#.into(),
            "invalid_job",
            "/job_id: ",
        ),
        (format!(r#"{{"job_id":"{ID}"}}"#), "invalid_job", "/type: "),
        (
            format!(r#"{{"type":{{"deny":null}},"job_id":"{ID}"}}"#),
            "invalid_job",
            "/type: ",
        ),
        (message("stop", ""), "invalid_job", "/type: "),
        (message("Cancel", ""), "invalid_job", "/type: "),
        (message("cancel", r#","why":"x""#), "invalid_job", "/why: "),
        (
            message("cancel", r#","version":"1""#),
            "invalid_job",
            "/version: ",
        ),
        (
            message("cancel", r#","version":2"#),
            "unsupported_version",
            "/version: ",
        ),
        (
            message("pause", r#","version":2,"x":7"#),
            "unsupported_version",
            "/version: ",
        ),
    ] {
        refused(&body, code, says);
    }
}

#[test]
fn each_kind_has_its_own_fields() {
    let long = format!("{}x", "é".repeat(500));
    let call = "c".repeat((16 << 10) + 1);
    let too_long = "expected at most 1000 bytes, got 1001";
    let none = "expected no such field";
    for (kind, fields, says) in [
        ("cancel", r#","reason":7"#.into(), "/reason: "),
        ("cancel", format!(r#","reason":"{long}""#), too_long),
        ("cancel", r#","user_id":"a b""#.into(), "/user_id: "),
        ("cancel", r#","call_id":"c""#.into(), none),
        ("cancel", r#","by":"ann""#.into(), none),
        (
            "approve",
            String::new(),
            "/call_id: expected a value, the field is missing",
        ),
        ("approve", r#","call_id":"""#.into(), "/call_id: "),
        ("approve", format!(r#","call_id":"{call}""#), "/call_id: "),
        (
            "approve",
            format!(r#","call_id":"c","by":"{long}""#),
            too_long,
        ),
        (
            "deny",
            format!(r#","call_id":"c","reason":"{long}""#),
            too_long,
        ),
        ("deny", r#","call_id":"c","user_id":"u""#.into(), none),
    ] {
        refused(&message(kind, &fields), "invalid_job", says);
    }
}

#[test]
fn a_message_that_is_too_large_or_no_text_is_not_read() {
    let body = message("cancel", "");
    let failure = decode_control(body.as_bytes(), body.len() - 1).unwrap_err();
    assert_eq!(failure.code, ErrorCode::JobTooLarge);
    let failure = decode_control(b"{\"type\":\"\xff\"}", LIMIT).unwrap_err();
    assert_eq!(failure.code, ErrorCode::InvalidJson);
}
