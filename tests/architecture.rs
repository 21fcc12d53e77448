//! The house: which rooms there are, who may import whom, which crate has which owner.
//!
//! Changing an arrow is a change of one line here, so that a reviewer sees it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::fs;
use std::path::{Path, PathBuf};

use chat_worker::crash::Act;
use syn::buffer::{Cursor, TokenBuffer};
use syn::visit::Visit;

/// The rooms from the top of the house to its cellar, each with the rooms that it may import.
const ROOMS: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("fault", &[]),
    ("clock", &[]),
    ("cost", &[]),
    ("chat", &["cost"]),
    ("escape", &[]),
    ("crash", &[]),
    ("meter", &[]),
    ("config", LEAVES),
    ("wire", LEAVES),
    (
        "conversation",
        &[
            "ids", "fault", "clock", "cost", "chat", "escape", "config", "wire",
        ],
    ),
    (
        "broker",
        &[
            "ids", "fault", "clock", "cost", "chat", "escape", "crash", "meter", "config",
        ],
    ),
    (
        "store",
        &[
            "ids",
            "fault",
            "clock",
            "cost",
            "chat",
            "escape",
            "crash",
            "config",
            "wire",
            "conversation",
        ],
    ),
    (
        "model",
        &[
            "ids", "fault", "clock", "cost", "chat", "escape", "crash", "meter", "config",
        ],
    ),
    (
        "tools",
        &[
            "ids", "fault", "clock", "cost", "chat", "escape", "crash", "meter", "config",
        ],
    ),
    (
        "runner",
        &[
            "ids",
            "fault",
            "clock",
            "cost",
            "chat",
            "escape",
            "meter",
            "config",
            "wire",
            "conversation",
            "store",
            "model",
            "tools",
        ],
    ),
    (
        "worker",
        &[
            "ids",
            "fault",
            "clock",
            "cost",
            "chat",
            "escape",
            "crash",
            "meter",
            "config",
            "wire",
            "conversation",
            "broker",
            "store",
            "model",
            "tools",
            "runner",
        ],
    ),
    ("telemetry", &["meter", "config"]),
    (
        "app",
        &[
            "ids",
            "fault",
            "clock",
            "cost",
            "chat",
            "escape",
            "config",
            "wire",
            "conversation",
            "broker",
            "store",
            "model",
            "tools",
            "runner",
            "worker",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "ids",
            "fault",
            "clock",
            "cost",
            "chat",
            "escape",
            "crash",
            "config",
            "wire",
            "conversation",
            "broker",
            "store",
            "model",
            "tools",
            "runner",
            "worker",
            "telemetry",
            "app",
        ],
    ),
    ("main", &["cli"]),
];

const LEAVES: &[&str] = &["ids", "fault", "clock", "cost", "chat", "escape"];
const ADAPTERS: &[&str] = &["broker", "store", "model", "tools"];

/// Crates that only some rooms may name; a room with `::` is a module.
const OWNERS: &[(&str, &[&str])] = &[
    ("lapin", &["broker"]),
    ("sqlx", &["store"]),
    ("async_openai", &["model"]),
    ("reqwest", &["model", "tools"]),
    ("tower", &["model"]),
    ("tiktoken_rs", &["model"]),
    ("rmcp", &["tools"]),
    ("sse_stream", &["tools"]),
    ("ring", &["tools"]),
    ("jsonschema", &["tools", "wire"]),
    ("anyhow", &["app", "cli", "main"]),
    ("axum", &["worker"]),
    ("clap", &["config", "cli", "main", "app"]),
    ("metrics", &["meter"]),
    ("metrics_exporter_prometheus", &["telemetry"]),
    ("indicatif", &["cli"]),
    ("console", &["cli"]),
    ("dotenvy", &["main", "cli", "app"]),
    ("fail", &["crash"]),
    ("tracing_subscriber", &["telemetry", "config::telemetry"]),
];

/// The most lines of production code in a file.
const MAX_LINES: usize = 400;

