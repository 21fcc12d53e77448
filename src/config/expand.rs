use super::Lookup;

/// Puts variables in for `${NAME}`; any other dollar sign stands for itself.
///
/// # Errors
/// What is wrong, in words that hold no value of a variable.
pub(super) fn expand(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else {
            return Err("`${` without a closing `}`".to_owned());
        };
        let value =
            lookup(name).ok_or_else(|| format!("the environment has no variable {name:?}"))?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_put_in_once_and_never_shown_in_an_error() {
        let lookup = |name: &str| (name == "KEY").then(|| "s3cret${KEY}".to_owned());
        assert_eq!(expand("a ${KEY} $b", &lookup).unwrap(), "a s3cret${KEY} $b");
        let error = expand("${KEY}${NONE}", &lookup).unwrap_err();
        assert!(
            error.contains("\"NONE\"") && !error.contains("s3cret"),
            "{error}"
        );
        assert!(expand("${KEY", &lookup).is_err());
    }
}
