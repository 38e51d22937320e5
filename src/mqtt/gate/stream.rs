//! A device's socket, plain or TLS, with one manner of use: what can be done now is done, what cannot is waited for. A plain
//! one costs what it cost before there was TLS: one branch.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::sync::Arc;

use bytes::BytesMut;
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncWriteExt, Interest, Ready};
use tokio::net::TcpStream;

use crate::mqtt::certificate;

/// Decrypted bytes taken at once, so that one connection does not keep its thread.
const AT_ONCE: usize = 256 * 1024;

/// A socket, and what is between it and MQTT.
pub enum Stream {
    /// Nothing.
    Plain(TcpStream),
    /// TLS, shaken hands.
    Tls(Box<Secure>),
}

/// A socket that speaks TLS.
pub struct Secure {
    socket: TcpStream,
    tls: ServerConnection,
    /// Decrypted bytes that wait in `tls`: the socket need not be readable for them to be read.
    waiting: bool,
}

impl Stream {
    /// Shakes hands. Ends only with the client's last move, so whoever calls gives it a time.
    ///
    /// # Errors
    /// A client that is gone, or whose TLS cannot be spoken; it has been told then.
    pub async fn secure(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Stream> {
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        let mut secure = Secure { socket, tls, waiting: false };
        while secure.tls.is_handshaking() || secure.tls.wants_write() {
            secure.push()?;
            if !secure.tls.is_handshaking() {
                // What is still to be written, tickets at most, goes out with the CONNACK.
                break;
            }
            let interest =
                if secure.tls.wants_write() { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            if secure.socket.ready(interest).await?.is_readable() {
                match secure.pull() {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(_) => {}
                }
            }
        }
        Ok(Stream::Tls(Box::new(secure)))
    }

    /// Whom the client's certificate names, if it showed one.
    pub fn certified(&self) -> Option<String> {
        match self {
            Stream::Plain(_) => None,
            Stream::Tls(secure) => secure.tls.peer_certificates()?.first().and_then(certificate::name_of),
        }
    }

    /// Whether the client showed a certificate; it was verified then.
    pub fn has_certificate(&self) -> bool {
        matches!(self, Stream::Tls(secure) if secure.tls.peer_certificates().is_some_and(|chain| !chain.is_empty()))
    }

    /// Whether bytes written are still on their way to the socket.
    pub fn holds(&self) -> bool {
        matches!(self, Stream::Tls(secure) if secure.tls.wants_write())
    }

    /// Waits until the socket is ready for what is asked.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Stream::Plain(socket) => socket.ready(interest).await,
            Stream::Tls(secure) if secure.waiting && interest.is_readable() => Ok(Ready::READABLE),
            Stream::Tls(secure) if secure.tls.wants_write() => secure.socket.ready(interest | Interest::WRITABLE).await,
            Stream::Tls(secure) => secure.socket.ready(interest).await,
        }
    }

    /// Reads what is there into the capacity that `buf` has left; 0 at the end.
    pub fn try_read_buf(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.try_read_buf(buf),
            Stream::Tls(secure) => secure.read(buf),
        }
    }

    /// Writes what can be written of `bytes` now.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.try_write(bytes),
            Stream::Tls(secure) => secure.write(bytes),
        }
    }

    /// Sends on what was written and is still held.
    pub fn push(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(secure) => secure.push(),
        }
    }

    /// Writes all of `bytes`, says goodbye, and closes our side; answers the socket, to be read to its end.
    pub async fn finish(mut self, mut bytes: &[u8]) -> io::Result<TcpStream> {
        loop {
            match self.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if bytes.is_empty() {
                break;
            }
            self.ready(Interest::WRITABLE).await?;
        }
        let mut socket = match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(mut secure) => {
                secure.tls.send_close_notify();
                secure.push()?;
                while secure.tls.wants_write() {
                    secure.socket.writable().await?;
                    secure.push()?;
                }
                secure.socket
            }
        };
        socket.shutdown().await?;
        Ok(socket)
    }
}

impl Secure {
    /// Takes ciphertext from the socket and opens it; answers how much was there.
    fn pull(&mut self) -> io::Result<usize> {
        let read = self.tls.read_tls(&mut Now(&self.socket))?;
        match self.tls.process_new_packets() {
            Ok(state) => {
                self.waiting = state.plaintext_bytes_to_read() > 0;
                Ok(read)
            }
            Err(error) => {
                // The client is told why, as far as the socket takes it now.
                let _ = self.push();
                Err(io::Error::new(ErrorKind::InvalidData, error))
            }
        }
    }

    fn read(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        let room = (buf.capacity() - buf.len()).min(AT_ONCE);
        let mut taken = 0;
        while taken < room {
            let mut reader = self.tls.reader();
            match reader.fill_buf() {
                Ok(chunk) if !chunk.is_empty() => {
                    let length = chunk.len().min(room - taken);
                    buf.extend_from_slice(&chunk[..length]);
                    reader.consume(length);
                    taken += length;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.waiting = false;
                    match self.pull() {
                        // The end is told as such by the next look at what was decrypted.
                        Ok(_) if self.tls.wants_write() => self.push()?,
                        Ok(_) => {}
                        Err(error) if taken > 0 && error.kind() == ErrorKind::WouldBlock => return Ok(taken),
                        Err(error) => return Err(error),
                    }
                }
                // The end, with a goodbye or without: MQTT has its own. It is to be read as such, whatever the socket says.
                Ok(_) | Err(_) => {
                    self.waiting = true;
                    return Ok(taken);
                }
            }
        }
        self.waiting = self.tls.reader().fill_buf().is_ok_and(|chunk| !chunk.is_empty());
        Ok(taken)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.tls.writer().write(bytes)?;
        self.push()?;
        if taken == 0 && !bytes.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn push(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Now(&self.socket)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The socket as rustls wants it: reads and writes what can be done now.
struct Now<'a>(&'a TcpStream);

impl Read for Now<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for Now<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
