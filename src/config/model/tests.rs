use std::time::Duration;

use super::*;
use crate::chat::ReasoningEffort;

fn defaults() -> ModelProfile {
    let key = Some(Secret::new("sk-default"));
    let provider = ProviderConfig {
        organization: Some("org-1".to_owned()),
        headers: vec![("x-team".to_owned(), Secret::new("7"))],
        ..ProviderConfig::new("http://127.0.0.1:1/v1", key)
    };
    ModelProfile {
        api: Api::Chat,
        ..ModelProfile::at(provider)
    }
}

fn environment(name: &str) -> Option<String> {
    match name {
        "GROQ_KEY" => Some("gsk-0123\n".to_owned()),
        "BAD_KEY" => Some("s3cret é".to_owned()),
        "EMPTY_KEY" => Some(String::new()),
        "TITLE" => Some("Chat".to_owned()),
        _ => None,
    }
}

fn read(text: &str) -> Result<ModelConfig, Problems> {
    let config = ModelConfig::new("gpt-4o-mini", defaults(), Duration::from_secs(1));
    config.with_file(text, &environment)
}

fn problems(text: &str) -> Vec<String> {
    read(text).unwrap_err().list().to_vec()
}

#[test]
fn a_table_says_all_that_is_particular_to_a_model() {
    let config = read(
        r#"
        [models."gpt-5.5"]
        base_url = "https://api.groq.example/openai/v1/"
        api_key_env = "GROQ_KEY"
        api = "responses"
        name = "gpt-5.5-2026-01-01"
        headers = { "X-Title" = "${TITLE} worker" }
        organization = "org-2"
        project = "p"
        context_window = 400_000
        max_output_tokens = 8_000
        price = { input = 1.25, cached_input = 0.125, output = 10 }
        max_tokens_field = "max_completion_tokens"
        drop = ["seed", "parallel_tool_calls"]
        reasoning_effort = "none"
        images = false
        fallbacks = ["gpt-4o", "llama"]
        requests_per_minute = 500
        tokens_per_minute = 60_000
        "#,
    )
    .unwrap();
    let profile = config.profile("gpt-5.5");
    let provider = &profile.provider;
    assert_eq!(provider.base_url, "https://api.groq.example/openai/v1");
    assert_eq!(provider.api_key, Some(Secret::new("gsk-0123")));
    assert_eq!(provider.key_variable, "GROQ_KEY");
    let title = ("x-title".to_owned(), Secret::new("Chat worker"));
    assert_eq!(provider.headers, [title]);
    assert_eq!(provider.organization.as_deref(), Some("org-2"));
    assert_eq!(provider.project.as_deref(), Some("p"));
    assert_eq!(profile.api, Api::Responses);
    assert_eq!(profile.name.as_deref(), Some("gpt-5.5-2026-01-01"));
    assert_eq!(profile.context_window, Some(400_000));
    assert_eq!(profile.max_output_tokens, Some(8_000));
    let price = crate::cost::Price {
        input: 1.25,
        cached_input: 0.125,
        output: 10.0,
    };
    assert_eq!(profile.price, Some(price));
    let field = Some(MaxTokensField::MaxCompletionTokens);
    assert_eq!(profile.max_tokens_field, field);
    let drop = [ModelOption::Seed, ModelOption::ParallelToolCalls];
    assert_eq!(profile.drop, drop);
    assert_eq!(profile.reasoning_effort, Some(ReasoningEffort::None));
    assert!(!profile.images);
    assert_eq!(profile.fallbacks, ["gpt-4o", "llama"]);
    assert_eq!(profile.requests_per_minute, Some(500));
    assert_eq!(profile.tokens_per_minute, Some(60_000));
    let names: Vec<_> = config.names().into_iter().collect();
    assert_eq!(names, ["gpt-4o", "gpt-4o-mini", "gpt-5.5", "llama"]);
}

#[test]
fn what_a_table_does_not_say_holds_as_for_every_model() {
    let config = read("[models.a]\nproject = \"p\"\n[models.b.headers]\nx-team = \"8\"").unwrap();
    let profile = config.profile("a");
    assert_eq!(profile.api, Api::Chat);
    assert!(profile.images);
    assert_eq!(profile.provider.api_key, Some(Secret::new("sk-default")));
    assert_eq!(profile.provider.organization.as_deref(), Some("org-1"));
    assert_eq!(profile.provider.project.as_deref(), Some("p"));
    let header = ("x-team".to_owned(), Secret::new("8"));
    assert_eq!(config.profile("b").provider.headers, [header]);
    assert_eq!(config.profile("c"), &config.defaults);
}

#[test]
fn a_server_of_its_own_gets_no_key_that_was_meant_for_another() {
    let config = read("[models.a]\nbase_url = \"http://127.0.0.1:2\"").unwrap();
    let provider = &config.profile("a").provider;
    assert_eq!(provider.api_key, None);
    assert_eq!(provider.organization, None);
    assert_eq!(provider.headers, []);
}

#[test]
fn a_model_goes_by_its_own_name_then_by_the_longest_glob_that_fits() {
    let config = read(
        r#"
        [models."gpt-*"]
        context_window = 1
        [models."gpt-5*"]
        context_window = 2
        [models."gpt-5.5"]
        context_window = 3
        [models."*-mini"]
        context_window = 4
        "#,
    )
    .unwrap();
    for (model, window) in [
        ("gpt-4o", Some(1)),
        ("gpt-5.6", Some(2)),
        ("gpt-5.5", Some(3)),
        ("gpt-5-mini", Some(4)),
        ("llama", None),
    ] {
        assert_eq!(config.profile(model).context_window, window, "{model}");
    }
}

