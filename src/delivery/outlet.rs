//! A TLS connection of which all that is written in one turn of its task leaves together.
//!
//! HTTP/2 writes and flushes each frame by itself: a flush is a system call here and a wake-up there, and a frame's 16 kB
//! with its header are a full record and one of nine bytes. Here a flush is only noted, what does not fill a record waits
//! for what comes next, and records gather up to a bound, till the turn ends.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What HTTP/2 reads from and writes to.
#[derive(Debug)]
pub struct Gathered(Outlet);

/// The end of it that lets out what was gathered.
#[derive(Clone, Debug)]
pub struct Outlet(Arc<Mutex<Sealed>>);

#[derive(Debug)]
struct Sealed {
    tls: TlsStream<Cork>,
    /// What fills no record yet. Empty, and without room, between turns.
    rest: Vec<u8>,
    /// Bytes sealed since all was let out.
    waiting: usize,
    /// Why nothing could be let out. Told by whatever is tried next.
    lost: Option<io::Error>,
}

/// The most that one record of TLS holds.
const RECORD: usize = 16 << 10;
/// So much is let out at once: a connection keeps no more for a socket that is full.
const GATHERED: usize = 8 * RECORD;
/// Pieces that are sealed at once; what is more comes again.
const PIECES: usize = 17;

/// A socket that takes nothing while it is closed. Its own wakers are then not set: whoever closed it opens it again
/// before the turn ends.
#[derive(Debug)]
pub struct Cork {
    socket: TcpStream,
    closed: bool,
}

impl Cork {
    pub fn open(socket: TcpStream) -> Self {
        Self {
            socket,
            closed: false,
        }
    }
}

/// Both ends of a connection whose handshake is done.
pub fn gathered(mut tls: TlsStream<Cork>) -> (Gathered, Outlet) {
    // The bound is kept here, by whole records.
    tls.get_mut().1.set_buffer_limit(None);
    let sealed = Sealed {
        tls,
        rest: Vec::new(),
        waiting: 0,
        lost: None,
    };
    let outlet = Outlet(Arc::new(Mutex::new(sealed)));
    (Gathered(outlet.clone()), outlet)
}

/// Polls a connection; what it wrote in a turn goes when the turn ends.
pub fn turns<C: Future>(
    mut connection: Pin<&mut C>,
    outlet: Option<&Outlet>,
) -> impl Future<Output = C::Output> {
    poll_fn(move |cx| {
        let outcome = connection.as_mut().poll(cx);
        if let Some(outlet) = outlet {
            outlet.let_out(cx);
        }
        outcome
    })
}

impl Outlet {
    fn sealed(&self) -> MutexGuard<'_, Sealed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what there is. The task is woken when more can go, or to learn that nothing can.
    fn let_out(&self, cx: &mut Context<'_>) {
        let mut sealed = self.sealed();
        if let Poll::Ready(Err(error)) = sealed.poll_out(cx) {
            sealed.lost = Some(error);
            cx.waker().wake_by_ref();
        }
    }
}

impl Sealed {
    fn tls(&mut self, closed: bool) -> Pin<&mut TlsStream<Cork>> {
        self.tls.get_mut().0.closed = closed;
        Pin::new(&mut self.tls)
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_seal_rest(cx))?;
        ready!(self.tls(false).poll_flush(cx))?;
        self.waiting = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_seal_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut rest = std::mem::take(&mut self.rest);
        while !rest.is_empty() {
            match self.tls(true).poll_write(cx, &rest) {
                Poll::Ready(Ok(count)) => drop(rest.drain(..count)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.rest = rest;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what fills whole records, or keeps what fills none; lets out what is there first if that is much.
    fn poll_seal(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.found_lost()?;
        if self.waiting >= GATHERED {
            ready!(self.poll_out(cx))?;
        }
        let new: usize = pieces.iter().map(|piece| piece.len()).sum();
        let whole = (self.rest.len() + new) / RECORD * RECORD;
        if whole == 0 {
            pieces.iter().for_each(|piece| self.rest.extend(&**piece));
            return Poll::Ready(Ok(new));
        }
        let rest = std::mem::take(&mut self.rest);
        let mut all = [IoSlice::new(&[]); PIECES];
        let count = first_of(whole.min(GATHERED), &rest, pieces, &mut all);
        let sealed = self.tls(true).poll_write_vectored(cx, &all[..count]);
        let sealed = match sealed {
            Poll::Ready(Ok(sealed)) => sealed,
            other => {
                self.rest = rest;
                return other;
            }
        };
        self.waiting += sealed;
        // Without a bound of its own the session takes all: more than the rest, which is less than a record.
        self.rest = rest.get(sealed..).unwrap_or_default().to_vec();
        Poll::Ready(Ok(sealed.saturating_sub(rest.len())))
    }

    fn found_lost(&mut self) -> io::Result<()> {
        self.lost.take().map_or(Ok(()), Err)
    }
}

impl AsyncRead for Gathered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut sealed = self.0.sealed();
        sealed.found_lost()?;
        Pin::new(&mut sealed.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.sealed().poll_seal(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// It goes when the turn ends.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sealed = self.0.sealed();
        ready!(sealed.poll_out(cx))?;
        sealed.tls(false).poll_shutdown(cx)
    }
}

/// Puts the rest and as many of the pieces as make up so many bytes into `all`, and says how many slices that are.
fn first_of<'a>(
    mut bytes: usize,
    rest: &'a [u8],
    pieces: &'a [IoSlice<'_>],
    all: &mut [IoSlice<'a>],
) -> usize {
    let mut count = 0;
    let parts = std::iter::once(rest).chain(pieces.iter().map(|piece| &**piece));
    for (slot, part) in all.iter_mut().zip(parts) {
        let part = &part[..part.len().min(bytes)];
        *slot = IoSlice::new(part);
        bytes -= part.len();
        count += 1;
    }
    count
}

impl AsyncRead for Cork {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Cork {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_together_begins_with_the_rest_and_ends_with_the_record() {
        let pieces = [IoSlice::new(b"cd"), IoSlice::new(b""), IoSlice::new(b"efg")];
        for (bytes, want) in [(1, "a"), (4, "abcd"), (5, "abcde"), (7, "abcdefg")] {
            let mut all = [IoSlice::new(&[]); PIECES];
            let count = first_of(bytes, b"ab", &pieces, &mut all);
            let all: Vec<u8> = all[..count].iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(all, want.as_bytes());
        }
    }
}
