//! Free loopback ports, below the range that the kernel gives to outgoing connections.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use crate::failure::Failure;

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A random number, good enough to keep two runs apart.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A loopback port that nobody listens on now. Somebody else may take it before it is used: callers retry.
pub(crate) fn free() -> Result<u16, Failure> {
    for _ in 0..200 {
        let offset = u16::try_from(random() % u64::from(COUNT)).unwrap_or(0);
        let port = FIRST + offset;
        if TcpListener::bind(loopback(port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Failure::Failed(
        "no free loopback port between 20000 and 32000".to_owned(),
    ))
}

/// `127.0.0.1:port`
pub(crate) fn loopback(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}
