//! A tool server as a few lines of shell: for what no library would say.

use chat_worker::config::ServerConfig;

use crate::harness::server;

/// A server `shell` that does `list` when its tools are listed and `work` when one is called. Both
/// find the request in `$line`, its id in `$id` and the token of its progress in `$token`; `say`
/// answers with a result, `far` says how far the call is.
pub(crate) fn shell(list: &str, work: &str) -> ServerConfig {
    let script = format!(
        r#"
        say() {{ printf '{{"jsonrpc":"2.0","id":%s,"result":%s}}\n' "$id" "$1"; }}
        far() {{ printf '{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":%s,"progress":%s}}}}\n' "$token" "$1"; }}
        n=0
        while read -r line; do
            id=$(printf '%s' "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
            token=$(printf '%s' "$line" | sed 's/.*"progressToken":\([0-9]*\).*/\1/')
            case "$line" in
                *'"initialize"'*) say '{{"protocolVersion":"2025-11-25","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"shell","version":"1"}}}}' ;;
                *tools/list*) {list} ;;
                *tools/call*) {work} ;;
            esac
        done"#
    );
    server("shell", "sh", &["-c", &script])
}
