//! One connection of a client or of the null server: TCP, under TLS or not. It never blocks.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, IoSlice, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use socket2::{Domain, Socket, Type};

/// Plaintext that is sealed at once: four full records.
const SEALED: usize = 64 << 10;
/// Pieces that one system call writes.
const PIECES: usize = 64;

pub struct Channel {
    tcp: TcpStream,
    tls: Option<Box<Connection>>,
    /// What waits to be written. Its bound is what the far end's windows let out.
    pending: VecDeque<Bytes>,
}

/// What a read left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Nothing is left; the poll says when more has come.
    Empty,
    /// There may be more.
    More,
}

impl Channel {
    /// From an address of the client's own, where that is possible: so come the proxies of a mesh.
    pub fn connect(
        from: Ipv4Addr,
        address: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        let tls = tls.map(|config| {
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            let client = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
            Ok::<_, io::Error>(Connection::from(client))
        });
        Ok(Self::new(call(from, address)?, tls.transpose()?))
    }

    pub fn accept(tcp: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        let tls = tls.map(|config| {
            let server = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
            Ok::<_, io::Error>(Connection::from(server))
        });
        Ok(Self::new(tcp, tls.transpose()?))
    }

    fn new(tcp: TcpStream, tls: Option<Connection>) -> Self {
        // It fails only on a connection that is already lost, which the first read tells.
        let _ = tcp.set_nodelay(true);
        let tls = tls.map(|mut connection| {
            connection.set_buffer_limit(None);
            Box::new(connection)
        });
        Self {
            tcp,
            tls,
            pending: VecDeque::new(),
        }
    }

    pub fn tcp(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    /// Reads once and hands over what it says. `buffer` is lent: nothing stays in it.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        mut on: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Drain> {
        let count = match self.tcp.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Drain::Empty),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(Drain::More),
            Err(e) => return Err(e),
        };
        match &mut self.tls {
            None => on(&buffer[..count])?,
            Some(tls) => open(tls, &buffer[..count], &mut on)?,
        }
        // A stream socket that gave less than it was asked for is empty.
        Ok(if count < buffer.len() {
            Drain::Empty
        } else {
            Drain::More
        })
    }

    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.pending.push_back(bytes);
        }
    }

    /// Writes until the socket is full or nothing waits.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = match &mut self.tls {
            None => write(&mut self.tcp, &mut self.pending),
            Some(tls) => seal(tls, &mut self.tcp, &mut self.pending),
        };
        match written {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            // The poll says when a connection under way is there.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
            written => written,
        }
    }
}

fn call(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    if to.ip() != Ipv4Addr::LOCALHOST {
        return TcpStream::connect(to);
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    match socket.connect(&to.into()) {
        // The poll says when it is there.
        Err(e) if e.raw_os_error() != Some(IN_PROGRESS) => Err(e),
        Ok(()) | Err(_) => Ok(TcpStream::from_std(socket.into())),
    }
}

/// EINPROGRESS on Linux.
const IN_PROGRESS: i32 = 115;

/// Connections that wait to be accepted, as many as the server's own listener lets wait.
const WAITING: i32 = 4096;

/// The null server's door.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.bind(&address.into())?;
    socket.listen(WAITING)?;
    Ok(socket.into())
}

fn open(
    tls: &mut Connection,
    mut sealed: &[u8],
    on: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while !sealed.is_empty() {
        tls.read_tls(&mut sealed)?;
        tls.process_new_packets().map_err(io::Error::other)?;
        loop {
            let mut reader = tls.reader();
            let plain = match reader.fill_buf() {
                Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(plain) => plain,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            };
            on(plain)?;
            let count = plain.len();
            reader.consume(count);
        }
    }
    Ok(())
}

fn write(tcp: &mut TcpStream, pending: &mut VecDeque<Bytes>) -> io::Result<()> {
    while !pending.is_empty() {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let mut count = 0;
        for (piece, bytes) in pieces.iter_mut().zip(pending.iter()) {
            *piece = IoSlice::new(bytes);
            count += 1;
        }
        let mut written = tcp.write_vectored(&pieces[..count])?;
        while let Some(first) = pending.front_mut() {
            if written < first.len() {
                first.advance(written);
                break;
            }
            written -= first.len();
            pending.pop_front();
        }
    }
    Ok(())
}

fn seal(
    tls: &mut Connection,
    tcp: &mut TcpStream,
    pending: &mut VecDeque<Bytes>,
) -> io::Result<()> {
    loop {
        while tls.wants_write() {
            tls.write_tls(tcp)?;
        }
        if tls.is_handshaking() || pending.is_empty() {
            return Ok(());
        }
        let mut room = SEALED;
        while let Some(first) = pending.front_mut() {
            let count = first.len().min(room);
            tls.writer().write_all(&first[..count])?;
            room -= count;
            first.advance(count);
            if !first.is_empty() {
                break;
            }
            pending.pop_front();
        }
    }
}
