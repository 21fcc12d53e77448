use std::io::Write as _;

use super::*;

fn settings(path: Option<&str>, file: Option<&str>) -> ToolsSettings {
    ToolsSettings {
        mcp_server_path: path.map(str::to_owned),
        mcp_config: file.map(str::to_owned),
        chat_pool_isolation: "call".to_owned(),
        chat_max_tool_result_bytes: "1048576".to_owned(),
        chat_tool_result_model_bytes: "65536".to_owned(),
    }
}

fn environment(name: &str) -> Option<String> {
    let known = [
        ("PATH", "/bin"),
        ("CALC_KEY", "s3cret"),
        ("OPENAI_API_KEY", "sk-1"),
    ];
    let found = known.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| (*value).to_owned())
}

fn parse(settings: &ToolsSettings) -> Result<ToolsConfig, Problems> {
    let mut problems = Problems::default();
    let config = settings.parse(&environment, &mut problems);
    problems.none_or(|| config)
}

fn parse_file(json: &str) -> Result<ToolsConfig, Problems> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json.as_bytes()).unwrap();
    parse(&settings(None, file.path().to_str()))
}

fn exposed(server: &ServerConfig) -> (String, Vec<String>, Vec<(String, String)>) {
    let Transport::Stdio(StdioConfig {
        command, args, env, ..
    }) = &server.transport
    else {
        panic!("no child: {server:?}")
    };
    let env = env
        .iter()
        .map(|(name, value)| (name.clone(), value.expose().to_owned()));
    (command.clone(), args.clone(), env.collect())
}

#[test]
fn no_server_at_all_is_allowed() {
    assert!(
        parse(&settings(None, Some(" ")))
            .unwrap()
            .servers
            .is_empty()
    );
}

#[test]
fn the_server_of_the_path_is_called_default_and_sees_no_secret() {
    let config = parse(&settings(Some("/opt/calc 'two words'"), None)).unwrap();
    let server = &config.servers[0];
    assert_eq!((server.name.as_str(), server.prefixed), ("default", false));
    let (command, args, env) = exposed(server);
    assert_eq!(
        (command.as_str(), args),
        ("/opt/calc", vec!["two words".to_owned()])
    );
    assert_eq!(env, [("PATH".to_owned(), "/bin".to_owned())]);
}

#[test]
fn a_server_of_the_file_has_all_its_additions() {
    let config = parse_file(
        r#"{"mcpServers": {
            "off": {"command": "x", "disabled": true},
            "calc": {"type": "stdio", "command": "calc", "args": ["--key", "${CALC_KEY}"],
                "env": {"KEY": "k-${CALC_KEY}"}, "cwd": "/tmp", "protocol": "line",
                "pool": {"size": 2, "isolation": "user", "max_calls": 10, "max_age_secs": 60},
                "timeout_secs": 5, "max_timeout_secs": 9, "max_media_bytes": 0, "start_timeout_secs": 6, "required": true,
                "max_result_bytes": 1000, "allow": ["a*"], "deny": ["ab"], "on_interrupt": "retry"}}}"#,
    )
    .unwrap();
    assert_eq!(config.servers.len(), 1);
    let server = &config.servers[0];
    let (command, args, env) = exposed(server);
    assert_eq!((command.as_str(), args[1].as_str()), ("calc", "s3cret"));
    assert_eq!(env[0], ("KEY".to_owned(), "k-s3cret".to_owned()));
    assert!(server.prefixed && server.required);
    assert_eq!(server.protocol, Protocol::Line);
    assert_eq!((server.pool.size, server.pool.max_calls), (2, Some(10)));
    assert_eq!(server.pool.isolation, Isolation::User);
    assert_eq!(server.pool.max_age, Some(Duration::from_mins(1)));
    assert_eq!(
        (server.timeout.as_secs(), server.start_timeout.as_secs()),
        (5, 6)
    );
    assert_eq!(
        (server.max_timeout.as_secs(), server.max_media_bytes),
        (9, 0)
    );
    assert_eq!(
        (server.max_result_bytes, server.on_interrupt),
        (1000, OnInterrupt::Retry)
    );
    assert_eq!(
        (&server.allow[..], &server.deny[..]),
        (&["a*".to_owned()][..], &["ab".to_owned()][..])
    );
    assert!(
        !format!("{config:?}").contains("k-s3cret"),
        "the value of env is shown"
    );
}

