//! Services that somebody else runs: they must answer, and are never started, stopped or replaced.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::failure::Failure;
use crate::url::{self, Address};
use crate::{amqp, pg};

const LIMIT: Duration = Duration::from_secs(5);

/// Checks that a PostgreSQL server answers where the URL points; returns what is known of it.
pub(crate) fn postgres(url: &str) -> Result<String, Failure> {
    let address = url::address(url, &["postgres", "postgresql"], 5432);
    let address =
        address.ok_or_else(|| Failure::Failed("DATABASE_URL is no postgres:// URL".to_owned()))?;
    let greeting = match &address {
        Address::Tcp(host, port) => connect(host, *port).and_then(greet_postgres),
        Address::Socket(path) => UnixStream::connect(path).and_then(greet_postgres),
    };
    greeting.map_err(|error| unreachable("DATABASE_URL", &address, &error))?;
    Ok(describe(&address))
}

/// The same for RabbitMQ. Behind TLS, that somebody listens is all that is checked.
pub(crate) fn rabbitmq(url: &str) -> Result<String, Failure> {
    let is_tls = url.starts_with("amqps://");
    let address = url::address(url, &["amqp", "amqps"], if is_tls { 5671 } else { 5672 });
    let address =
        address.ok_or_else(|| Failure::Failed("AMQP_URL is no amqp:// URL".to_owned()))?;
    let answer = match &address {
        Address::Tcp(host, port) => connect(host, *port).and_then(|mut stream| {
            if is_tls {
                Ok(String::new())
            } else {
                amqp::greet(&mut stream)
            }
        }),
        Address::Socket(_) => Err(io::Error::other("AMQP does not run over a socket file")),
    };
    answer.map_err(|error| unreachable("AMQP_URL", &address, &error))?;
    Ok(describe(&address))
}

/// Any answer in the protocol will do: whether we may log in is for the one who has the password.
fn greet_postgres<S: Read + Write>(stream: S) -> io::Result<()> {
    pg::greet(stream, "postgres", "postgres").map(drop)
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, LIMIT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LIMIT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unreachable(variable: &str, address: &Address, error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "nothing usable answers at {} ({error}). {variable} names it, so nothing else is tried; unset {variable} to get a \
         private instance",
        describe(address)
    ))
}

fn describe(address: &Address) -> String {
    match address {
        Address::Tcp(host, port) => format!("{host}:{port}"),
        Address::Socket(path) => path.display().to_string(),
    }
}
