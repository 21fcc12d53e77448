//! Pipes that end with their process. What a server has started may hold the other ends for ever;
//! whoever reads or writes here would wait as long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// `inner` until it is cut: then nothing more comes, and nothing more goes.
#[derive(Debug)]
pub(super) struct Cut<P> {
    inner: P,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<P> Cut<P> {
    pub(super) fn new(inner: P, cut: CancellationToken) -> Self {
        Self {
            inner,
            cut: Box::pin(cut.cancelled_owned()),
        }
    }

    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        self.cut.as_mut().poll(cx).is_ready()
    }
}

impl<P: AsyncRead + Unpin> AsyncRead for Cut<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What is in the pipe already is read first.
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_pending() && self.is_cut(cx) {
            return Poll::Ready(Ok(()));
        }
        read
    }
}

impl<P: AsyncWrite + Unpin> AsyncWrite for Cut<P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        if written.is_pending() && self.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_is_there_is_read_and_then_it_ends_though_the_other_end_is_held() {
        let (mut theirs, ours) = tokio::io::duplex(8);
        let cut = CancellationToken::new();
        let mut ours = Cut::new(ours, cut.clone());
        theirs.write_all(b"last").await.unwrap();
        let full = async {
            // More than the pipe holds, and nobody reads.
            ours.write_all(&[0; 100]).await
        };
        let (written, ()) = tokio::join!(full, async { cut.cancel() });
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut said = String::new();
        ours.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "last");
        drop(theirs);
    }
}