#[test]
fn a_server_elsewhere_has_an_address_and_headers_that_are_not_shown() {
    let config = parse_file(
        r#"{"mcpServers": {
            "a": {"url": "https://example.org/mcp?key=${CALC_KEY}", "headers": {"Authorization": "Bearer ${CALC_KEY}"}},
            "b": {"type": "streamable-http", "url": "http://127.0.0.1:1/mcp", "headers": {"X-Key": "k"}, "pool": {"isolation": "call"}},
            "c": {"type": "http", "httpUrl": "http://example.org/mcp", "headers": {"X-Key": "k"}}}}"#,
    )
    .unwrap();
    let [a, b, c] = &config.servers[..] else {
        panic!("{config:?}")
    };
    let http = |server: &ServerConfig| match &server.transport {
        Transport::Http(http) => http.clone(),
        Transport::Stdio(_) => panic!("a child: {server:?}"),
    };
    assert_eq!(http(a).url.expose(), "https://example.org/mcp?key=s3cret");
    assert_eq!(http(a).shown, "https://example.org/mcp");
    let (name, value) = &http(a).headers[0];
    assert_eq!(
        (name.as_str(), value.expose()),
        ("authorization", "Bearer s3cret")
    );
    assert_eq!(b.pool.isolation, Isolation::Shared);
    let clear = [a, b, c].map(|server| http(server).tells_secrets_in_clear());
    assert_eq!(clear, [false, false, true]);
    assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
}

