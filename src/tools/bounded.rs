//! A reader that fails where a line grows too long: the protocol library drops such a line and
//! lets the call run to its timeout.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// `inner`, up to the first line of more than `most` bytes.
#[derive(Debug)]
pub(super) struct Bounded<R> {
    inner: R,
    most: usize,
    line: usize,
    overrun: Arc<AtomicBool>,
}

impl<R> Bounded<R> {
    /// The reader, and a flag that tells whether a line was too long.
    pub(super) fn new(inner: R, most: usize) -> (Self, Arc<AtomicBool>) {
        let overrun = Arc::new(AtomicBool::new(false));
        let reader = Self {
            inner,
            most,
            line: 0,
            overrun: Arc::clone(&overrun),
        };
        (reader, overrun)
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Bounded<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        for piece in fresh.split_inclusive(|byte| *byte == b'\n') {
            let line = self.line.saturating_add(piece.len());
            if line > self.most {
                self.overrun.store(true, Ordering::Relaxed);
                // A reader that fails must not have read anything.
                buf.set_filled(before);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            self.line = if piece.ends_with(b"\n") { 0 } else { line };
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn lines_up_to_the_limit_pass_and_a_longer_one_ends_the_stream() {
        let (mut reader, overrun) = Bounded::new(&b"1234\n1234\n"[..], 5);
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(
            (text.as_str(), overrun.load(Ordering::Relaxed)),
            ("1234\n1234\n", false)
        );

        let (mut reader, overrun) = Bounded::new((&b"12\n12"[..]).chain(&b"345\n"[..]), 5);
        assert!(reader.read_to_string(&mut text).await.is_err());
        assert!(overrun.load(Ordering::Relaxed));
    }
}