#[test]
fn every_import_goes_the_way_of_the_arrows() {
    assert_clean(&sources("src"), arrows);
}

#[test]
fn every_crate_is_named_by_its_owner_alone() {
    assert_clean(&sources("src"), owners);
}

#[test]
fn no_file_is_too_long() {
    assert_clean(&sources("src"), length);
}

#[test]
fn nothing_is_allowed_silently_or_left_to_do() {
    let everywhere: Vec<_> = ["src", "tests", "examples", "xtask/src"]
        .into_iter()
        .flat_map(sources)
        .collect();
    assert_clean(&everywhere, leftovers);
}

#[test]
fn every_room_says_what_it_is_for() {
    assert_clean(&sources("src"), introduction);
}

#[test]
fn the_rooms_are_those_of_the_crate() {
    let (_, lib) = source("src/lib.rs");
    let mut declared = modules(&lib);
    let mut listed: Vec<_> = ROOMS.iter().map(|(room, _)| (*room).to_owned()).collect();
    listed.retain(|room| room != "main");
    declared.sort();
    listed.sort();
    assert_eq!(
        declared, listed,
        "the modules of src/lib.rs and the rooms of this test"
    );
}

#[test]
fn the_arrows_point_up_and_adapters_do_not_know_each_other() {
    for (at, (room, arrows)) in ROOMS.iter().enumerate() {
        for target in *arrows {
            let above = ROOMS.iter().take(at).any(|(other, _)| other == target);
            assert!(
                above,
                "{room} may not import {target}, which is not above it"
            );
            let acquainted = ADAPTERS.contains(room) && ADAPTERS.contains(target);
            assert!(
                !acquainted,
                "the adapters {room} and {target} do not know each other"
            );
        }
    }
}

#[test]
fn both_sides_of_every_act_are_marked_where_it_is_done() {
    let code: String = sources("src").into_iter().map(|(_, text)| text).collect();
    // However the formatter breaks the lines.
    let code: String = code.split_whitespace().collect();
    for act in Act::ALL {
        for side in ["before", "after"] {
            let marks = [
                format!("crash::{side}(Act::{act:?})"),
                // Both of these mark both sides of what they are told.
                format!("commit(tx,Act::{act:?})"),
                format!("errand(Act::{act:?},"),
            ];
            let marked = marks.iter().any(|mark| code.contains(mark));
            assert!(marked, "nothing says {}", marks[0]);
        }
    }
}

