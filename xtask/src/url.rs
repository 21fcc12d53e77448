//! Where a `postgres://` or `amqp://` URL points to: host and port, or a Unix socket. Nothing else is read.

use std::path::PathBuf;

/// An address to connect to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Host and port.
    Tcp(String, u16),
    /// A socket in the file system.
    Socket(PathBuf),
}

/// The address in `url`, or `None` if it is no URL of `scheme` (or `scheme` + `s`, or `scheme` + `ql`).
pub(crate) fn address(url: &str, schemes: &[&str], default_port: u16) -> Option<Address> {
    let (scheme, rest) = url.split_once("://")?;
    if !schemes.contains(&scheme) {
        return None;
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next()?;
    let host_port = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let (host, port) = match host_port.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => host_port
            .split_once(':')
            .map_or((host_port, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None | Some("") => default_port,
        Some(text) => text.parse().ok()?,
    };
    let from_query = query.split('&').find_map(|pair| pair.strip_prefix("host="));
    let host = from_query
        .unwrap_or(host)
        .replace("%2F", "/")
        .replace("%2f", "/");
    if host.starts_with('/') {
        return Some(Address::Socket(
            PathBuf::from(host).join(format!(".s.PGSQL.{port}")),
        ));
    }
    Some(Address::Tcp(
        if host.is_empty() {
            "localhost".to_owned()
        } else {
            host
        },
        port,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Option<Address> {
        address(url, &["postgres", "postgresql"], 5432)
    }

    #[test]
    fn host_and_port_are_found_behind_any_password() {
        assert_eq!(
            of("postgres://u:p@ss:w@db.example:6543/x"),
            Some(Address::Tcp("db.example".into(), 6543))
        );
        assert_eq!(of("postgresql://db"), Some(Address::Tcp("db".into(), 5432)));
        assert_eq!(
            of("postgres://u@[::1]:7/x?sslmode=disable"),
            Some(Address::Tcp("::1".into(), 7))
        );
        assert_eq!(
            of("postgres:///x"),
            Some(Address::Tcp("localhost".into(), 5432))
        );
    }

    #[test]
    fn a_socket_directory_is_a_socket() {
        let socket = |port| Some(Address::Socket(format!("/run/pg/.s.PGSQL.{port}").into()));
        assert_eq!(of("postgres://u@localhost/x?host=/run/pg"), socket(5432));
        assert_eq!(of("postgres://u@%2Frun%2Fpg:6000/x"), socket(6000));
    }

    #[test]
    fn other_texts_are_no_address() {
        for url in [
            "",
            "db:5432",
            "mysql://db",
            "postgres://db:port/x",
            "amqp://db",
        ] {
            assert_eq!(of(url), None, "{url}");
        }
    }
}
