use std::sync::Arc;

use chat_worker::fault::{ErrorCode, Fault};
use chat_worker::tools::{RetryClass, Selection, ServerState, ToolsError};

use crate::harness::{Tools, calc, eventually, server};

fn names(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn tools_are_offered_in_the_order_of_their_names_and_once_for_all_jobs() {
    let mut plain = calc();
    plain.name = "default".to_owned();
    plain.prefixed = false;
    plain.deny = names(&["*e*"]);
    let mut prefixed = calc();
    prefixed.allow = names(&["a*"]);
    let tools = Tools::start([prefixed, plain]);
    let offer = tools.offer().await;
    let offered: Vec<_> = offer.specs().iter().map(|spec| &spec.name[..]).collect();
    assert_eq!(
        offered,
        [
            "add",
            "big",
            "calc__add",
            "calc__append",
            "fail",
            "multiply",
            "orphan",
            "pid"
        ]
    );
    assert!(
        Arc::ptr_eq(&offer, &tools.offer().await),
        "the offer was made twice"
    );

    let route = offer.find("calc__append").unwrap();
    assert_eq!(
        (route.server(), route.tool(), route.retry()),
        ("calc", "append", RetryClass::Tell)
    );
    assert_eq!(offer.find("add").unwrap().retry(), RetryClass::Safe);
    tools.end().await;
}

#[tokio::test]
async fn a_job_chooses_servers_and_tools_and_deny_wins() {
    let mut other = calc();
    other.name = "other".to_owned();
    let tools = Tools::start([calc(), other]);
    let (servers, allow, deny) = (
        names(&["other"]),
        names(&["*__a*", "*__pid"]),
        names(&["*append"]),
    );
    let selection = Selection {
        servers: Some(&servers),
        allow: &allow,
        deny: &deny,
    };
    let offer = tools.toolbox.offer(&selection).await.unwrap();
    let offered: Vec<_> = offer.specs().iter().map(|spec| &spec.name[..]).collect();
    assert_eq!(offered, ["other__add", "other__pid"]);
    tools.end().await;
}

#[tokio::test]
async fn an_unknown_server_and_an_unreadable_glob_are_the_jobs_mistakes() {
    let tools = Tools::start([calc()]);
    let servers = names(&["clac"]);
    let selection = Selection {
        servers: Some(&servers),
        ..Selection::default()
    };
    let error = tools.toolbox.offer(&selection).await.unwrap_err();
    assert_eq!(
        (error.code(), error.fault()),
        (ErrorCode::UnknownToolServer, Fault::Permanent)
    );
    assert!(error.to_string().contains("calc"), "{error}");

    let deny = names(&["[a"]);
    let selection = Selection {
        deny: &deny,
        ..Selection::default()
    };
    let error = tools.toolbox.offer(&selection).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidJob);
    tools.end().await;
}

#[tokio::test]
async fn a_server_that_is_down_is_left_out_unless_the_job_cannot_do_without_it() {
    let absent = server("absent", "/nonexistent/tool-server", &[]);
    let tools = Tools::start([absent.clone(), calc()]);
    let offer = tools.offer().await;
    assert_eq!(offer.missing(), ["absent"]);
    assert!(offer.find("calc__add").is_some());

    let named = names(&["absent"]);
    let selection = Selection {
        servers: Some(&named),
        ..Selection::default()
    };
    let error = tools.toolbox.offer(&selection).await.unwrap_err();
    assert_eq!(
        (error.code(), error.fault()),
        (ErrorCode::ToolsUnavailable, Fault::Retry { after: None })
    );
    let ToolsError::Unavailable { server, reason } = error else {
        panic!("another error");
    };
    assert!(
        server == "absent" && reason.contains("/nonexistent/tool-server"),
        "{server}: {reason}"
    );
    tools.end().await;

    let mut required = absent;
    required.required = true;
    let tools = Tools::start([required, calc()]);
    assert!(tools.toolbox.offer(&Selection::default()).await.is_err());
    // A job that does without it is not concerned.
    let named = names(&["calc"]);
    let selection = Selection {
        servers: Some(&named),
        ..Selection::default()
    };
    assert!(tools.toolbox.offer(&selection).await.is_ok());
    tools.end().await;
}

#[tokio::test]
async fn a_tool_that_a_server_learns_is_offered_to_the_next_job() {
    let tools = Tools::start([calc()]);
    let before = tools.offer().await;
    assert_eq!(
        tools
            .call("calc__learn", r#"{"name": "divide"}"#)
            .await
            .text,
        "learnt"
    );
    eventually("the new tool", async || {
        tools.offer().await.find("calc__divide").map(|_| ())
    })
    .await;
    assert!(
        before.find("calc__divide").is_none(),
        "a job's offer changed under it"
    );
    tools.end().await;
}

#[tokio::test]
async fn health_tells_how_each_server_does() {
    let tools = Tools::start([server("absent", "/nonexistent/tool-server", &[]), calc()]);
    tools.offer().await;
    let health = tools.toolbox.health();
    assert!(
        matches!(&health[0].state, ServerState::Down { reason, .. } if reason.contains("cannot be started"))
    );
    assert_eq!((health[0].processes, health[0].starts), (0, 0));
    assert_eq!(
        (&health[1].state, health[1].processes, health[1].starts),
        (&ServerState::Ready, 1, 1)
    );
    assert_eq!((health[1].tools, health[1].required), (15, false));
    tools.end().await;
}