#[test]
fn migrations_are_numbered_and_named() {
    let mut names: Vec<_> = fs::read_dir(root().join("migrations"))
        .expect("migrations")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    // A number may be left out: it was kept for a change that needed none in the end.
    let mut last = 0;
    for name in &names {
        let number = name.get(..4).and_then(|digits| digits.parse().ok());
        let number = number.unwrap_or_default();
        assert!(
            number > last && is_migration(name, number),
            "migrations/{name}: expected NNNN_some_name.sql, with a number of its own"
        );
        last = number;
    }
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let mut problems = Vec::new();
    for path in texts(&root()) {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        problems.extend(machine_paths(&shown(&path), &text));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// A file of the crate: its path and its text.
type Source = (String, String);

fn assert_clean(sources: &[Source], check: impl Fn(&str, &str) -> Vec<String>) {
    assert!(!sources.is_empty(), "there is nothing to check");
    let problems: Vec<_> = sources
        .iter()
        .flat_map(|(path, text)| check(path, text))
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn shown(path: &Path) -> String {
    let inside = path.strip_prefix(root()).unwrap_or(path);
    inside.to_string_lossy().replace('\\', "/")
}

fn source(path: &str) -> Source {
    (
        path.to_owned(),
        fs::read_to_string(root().join(path)).expect("a file of the crate"),
    )
}

/// Every Rust file under `directory`.
fn sources(directory: &str) -> Vec<Source> {
    let files = texts(&root().join(directory));
    let rust = files
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"));
    rust.map(|path| source(&shown(path))).collect()
}

/// Every file under `directory` that may be the project's own.
fn texts(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let foreign =
            ["target", ".git", ".sqlx", "node_modules", ".env", ".venv"].contains(&name.as_str());
        match path.is_dir() {
            _ if foreign => {}
            true => found.extend(texts(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// The module that a file is: `src/store/claim.rs` is `["store", "claim"]`.
fn module_of(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: Vec<_> = path.split('/').map(str::to_owned).collect();
    let last = module.pop().unwrap_or_default();
    match last.strip_suffix("_tests") {
        // `decode_tests.rs` is the module `tests` of `decode.rs`.
        Some(tested) => module.extend([tested.to_owned(), "tests".to_owned()]),
        None if last == "mod" || last == "lib" => {}
        None => module.push(last),
    }
    module
}

fn arrows(path: &str, text: &str) -> Vec<String> {
    let here = module_of(path);
    let room = here.first().map_or("lib", String::as_str);
    let allowed = ROOMS
        .iter()
        .find(|(name, _)| *name == room)
        .map_or(&[][..], |(_, arrows)| arrows);
    let mut problems = Vec::new();
    for named in Named::of(path, text).paths {
        let Some(target) = room_named(&named) else {
            continue;
        };
        if target != room && !allowed.contains(&target.as_str()) {
            problems.push(format!(
                "{path}: {room} may not import {target} ({})",
                named.text()
            ));
        }
    }
    problems.dedup();
    problems
}

/// The room that a path leads to, if it leads through the root of the crate.
fn room_named(named: &NamedPath) -> Option<String> {
    let mut module = named.module.clone();
    let mut segments = named.segments.iter();
    let first = segments.next()?;
    match first.as_str() {
        "crate" | "chat_worker" => return segments.next().cloned(),
        "super" => {
            module.pop();
        }
        _ => return None,
    }
    for segment in segments {
        if segment == "super" {
            module.pop();
        } else {
            return Some(module.first().unwrap_or(segment).clone());
        }
    }
    module.first().cloned()
}

fn owners(path: &str, text: &str) -> Vec<String> {
    let here = module_of(path).join("::");
    let mut problems = Vec::new();
    for named in Named::of(path, text).paths {
        let Some((name, owners)) = OWNERS
            .iter()
            .find(|(name, _)| named.segments.first().is_some_and(|first| first == name))
        else {
            continue;
        };
        let owned = owners
            .iter()
            .any(|owner| here == *owner || here.starts_with(&format!("{owner}::")));
        if !owned {
            problems.push(format!(
                "{path}: only {} may name {name} ({})",
                owners.join(", "),
                named.text()
            ));
        }
    }
    problems.dedup();
    problems
}

fn length(path: &str, text: &str) -> Vec<String> {
    if path.ends_with("_tests.rs") || path.ends_with("/tests.rs") || path.contains("/tests/") {
        return Vec::new();
    }
    let lines = production_lines(text);
    if lines <= MAX_LINES {
        return Vec::new();
    }
    vec![format!(
        "{path}: {lines} lines of production code; at most {MAX_LINES}: split it"
    )]
}

/// The lines of a formatted file that are not in a `#[cfg(test)]` module.
fn production_lines(text: &str) -> usize {
    let mut count = 0;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let opens = lines
            .peek()
            .is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'));
        if line == "#[cfg(test)]" && opens {
            // The formatter puts the closing brace of an outer item alone into the first column.
            lines.by_ref().find(|line| *line == "}");
        } else {
            count += 1;
        }
    }
    count
}

fn leftovers(path: &str, text: &str) -> Vec<String> {
    let named = Named::of(path, text);
    let mut problems = Vec::new();
    for name in &named.attributes {
        if name == "allow" {
            problems.push(format!(
                "{path}: #[allow]; write #[expect(…, reason = \"…\")]"
            ));
        }
    }
    for name in &named.macros {
        if name == "todo" || name == "unimplemented" {
            problems.push(format!("{path}: {name}!"));
        }
    }
    problems
}

fn introduction(path: &str, text: &str) -> Vec<String> {
    let room = path.ends_with("/mod.rs") || module_of(path).len() <= 1;
    if !room || text.starts_with("//!") {
        return Vec::new();
    }
    vec![format!(
        "{path}: expected `//!` at its head: what it is for"
    )]
}

fn is_migration(name: &str, number: usize) -> bool {
    let Some(rest) = name.strip_prefix(&format!("{number:04}_")) else {
        return false;
    };
    let Some(words) = rest.strip_suffix(".sql") else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !words.is_empty() && words.bytes().all(plain)
}

/// Paths that only one machine has: of checkouts and of homes.
fn machine_paths(path: &str, text: &str) -> Vec<String> {
    // Put together here, so that this file names none.
    let mut signs: Vec<_> = ["work", "root", "Users", "workspace", "workspaces"]
        .map(|name| format!("/{name}/"))
        .into();
    signs.push(format!("{}/wt/", "/tmp"));
    // Where the checkout is, unless it lies so high that its path may mean anything.
    let checkout = env!("CARGO_MANIFEST_DIR");
    signs.extend((checkout.matches('/').count() > 1).then(|| checkout.to_owned()));
    let mut problems = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        // A path begins where a word does: `https://host/work/…` is none.
        let begins = |at: usize| {
            line.get(..at).is_none_or(|before| {
                !before.ends_with(|c: char| c.is_alphanumeric() || "._-}/".contains(c))
            })
        };
        if let Some(sign) = signs
            .iter()
            .find(|sign| line.match_indices(sign.as_str()).any(|(at, _)| begins(at)))
        {
            problems.push(format!(
                "{path}:{number}: names a path of one machine ({sign})"
            ));
        }
    }
    problems
}

/// The modules that a file declares.
fn modules(text: &str) -> Vec<String> {
    let file = syn::parse_file(text).expect("Rust");
    let modules = file.items.iter().filter_map(|item| {
        if let syn::Item::Mod(module) = item {
            Some(module)
        } else {
            None
        }
    });
    modules.map(|module| module.ident.to_string()).collect()
}

/// A path as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NamedPath {
    /// The module that it stands in.
    module: Vec<String>,
    segments: Vec<String>,
}

impl NamedPath {
    fn text(&self) -> String {
        self.segments.join("::")
    }
}

/// What a file names: paths of two segments and more, attributes, macros.
#[derive(Default)]
struct Named {
    module: Vec<String>,
    paths: Vec<NamedPath>,
    attributes: Vec<String>,
    macros: Vec<String>,
}

impl Named {
    fn of(path: &str, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut named = Self {
            module: module_of(path),
            ..Self::default()
        };
        named.visit_file(&file);
        named
    }

    fn note(&mut self, segments: Vec<String>) {
        let module = self.module.clone();
        self.paths.push(NamedPath { module, segments });
    }

    fn use_tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.use_tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) => self.note(with(&name.ident)),
            syn::UseTree::Rename(name) => self.note(with(&name.ident)),
            syn::UseTree::Glob(_) => self.note(before.to_vec()),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(tree, before);
                }
            }
        }
    }

    /// Paths and macros in tokens that no parser knows: those of macros and attributes.
    fn tokens(&mut self, mut cursor: Cursor<'_>) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        while !cursor.eof() {
            if let Some((inside, _, _, next)) = cursor.any_group() {
                self.tokens(inside);
                cursor = next;
            } else if let Some((ident, next)) = cursor.ident() {
                if colons != 2 {
                    self.end_of_path(&mut path);
                }
                path.push(ident.to_string());
                (cursor, colons) = (next, 0);
                continue;
            } else if let Some((punct, next)) = cursor.punct() {
                cursor = next;
                match punct.as_char() {
                    ':' => {
                        colons += 1;
                        continue;
                    }
                    '!' => self.macros.extend(path.last().cloned()),
                    _ => {}
                }
            } else if let Some((_, next)) = cursor.token_tree() {
                cursor = next;
            }
            colons = 0;
            self.end_of_path(&mut path);
        }
        self.end_of_path(&mut path);
    }

    fn end_of_path(&mut self, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.note(path);
        }
    }
}

