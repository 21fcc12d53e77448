//! What a server says in `WWW-Authenticate` (RFC 9110, section 11.6.1).

/// The value of a parameter of a challenge.
pub(super) fn parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge;
    while let Some((before, after)) = rest.split_once('=') {
        let found = before
            .rsplit([' ', ',', '\t'])
            .next()
            .is_some_and(|found| found.eq_ignore_ascii_case(name));
        let after = after.trim_start();
        let (value, left) = if let Some(quoted) = after.strip_prefix('"') {
            unquote(quoted)
        } else {
            let end = after.find([',', ' ']).unwrap_or(after.len());
            let (value, left) = after.split_at_checked(end)?;
            (value.to_owned(), left)
        };
        if found {
            return Some(value);
        }
        rest = left;
    }
    None
}

/// The text up to the closing quote, and what comes after it.
fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => break,
            '\\' => value.extend(chars.next()),
            other => value.push(other),
        }
    }
    (value, chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_whatever_stands_before_them() {
        let challenge = r#"Bearer realm="a, scope=\"x\"", error="invalid_token", Scope="read write", resource_metadata=https://h/m?a=b, x=1"#;
        assert_eq!(parameter(challenge, "scope").as_deref(), Some("read write"));
        assert_eq!(
            parameter(challenge, "error").as_deref(),
            Some("invalid_token")
        );
        assert_eq!(
            parameter(challenge, "resource_metadata").as_deref(),
            Some("https://h/m?a=b")
        );
        assert_eq!(parameter(challenge, "x").as_deref(), Some("1"));
        assert_eq!(parameter(challenge, "y"), None);
        assert_eq!(parameter("Bearer", "scope"), None);
        assert_eq!(
            parameter("Bearer scope=\"open", "scope").as_deref(),
            Some("open")
        );
    }
}
