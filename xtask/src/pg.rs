//! The little of PostgreSQL's protocol 3.0 that is needed to know that a server is ready, and to run a script
//! on a private one (which trusts us). No password is ever sent.

use std::io::{self, Read, Write};

/// A connection to a server that trusted us.
pub(crate) struct Connection<S> {
    stream: S,
    /// As the server names it: `15.18 (Debian …)`.
    pub(crate) version: String,
}

/// What a server said to a greeting.
pub(crate) enum Greeting<S> {
    /// It let us in.
    Trusted(Connection<S>),
    /// It wants a password: it is up.
    Guarded,
    /// It refused, with this text: it is up, or starting.
    Refused(String),
}

/// Says who we are. An error if what answers is no PostgreSQL server, or nothing does.
pub(crate) fn greet<S: Read + Write>(
    mut stream: S,
    user: &str,
    database: &str,
) -> io::Result<Greeting<S>> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for text in [
        "user",
        user,
        "database",
        database,
        "application_name",
        "xtask",
    ] {
        body.extend(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    stream.write_all(&length(body.len() + 4)?)?;
    stream.write_all(&body)?;
    let mut version = String::new();
    loop {
        let (kind, body) = message(&mut stream)?;
        match kind {
            b'R' if body.iter().all(|&byte| byte == 0) => {}
            b'R' => return Ok(Greeting::Guarded),
            b'E' => return Ok(Greeting::Refused(error_text(&body))),
            b'S' => {
                let mut fields = body.split(|&byte| byte == 0);
                if fields.next() == Some(b"server_version") {
                    version =
                        String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
                }
            }
            b'Z' => return Ok(Greeting::Trusted(Connection { stream, version })),
            b'K' | b'N' | b'v' => {}
            _ => {
                return Err(io::Error::other(
                    "what answers there is no PostgreSQL server",
                ));
            }
        }
    }
}

impl<S: Read + Write> Connection<S> {
    /// Runs a script: all its statements in one transaction, unless it controls transactions itself.
    pub(crate) fn run(&mut self, script: &str) -> Result<(), String> {
        self.exchange(script).map_err(|error| error.to_string())?
    }

    fn exchange(&mut self, script: &str) -> io::Result<Result<(), String>> {
        self.stream.write_all(b"Q")?;
        self.stream.write_all(&length(script.len() + 5)?)?;
        self.stream.write_all(script.as_bytes())?;
        self.stream.write_all(&[0])?;
        let mut outcome = Ok(());
        loop {
            let (kind, body) = message(&mut self.stream)?;
            match kind {
                b'E' => outcome = Err(error_text(&body)),
                b'Z' => return Ok(outcome),
                _ => {}
            }
        }
    }
}

fn length(bytes: usize) -> io::Result<[u8; 4]> {
    u32::try_from(bytes)
        .map(u32::to_be_bytes)
        .map_err(io::Error::other)
}

fn message(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0_u8; 5];
    stream.read_exact(&mut head)?;
    let [kind, size @ ..] = head;
    let size = u32::from_be_bytes(size)
        .checked_sub(4)
        .filter(|&size| size < 1 << 24);
    let size =
        size.ok_or_else(|| io::Error::other("what answers there is no PostgreSQL server"))?;
    let mut body = Vec::new();
    stream.take(u64::from(size)).read_to_end(&mut body)?;
    Ok((kind, body))
}

/// The message and the position fields of an error response.
fn error_text(body: &[u8]) -> String {
    let field = |code: u8| {
        let found = body
            .split(|&byte| byte == 0)
            .find(|field| field.first() == Some(&code));
        found
            .and_then(|field| field.get(1..))
            .map(|text| String::from_utf8_lossy(text).into_owned())
    };
    let text = field(b'M').unwrap_or_else(|| "an error without a text".to_owned());
    match field(b'P') {
        Some(position) => format!("{text} (at character {position})"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_response_tells_its_message_and_place() {
        let body = b"SERROR\0VERROR\0C42601\0Msyntax error at or near \"CREAT\"\0P1\0\0";
        assert_eq!(
            error_text(body),
            "syntax error at or near \"CREAT\" (at character 1)"
        );
    }

    #[test]
    fn a_message_that_is_too_long_is_not_read() {
        assert!(message(&mut io::Cursor::new(b"HTTP/1.1 400 Bad Request".to_vec())).is_err());
    }
}