#[test]
fn a_client_of_an_authorization_server_has_a_secret_or_a_key() {
    let config = parse_file(
        r#"{"mcpServers": {
            "key": {"url": "https://a/mcp", "protocol_era": "modern", "elicitation": "defaults",
                "oauth": {"client_id": "w", "private_key": "pem-${CALC_KEY}", "signing_algorithm": "RS256",
                    "issuer": "https://sso", "audience": "x"}},
            "secret": {"url": "https://a/mcp",
                "oauth": {"client_id": "w", "client_secret": "${CALC_KEY}", "scope": "a b",
                    "token_endpoint": "https://sso/token", "token_endpoint_auth_method": "client_secret_post"}}}}"#,
    )
    .unwrap();
    let [key, secret] = &config.servers[..] else {
        panic!("{config:?}")
    };
    let oauth = |server: &ServerConfig| match &server.transport {
        Transport::Http(http) => http.oauth.clone().unwrap(),
        Transport::Stdio(_) => panic!("a child: {server:?}"),
    };
    let ClientKey::Private(private) = oauth(key).key else {
        panic!("no key: {key:?}")
    };
    assert_eq!(
        (private.pem.expose(), private.algorithm),
        ("pem-s3cret", SigningAlgorithm::Rs256)
    );
    assert_eq!(
        (key.era, key.elicitation),
        (ProtocolEra::Modern, Elicitation::Defaults)
    );
    assert!(oauth(key).names_its_server() && oauth(secret).names_its_server());
    assert_eq!(oauth(secret).key, ClientKey::Secret(Secret::new("s3cret")));
    assert_eq!(oauth(secret).method, Some(AuthMethod::ClientSecretPost));
    assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");

    let problems = parse_file(
        r#"{"mcpServers": {
            "none": {"url": "https://a/mcp", "oauth": {"client_id": ""}},
            "both": {"url": "https://a/mcp", "headers": {"Authorization": "x"},
                "oauth": {"client_id": "w", "client_secret": "s", "token_endpoint_auth_method": "private_key_jwt"}},
            "file": {"url": "https://a/mcp", "oauth": {"client_id": "w", "private_key_file": "/nonexistent", "issuer": "sso", "x": 1}},
            "child": {"command": "x", "oauth": {}}}}"#,
    )
    .unwrap_err();
    let text = problems.to_string();
    for expected in [
        "/mcpServers/none/oauth/client_id: expected what",
        "/mcpServers/none/oauth/client_secret: expected either this or",
        "/mcpServers/both/oauth: stands beside a header",
        "/mcpServers/both/oauth/token_endpoint_auth_method: expected private_key_jwt with",
        "/mcpServers/file/oauth/private_key_file: cannot read",
        "/mcpServers/file/oauth/issuer: expected an address",
        "/mcpServers/file/oauth/x: unknown field",
        "/mcpServers/child/oauth: unknown field",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn every_problem_of_the_file_is_named_by_its_pointer_in_one_go() {
    let problems = parse_file(
        r#"{"extra": 1, "mcpServers": {
            "a b": {"command": "x"},
            "calc": {"command": "x", "colour": 1, "pool": {"size": 0, "kind": 2, "isolation": "jobs"},
                "env": {"K": "${NOPE} ${CALC_KEY}", "N": 1}, "timeout_secs": "5", "allow": ["[a"], "on_interrupt": "no"},
            "calc": {"command": "y"},
            "slow": {"command": "x", "timeout_secs": 5, "max_timeout_secs": 4},
            "web": {"url": "https://example.org/mcp", "approval": ["*", 1], "args": [], "protocol": "line",
                "headers": {"Mcp-Session-Id": "1", "X-Key": "${NOPE}"}},
            "sse": {"type": "sse", "url": "https://example.org/sse"},
            "bad": {"command": "x", "approval": ["*", "[x"]},
            "both": {"url": "https://example.org/mcp", "command": "x"},
            "ftp": {"url": "ftp://example.org/mcp"},
            "none": {"type": "http"}}}"#,
    )
    .unwrap_err();
    let text = problems.to_string();
    for expected in [
        "/extra: unknown field",
        "/mcpServers/a b: expected a name",
        "/mcpServers/calc/colour: unknown field",
        "/mcpServers/calc/pool/size: expected a whole number from 1 to 1000",
        "/mcpServers/calc/pool/kind: unknown field",
        "/mcpServers/calc/pool/isolation: expected one of call, shared, job, user",
        "K: the environment has no variable \"NOPE\"",
        "N: expected a text",
        "/mcpServers/calc/timeout_secs: expected a whole number",
        "/mcpServers/slow/max_timeout_secs: expected at least the 5 of timeout_secs",
        "/mcpServers/calc/on_interrupt: expected one of retry, tell, fail",
        "/mcpServers/calc: a server of this name stands there already",
        "/mcpServers/web/approval: expected a list of texts",
        "/mcpServers/bad/approval/1: ",
        "/mcpServers/web/headers/Mcp-Session-Id: the protocol itself sets this header",
        "/mcpServers/web/headers/X-Key: the environment has no variable",
        "/mcpServers/web/args: belongs to a `command`",
        "/mcpServers/web/protocol: lines are spoken with a `command` only",
        "/mcpServers/sse/type: HTTP+SSE was replaced by Streamable HTTP",
        "/mcpServers/both/command: stands beside a `url`",
        "/mcpServers/ftp/url: expected an address that begins with https://",
        "/mcpServers/none/url: expected an address such as",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn a_server_named_default_clashes_with_the_path() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(br#"{"mcpServers": {"default": {"command": "x"}}}"#)
        .unwrap();
    let path = file.path().to_str();
    assert!(parse(&settings(None, path)).is_ok());
    let problems = parse(&settings(Some("calc"), path)).unwrap_err();
    assert!(
        problems.list()[0].contains("/mcpServers/default"),
        "{problems}"
    );
}

#[test]
fn a_missing_file_and_bad_settings_are_all_named() {
    let mut settings = settings(Some("calc 'open"), Some("/nonexistent/servers.json"));
    settings.chat_pool_isolation = "users".to_owned();
    settings.chat_max_tool_result_bytes = "1".to_owned();
    let text = parse(&settings).unwrap_err().to_string();
    for setting in [
        "MCP_SERVER_PATH",
        "MCP_CONFIG",
        "CHAT_POOL_ISOLATION",
        "CHAT_MAX_TOOL_RESULT_BYTES",
    ] {
        assert!(text.contains(setting), "{setting} is not in\n{text}");
    }
}