#[test]
fn every_problem_is_named_with_its_place_and_no_secret() {
    let found = problems(
        r#"
        temperature = 1
        [models.a]
        base_url = "ftp://x"
        api_key_env = "NO_KEY"
        api = "completions"
        headers = { "X-Title" = "${NOTHING}", "content-length" = "s3cret", "a b" = "s3cret", "x" = 1 }
        organization = "a b"
        context_window = 0
        max_output_tokens = "many"
        price = { input = -1, ouput = 2 }
        max_tokens_field = "tokens"
        drop = ["seed", "tempo"]
        reasoning_effort = "some"
        images = "yes"
        fallbacks = ["a", "", "b", "b"]
        requests_per_minute = 1.5
        tokens_per_minute = -1
        windows = 1
        azure = { deployment = "d", version = "v" }
        [models.b]
        api_key_env = "BAD_KEY"
        [models.c]
        api_key_env = "EMPTY_KEY"
        [models."[x"]
        [models.d]
        base_url = "https://api.openai.com/v1"
        [models.e]
        base_url = "https://res.openai.azure.com"
        [models.f]
        base_url = "https://llm.example.com/v1/chat/completions/"
        [models.g]
        base_url = "https://res.openai.azure.com/openai/deployments/d"
        azure = { api_version = "v" }
        "#,
    );
    for place in [
        "/temperature: unknown field",
        "/models/a/base_url: expected a URL",
        "/models/f/base_url: must be the address below which the API is",
        "/models/g/azure: an Azure address must be the resource's own",
        "/models/a/api_key_env: the environment has no variable \"NO_KEY\"",
        "/models/a/api: expected one of auto, chat, responses",
        "/models/a/headers/X-Title: the environment has no variable",
        "/models/a/headers/content-length: this header",
        "/models/a/headers/a b: expected the name",
        "/models/a/headers/x: expected a text",
        "/models/a/organization: expected letters",
        "/models/a/context_window: expected a whole number from 1",
        "/models/a/max_output_tokens: expected a whole number",
        "/models/a/price/input: expected a number, 0 or more",
        "/models/a/price/output: missing",
        "/models/a/price/ouput: unknown field",
        "/models/a/max_tokens_field: expected one of max_tokens, max_completion_tokens",
        "/models/a/drop/1: expected one of temperature",
        "/models/a/reasoning_effort: expected one of none",
        "/models/a/images: expected true or false",
        "/models/a/fallbacks/0: \"a\" is asked already",
        "/models/a/fallbacks/1: expected the name of a model",
        "/models/a/fallbacks/3: \"b\" is asked already",
        "/models/a/requests_per_minute: expected a whole number",
        "/models/a/tokens_per_minute: expected a whole number",
        "/models/a/windows: unknown field",
        "/models/a/azure/version: unknown field",
        "/models/b/api_key_env: the variable \"BAD_KEY\" has characters",
        "/models/c/api_key_env: the variable \"EMPTY_KEY\" is empty",
        "/models/[x: ",
        "/models/d/api_key_env: expected the variable",
        "/models/e/azure: an Azure resource's own address needs an api_version",
    ] {
        let many = (found.iter())
            .filter(|problem| problem.starts_with(&format!("CHAT_MODEL_CONFIG: {place}")))
            .count();
        assert_eq!(many, 1, "{place}: {found:#?}");
    }
    // What was said of azure counts for the server that was wrong too.
    assert!(found.len() <= 33, "{found:#?}");
    assert!(!found.join("\n").contains("s3cret"), "{found:#?}");
}

#[test]
fn a_file_that_is_no_toml_is_told_by_its_line_alone() {
    let [problem] = &problems("[models.a]\nheaders = { x = \"s3cret }\n")[..] else {
        panic!("one problem");
    };
    assert!(
        problem.starts_with("CHAT_MODEL_CONFIG: line 2 is no TOML"),
        "{problem}"
    );
    assert!(!problem.contains("s3cret"), "{problem}");
    assert_eq!(problems("models = 1").len(), 1);
    assert_eq!(problems("").len(), 1);
}

#[test]
fn azure_is_known_by_its_hosts_and_by_what_is_said() {
    let config = read(
        r#"
        [models.v1]
        base_url = "https://res.openai.azure.com/openai/v1"
        [models.legacy]
        base_url = "https://res.openai.azure.com"
        azure = { api_version = "2024-10-21", deployment = "d" }
        [models.proxy]
        base_url = "http://127.0.0.1:3"
        azure = { api_version = "2024-10-21" }
        "#,
    )
    .unwrap();
    let azure = |model: &str| config.profile(model).provider.azure.clone();
    assert_eq!(azure("v1"), Some(Azure::default()));
    let version = Some("2024-10-21".to_owned());
    let deployment = Some("d".to_owned());
    let legacy = Azure {
        api_version: version.clone(),
        deployment,
    };
    assert_eq!(azure("legacy"), Some(legacy));
    let proxy = Azure {
        api_version: version,
        deployment: None,
    };
    assert_eq!(azure("proxy"), Some(proxy));
    assert_eq!(config.defaults.provider.azure, None);
}
