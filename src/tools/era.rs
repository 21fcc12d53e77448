//! Which handshake a server is tried with. Pure.

use crate::config::{ProtocolEra, Transport};

/// Which handshake a server wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// `initialize`, up to the revision of 2025-11-25.
    Handshake,
    /// `server/discover`, since the revision of 2026-07-28.
    Discovery,
    /// Whichever it answers.
    Either,
}

/// The handshakes to try, one after the other while they are refused; `known` worked before.
///
/// A process that does not know `server/discover` may end at it or say nothing, so `initialize`
/// comes first over pipes. Over HTTP the answer to the first request tells.
pub(super) fn tries(
    chosen: ProtocolEra,
    transport: &Transport,
    known: Option<Era>,
) -> &'static [Era] {
    let remote = matches!(transport, Transport::Http(_));
    match (chosen, known) {
        (ProtocolEra::Legacy, _) => &[Era::Handshake],
        (ProtocolEra::Modern, _) => &[Era::Discovery],
        (ProtocolEra::Auto, Some(Era::Discovery)) if remote => &[Era::Discovery, Era::Either],
        (ProtocolEra::Auto, Some(Era::Handshake)) if remote => &[Era::Handshake, Era::Either],
        // Some servers answer what they do not know with something that looks like a result.
        (ProtocolEra::Auto, Some(Era::Either) | None) if remote => &[Era::Either, Era::Handshake],
        (ProtocolEra::Auto, Some(Era::Discovery)) => &[Era::Discovery, Era::Handshake],
        (ProtocolEra::Auto, Some(Era::Handshake | Era::Either) | None) => {
            &[Era::Handshake, Era::Discovery]
        }
    }
}
