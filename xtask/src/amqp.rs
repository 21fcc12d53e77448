//! The first two messages of AMQP 0-9-1: enough to know that a broker is ready, and its version.
//!
//! RabbitMQ opens its listeners last, so an answered greeting is exact; `rabbitmqctl` costs seconds a call.

use std::io::{self, Read, Write};

const GREETING: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Of a method frame on channel 0: `connection.start`.
const CONNECTION_START: &[u8] = &[0, 10, 0, 10];

/// Greets, and returns the broker's version (empty if it tells none). An error if it does not answer in AMQP.
pub(crate) fn greet(stream: &mut (impl Read + Write)) -> io::Result<String> {
    stream.write_all(GREETING)?;
    let mut head = [0_u8; 7];
    let silent = |_eof| io::Error::other("it does not answer in AMQP 0-9-1");
    stream.read_exact(&mut head).map_err(silent)?;
    let [kind, _, _, size @ ..] = head;
    let size = u32::from_be_bytes(size);
    if kind != 1 || size > 1 << 17 {
        return Err(io::Error::other(
            "what answers there does not speak AMQP 0-9-1",
        ));
    }
    let mut payload = Vec::new();
    stream.take(u64::from(size)).read_to_end(&mut payload)?;
    if !payload.starts_with(CONNECTION_START) {
        return Err(io::Error::other("the broker did not open the connection"));
    }
    Ok(version(&payload).unwrap_or_default())
}

/// The field `version` of the server properties: name, `S`, length, text.
fn version(payload: &[u8]) -> Option<String> {
    let name = b"\x07versionS";
    let at = payload
        .windows(name.len())
        .position(|window| window == name)?;
    let (size, text) = payload.get(at + name.len()..)?.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_be_bytes(*size)).ok()?;
    String::from_utf8(text.get(..size)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Peer(io::Cursor<Vec<u8>>);

    impl Read for Peer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn frame(payload: &[u8]) -> Peer {
        let mut bytes = vec![1, 0, 0];
        bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        Peer(io::Cursor::new(bytes))
    }

    #[test]
    fn the_version_is_read_from_the_server_properties() {
        let payload = b"\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x40\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8";
        assert_eq!(greet(&mut frame(payload)).unwrap(), "3.10.8");
    }

    #[test]
    fn another_protocol_is_refused() {
        assert!(
            greet(&mut Peer(io::Cursor::new(
                b"HTTP/1.1 400 Bad Request\r\n".to_vec()
            )))
            .is_err()
        );
        assert!(greet(&mut Peer(io::Cursor::new(b"AMQP\x00\x00\x09\x01".to_vec()))).is_err());
        assert!(greet(&mut frame(b"\x00\x0a\x00\x32")).is_err());
    }
}
