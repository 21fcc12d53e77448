use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{Lookup, Secret};
use super::{
    Elicitation, Isolation, OnInterrupt, PoolConfig, Protocol, ProtocolEra, ServerConfig, Transport,
};

/// What every child gets beside its own variables: enough to find programs and to print, and no
/// secret. TMPDIR is the child's own directory, the others are as in this process's environment.
pub const INHERITED: [&str; 5] = ["PATH", "HOME", "LANG", "TMPDIR", "TERM"];

const TIMEOUT: Duration = Duration::from_mins(1);
/// How many times as long a call may take all in all as it may go without progress.
pub(super) const MAX_TIMEOUTS: u32 = 10;
/// What a picture of a screen takes, several times over.
const MEDIA_BYTES: usize = 10 * 1024 * 1024;

/// What holds where a server does not say.
pub(super) struct Defaults {
    pub(super) isolation: Isolation,
    pub(super) max_result_bytes: usize,
    pub(super) env: BTreeMap<String, Secret>,
}

impl Defaults {
    /// A server with nothing but its name and how it is reached.
    pub(super) fn server(&self, name: &str, transport: Transport) -> ServerConfig {
        ServerConfig {
            name: name.to_owned(),
            prefixed: true,
            transport,
            protocol: Protocol::Mcp,
            era: ProtocolEra::Auto,
            elicitation: Elicitation::Decline,
            pool: PoolConfig {
                size: 4,
                isolation: self.isolation,
                max_calls: None,
                max_age: None,
            },
            timeout: TIMEOUT,
            max_timeout: TIMEOUT * MAX_TIMEOUTS,
            start_timeout: Duration::from_secs(30),
            required: false,
            max_result_bytes: self.max_result_bytes,
            max_media_bytes: MEDIA_BYTES,
            allow: Vec::new(),
            deny: Vec::new(),
            approval: Vec::new(),
            on_interrupt: OnInterrupt::Tell,
        }
    }
}

/// What every child gets of this process's environment.
pub(super) fn inherited(lookup: Lookup<'_>) -> BTreeMap<String, Secret> {
    INHERITED
        .into_iter()
        .filter(|name| *name != "TMPDIR")
        .filter_map(|name| Some((name.to_owned(), Secret::new(lookup(name)?))))
        .collect()
}
