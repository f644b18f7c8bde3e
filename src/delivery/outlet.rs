//! A TLS connection of which all that is written in one turn of its task leaves together.
//!
//! HTTP/2 writes and flushes each frame by itself: a flush is a system call here and a wake-up there, and a frame's 16 kB
//! with its header are a full record and one of nine bytes. Here a flush is only noted, what does not fill a record waits
//! for what comes next, and records gather up to a bound, till the turn ends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What HTTP/2 reads from and writes to. Nothing leaves but in [`Turns`].
#[derive(Debug)]
pub struct Gathered(Outlet);

/// The end of it that lets out what was gathered.
#[derive(Clone, Debug)]
pub struct Outlet(Arc<Mutex<Sealed>>);

/// A connection; what it wrote in a turn goes when the turn ends.
pub struct Turns<C> {
    connection: Pin<Box<C>>,
    outlet: Option<Outlet>,
}

/// A socket that takes nothing while it is closed. Its own wakers are then not set: whoever closed it opens it again
/// before the turn ends.
#[derive(Debug)]
pub struct Cork {
    socket: TcpStream,
    mouth: Mouth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mouth {
    Open,
    Closed,
}

#[derive(Debug)]
struct Sealed {
    tls: TlsStream<Cork>,
    /// What fills no record yet. Empty, and without room, between turns.
    rest: Vec<u8>,
    /// About the room that is taken by what was sealed and not let out.
    waiting: usize,
    /// Why nothing could be let out. Told by whatever is tried next.
    lost: Option<io::Error>,
}

/// The most that one record of TLS holds.
const RECORD: usize = 16 << 10;
/// What a record takes besides.
const OVERHEAD: usize = 100;
/// Before more is sealed than this, what there is must be let out. One more write may come on top.
const GATHERED: usize = 8 * RECORD;
/// Pieces that are sealed at once; what is more comes again.
const PIECES: usize = 17;

impl Cork {
    pub fn open(socket: TcpStream) -> Self {
        Self {
            socket,
            mouth: Mouth::Open,
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

impl<C> Turns<C> {
    /// Of a connection over the other end of `outlet`, or over something that gathers nothing.
    pub fn of(connection: C, outlet: Option<Outlet>) -> Self {
        Self {
            connection: Box::pin(connection),
            outlet,
        }
    }
}

impl<C: GracefulConnection> Turns<C> {
    pub fn graceful_shutdown(&mut self) {
        self.connection.as_mut().graceful_shutdown();
    }
}

impl<C: Future> Future for Turns<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let outcome = self.connection.as_mut().poll(cx);
        if let Some(outlet) = &self.outlet {
            outlet.let_out(cx);
        }
        outcome
    }
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
    fn tls(&mut self, mouth: Mouth) -> Pin<&mut TlsStream<Cork>> {
        self.tls.get_mut().0.mouth = mouth;
        Pin::new(&mut self.tls)
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_seal_rest(cx))?;
        ready!(self.tls(Mouth::Open).poll_flush(cx))?;
        self.waiting = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_seal_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut rest = std::mem::take(&mut self.rest);
        while !rest.is_empty() {
            match self.tls(Mouth::Closed).poll_write(cx, &rest) {
                Poll::Ready(Ok(count)) => {
                    rest.drain(..count);
                    self.waiting += count + OVERHEAD;
                }
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
        let mut rest = std::mem::take(&mut self.rest);
        let (all, count) = first_of(whole.min(GATHERED), &rest, pieces);
        let sealed = self.tls(Mouth::Closed);
        let sealed = match sealed.poll_write_vectored(cx, &all[..count]) {
            Poll::Ready(Ok(sealed)) => sealed,
            other => {
                self.rest = rest;
                return other;
            }
        };
        self.waiting += sealed + sealed.div_ceil(RECORD) * OVERHEAD;
        // Without a bound of its own the session takes all: more than the rest, which is less than a record.
        let mut taken = sealed.saturating_sub(rest.len());
        rest.drain(..sealed.min(rest.len()));
        if rest.is_empty() && new - taken < RECORD {
            // What is behind fills no record: it need not be offered again.
            keep_behind(taken, pieces, &mut rest);
            taken = new;
        }
        self.rest = rest;
        Poll::Ready(Ok(taken))
    }

    fn found_lost(&mut self) -> io::Result<()> {
        self.lost.take().map_or(Ok(()), Err)
    }
}

/// The rest and as many of the pieces as make up so many bytes, and how many slices that are.
fn first_of<'a>(
    mut bytes: usize,
    rest: &'a [u8],
    pieces: &'a [IoSlice<'_>],
) -> ([IoSlice<'a>; PIECES], usize) {
    let mut all = [IoSlice::new(&[]); PIECES];
    let mut count = 0;
    let parts = std::iter::once(rest).chain(pieces.iter().map(|piece| &**piece));
    for (slot, part) in all.iter_mut().zip(parts) {
        let part = &part[..part.len().min(bytes)];
        *slot = IoSlice::new(part);
        bytes -= part.len();
        count += 1;
    }
    (all, count)
}

fn keep_behind(mut taken: usize, pieces: &[IoSlice<'_>], rest: &mut Vec<u8>) {
    for piece in pieces {
        let skipped = taken.min(piece.len());
        rest.extend_from_slice(&piece[skipped..]);
        taken -= skipped;
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
        // Open for the alert that answers a bad record.
        sealed.tls(Mouth::Open).poll_read(cx, buffer)
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
        sealed.tls(Mouth::Open).poll_shutdown(cx)
    }
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
        match self.mouth {
            Mouth::Open => Pin::new(&mut self.socket).poll_write(cx, bytes),
            Mouth::Closed => Poll::Pending,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.mouth {
            Mouth::Open => Pin::new(&mut self.socket).poll_write_vectored(cx, pieces),
            Mouth::Closed => Poll::Pending,
        }
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
            let (all, count) = first_of(bytes, b"ab", &pieces);
            let all: Vec<u8> = all[..count].iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(all, want.as_bytes());
        }
    }

    #[test]
    fn what_is_behind_the_record_becomes_the_rest() {
        let pieces = [IoSlice::new(b"cd"), IoSlice::new(b""), IoSlice::new(b"efg")];
        for (taken, want) in [(0, "cdefg"), (1, "defg"), (2, "efg"), (4, "g"), (5, "")] {
            let mut rest = Vec::new();
            keep_behind(taken, &pieces, &mut rest);
            assert_eq!(rest, want.as_bytes());
        }
    }
}
