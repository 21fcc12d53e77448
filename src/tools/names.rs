//! What the model calls a tool: `[a-zA-Z0-9_-]{1,64}`, the form that every `OpenAI`-compatible
//! server takes. Pure.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

/// The longest name, in bytes.
const MAX_BYTES: usize = 64;
/// Digits of the hash that tells apart what cleaning or cutting made alike.
const HASH_DIGITS: usize = 8;

/// Names for tools given as server (none: no prefix) and the tool's own name, in the same order.
///
/// Cut names end in a hash of server and tool, and so do names that would otherwise be the same;
/// the name of a tool does not depend on the order.
pub(super) fn assign(tools: &[(Option<&str>, &str)]) -> Vec<String> {
    let clean: Vec<_> = tools
        .iter()
        .map(|(server, tool)| clean(&full_name(*server, tool)))
        .collect();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for name in &clean {
        *seen.entry(name).or_default() += 1;
    }
    tools
        .iter()
        .zip(&clean)
        .map(|((server, tool), clean)| {
            let alone = seen.get(clean.as_str()) == Some(&1);
            let short = clean.len() <= MAX_BYTES;
            if alone && short {
                clean.clone()
            } else {
                hashed(*server, tool, clean)
            }
        })
        .collect()
}

fn full_name(server: Option<&str>, tool: &str) -> String {
    server.map_or_else(|| tool.to_owned(), |server| format!("{server}__{tool}"))
}

fn clean(name: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == '-';
    let cleaned: String = name
        .chars()
        .map(|char| if plain(char) { char } else { '_' })
        .collect();
    if cleaned.is_empty() {
        "_".to_owned()
    } else {
        cleaned
    }
}

fn hashed(server: Option<&str>, tool: &str, clean: &str) -> String {
    // Not of the full name, which a tool of a server without prefix may share.
    let digest = Sha256::digest(format!("{server:?} {tool:?}").as_bytes());
    // Cleaned names are ASCII, so every byte is a character.
    let kept: String = clean.chars().take(MAX_BYTES - HASH_DIGITS - 1).collect();
    let hash = digest
        .iter()
        .take(4)
        .fold(0_u32, |hash, byte| hash << 8 | u32::from(*byte));
    format!("{kept}_{hash:0HASH_DIGITS$x}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::strategy::Strategy;

    use super::*;

    #[test]
    fn a_name_carries_its_server_unless_it_has_none() {
        let names = assign(&[(Some("calc"), "add"), (None, "add")]);
        assert_eq!(names, ["calc__add", "add"]);
    }

    #[test]
    fn names_are_cleaned_and_told_apart_whatever_their_order() {
        let one = assign(&[(None, "a.b"), (None, "a/b"), (None, "a.c")]);
        let other = assign(&[(None, "a/b"), (None, "a.c"), (None, "a.b")]);
        assert_eq!(one[2], "a_c");
        assert_ne!(one[0], one[1]);
        assert!(one[0].starts_with("a_b_") && one[1].starts_with("a_b_"));
        assert_eq!([&one[0], &one[1]], [&other[2], &other[0]]);
    }

    #[test]
    fn a_tool_cannot_take_the_name_of_another_servers_tool() {
        let names = assign(&[(None, "calc__add"), (Some("calc"), "add")]);
        assert_ne!(names[0], names[1]);
        assert!(!names.contains(&"calc__add".to_owned()), "{names:?}");
    }

    proptest::proptest! {
        #[test]
        fn names_are_always_distinct_and_fit_every_model(tools in tools_of_servers()) {
            let tools: Vec<_> = tools.iter().map(|(server, tool)| (server.as_deref(), &tool[..])).collect();
            let names = assign(&tools);
            let distinct: HashSet<_> = names.iter().collect();
            proptest::prop_assert_eq!(distinct.len(), tools.len());
            for name in &names {
                proptest::prop_assert!((1..=64).contains(&name.len()) && clean(name) == *name, "{}", name);
            }
        }
    }

    fn tools_of_servers() -> impl Strategy<Value = HashSet<(Option<String>, String)>> {
        let server = proptest::option::of("[ab_]{1,3}");
        proptest::collection::hash_set((server, "([ab_.é]{0,4}|[ab]{60,70})"), 0..40)
    }

    #[test]
    fn a_long_name_is_cut_and_hashed() {
        let (long, other) = (
            format!("{}x", "é".repeat(80)),
            format!("{}y", "é".repeat(80)),
        );
        let names = assign(&[(Some("s"), &long), (Some("s"), &other), (Some("s"), "")]);
        assert_ne!(names[0], names[1]);
        assert_eq!((names[0].len(), names[1].len()), (64, 64));
        assert_eq!(names[2], "s__");
        assert!(names.iter().all(|name| clean(name) == *name), "{names:?}");
    }
}
