/// Splits a command line as a shell would: blanks part words, quotes and backslashes keep them
/// together. Nothing is expanded.
///
/// # Errors
/// A quote that is not closed, or a backslash at the end.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, quote) {
            ('\\', None | Some('"')) => {
                let Some(escaped) = chars.next() else {
                    return Err("ends in a backslash with nothing after it".to_owned());
                };
                let word = word.get_or_insert_default();
                // Between double quotes a backslash stands for itself before any other character.
                if quote.is_some() && !matches!(escaped, '"' | '\\') {
                    word.push('\\');
                }
                word.push(escaped);
            }
            ('"' | '\'', None) => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (_, Some(open)) if open == char => quote = None,
            (_, None) if char.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("the quote {quote} is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_split_as_a_shell_would() {
        let cases: [(&str, &[&str]); 6] = [
            ("/bin/calc", &["/bin/calc"]),
            ("  calc  --fast\t-n 3 ", &["calc", "--fast", "-n", "3"]),
            (
                r#"calc "two words" 'and $more' "#,
                &["calc", "two words", "and $more"],
            ),
            (
                r#"calc a\ b "q\"q" "x\y" '\'"#,
                &["calc", "a b", "q\"q", r"x\y", r"\"],
            ),
            (r#"calc "" a''b"#, &["calc", "", "ab"]),
            ("", &[]),
        ];
        for (text, words) in cases {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        assert!(split("calc \"open").unwrap_err().contains("not closed"));
        assert!(split("calc \\").unwrap_err().contains("backslash"));
    }
}