impl<'ast> Visit<'ast> for Named {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, &[]);
        syn::visit::visit_item_use(self, item);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.note(vec![item.ident.to_string()]);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if segments.len() > 1 {
            self.note(segments);
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(in crate::x)` opens a door and imports nothing.
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        self.attributes.extend(
            attribute
                .path()
                .segments
                .last()
                .map(|last| last.ident.to_string()),
        );
        syn::visit::visit_attribute(self, attribute);
        if let syn::Meta::List(list) = &attribute.meta {
            if attribute.path().is_ident("cfg_attr") && list.tokens.to_string().contains("allow (")
            {
                self.attributes.push("allow".to_owned());
            }
            self.tokens(TokenBuffer::new2(list.tokens.clone()).begin());
        }
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.macros
            .extend(item.path.segments.last().map(|last| last.ident.to_string()));
        self.visit_path(&item.path);
        self.tokens(TokenBuffer::new2(item.tokens.clone()).begin());
    }
}

/// The checks themselves: each is shown to fail on what it is there for.
mod the_checks {
    use super::*;

    #[test]
    fn an_arrow_that_is_not_allowed_is_seen_however_it_is_written() {
        for code in [
            "use crate::store::Store;",
            "use crate::{fault::Fault, store};",
            "use crate::store as memory;",
            "use super::super::store::Store;",
            "use super::{super::store::Store, intake};",
            "fn f() -> crate::store::Store { todo() }",
            "fn f() { let _ = crate::store::Store::connect; }",
            "fn f() { tokio::select! { _ = crate::store::connect() => {} } }",
            "fn f() { assert!(vec![crate::store::one()].is_empty()); }",
            "mod inner { use super::super::super::store::Store; }",
            "#[derive(crate::store::Derived)] struct S;",
            "impl crate::store::Trait for S {}",
        ] {
            let problems = arrows("src/broker/link.rs", code);
            assert_eq!(problems.len(), 1, "{code}: {problems:?}");
            assert!(
                problems
                    .iter()
                    .all(|text| text.contains("broker may not import store")),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn an_arrow_that_is_allowed_is_not_complained_about() {
        for code in [
            "use crate::fault::Fault; use crate::config::{BrokerConfig, Secret};",
            "use super::names::Names; use crate::broker::Delivery;",
            "mod tests { use super::*; use super::super::Broker; }",
            "pub(in crate::broker) fn f() {}",
            "/// [`crate::store::Store`] does that.\nfn f() { let text = \"crate::store::Store\"; }",
        ] {
            assert_eq!(
                arrows("src/broker/link.rs", code),
                Vec::<String>::new(),
                "{code}"
            );
        }
        let beside = "use super::super::Job; use super::decode;";
        assert_eq!(
            arrows("src/wire/decode_tests.rs", beside),
            Vec::<String>::new()
        );
        assert_eq!(
            arrows("src/main.rs", "fn main() { chat_worker::cli::main() }"),
            Vec::<String>::new()
        );
        assert_eq!(
            arrows("src/main.rs", "fn main() { chat_worker::app::run() }").len(),
            1
        );
        assert_eq!(arrows("src/lib.rs", "use crate::store::Store;").len(), 1);
        assert_eq!(arrows("src/ids.rs", "use crate::fault::Fault;").len(), 1);
    }

    #[test]
    fn a_crate_is_seen_outside_its_owner() {
        for (path, code) in [
            ("src/worker/intake.rs", "use lapin::Channel;"),
            ("src/worker/intake.rs", "use ::lapin as rabbit;"),
            ("src/worker/intake.rs", "extern crate lapin;"),
            (
                "src/runner/run.rs",
                "fn f() { sqlx::query!(\"SELECT 1\"); }",
            ),
            ("src/runner/run.rs", "fn f(pool: &sqlx::PgPool) {}"),
            (
                "src/store/mod.rs",
                "fn f() -> anyhow::Result<()> { Ok(()) }",
            ),
            ("src/config/jobs.rs", "use tracing_subscriber::EnvFilter;"),
            (
                "src/tools/call.rs",
                "#[derive(clap::Args)] struct Arguments;",
            ),
            (
                "src/worker/http.rs",
                "fn f() { tokio::join!(reqwest::get(url)); }",
            ),
        ] {
            assert_eq!(owners(path, code).len(), 1, "{path}: {code}");
        }
        for (path, code) in [
            ("src/broker/link.rs", "use lapin::Channel;"),
            (
                "src/config/telemetry.rs",
                "use tracing_subscriber::EnvFilter;",
            ),
            ("src/main.rs", "fn f() { dotenvy::dotenv(); }"),
            (
                "src/worker/http.rs",
                "use axum::http::StatusCode; fn f(tower: u8) -> u8 { tower }",
            ),
        ] {
            assert_eq!(owners(path, code), Vec::<String>::new(), "{path}: {code}");
        }
    }

    #[test]
    fn only_production_code_makes_a_file_long() {
        let line = "fn f() {}\n";
        let tests = format!(
            "#[cfg(test)]\nmod tests {{\n{}}}\n",
            "    fn t() {}\n".repeat(500)
        );
        let full = line.repeat(MAX_LINES);
        assert_eq!(
            length("src/store/a.rs", &format!("{full}{tests}")),
            Vec::<String>::new()
        );
        assert_eq!(
            length("src/store/a.rs", &format!("{full}{tests}{line}")).len(),
            1
        );
        assert_eq!(
            length("src/store/a_tests.rs", &full.repeat(2)),
            Vec::<String>::new()
        );
        assert_eq!(
            production_lines("#[cfg(test)]\n#[path = \"a_tests.rs\"]\nmod tests;\n"),
            3
        );
    }

    #[test]
    fn leftovers_are_seen() {
        for code in [
            "#![allow(dead_code)]",
            "#[allow(clippy::all, reason = \"x\")] fn f() {}",
            "fn f() { #[allow(unused)] let x = 1; }",
            "#[cfg_attr(test, allow(dead_code))] fn f() {}",
            "fn f() { todo!() }",
            "fn f() { tokio::select! { _ = g() => { unimplemented!(\"later\") } } }",
        ] {
            assert_eq!(leftovers("src/a.rs", code).len(), 1, "{code}");
        }
        let fine =
            "#[expect(dead_code, reason = \"x\")] fn allow() { let todo = allow!(); if !todo {} }";
        assert_eq!(leftovers("src/a.rs", fine), Vec::<String>::new());
    }

    #[test]
    fn a_room_without_introduction_is_seen() {
        assert_eq!(introduction("src/store/mod.rs", "mod claim;").len(), 1);
        assert_eq!(introduction("src/ids.rs", "use std::fmt;").len(), 1);
        assert_eq!(
            introduction("src/store/mod.rs", "//! The record."),
            Vec::<String>::new()
        );
        assert_eq!(
            introduction("src/store/claim.rs", "use std::fmt;"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn names_of_migrations() {
        assert!(is_migration("0001_schema.sql", 1));
        for bad in [
            "0002_schema.sql",
            "1_schema.sql",
            "0001_Schema.sql",
            "0001_.sql",
            "0001_schema.up.sql",
            "0001-schema.sql",
        ] {
            assert!(!is_migration(bad, 1), "{bad}");
        }
    }

    #[test]
    fn a_path_of_one_machine_is_seen() {
        let home = format!("see {}/project/notes.md", "/root");
        assert_eq!(machine_paths("README.md", &home).len(), 1);
        for fine in [
            "https://host.example/work/a",
            "target/work/a",
            "the root / of it",
            "${HOME}/root/x",
            "/var/cache/x",
        ] {
            assert_eq!(
                machine_paths("README.md", fine),
                Vec::<String>::new(),
                "{fine}"
            );
        }
    }
}
