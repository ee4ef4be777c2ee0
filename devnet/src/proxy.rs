//! An HTTP proxy that answers CONNECT, rightly or in one of the ways in which proxies fail. It knows one machine, and
//! leads there whatever name it is asked for: so a gateway on loopback has a name that only the proxy can resolve.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use crate::{
    journal::{Journal, lock},
    listener::{ANY_LOOPBACK, Listener},
};

/// How a CONNECT is answered, if its credentials are right.
#[derive(Clone, Copy, Debug, Default)]
pub enum Reply {
    /// With 200, and then with whatever comes from beyond.
    #[default]
    Tunnel,
    /// With 200 and the first bytes from beyond in one segment.
    TunnelWithGreeting,
    /// With another status.
    Status(u16),
    /// With something that is not HTTP.
    Garbage,
    /// With headers that never end.
    Endless,
    /// With the first half of a head, and then nothing.
    Half,
    /// Not at all.
    Silence,
    /// By closing the connection.
    HangUp,
}

/// A CONNECT as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where to: host and port.
    pub authority: String,
    /// The `Host` header.
    pub host: Option<String>,
    /// The `Proxy-Authorization` header.
    pub authorization: Option<String>,
}

struct Shared {
    target: SocketAddr,
    tls: Option<TlsAcceptor>,
    reply: Mutex<Reply>,
    authorization: Mutex<Option<String>>,
    asked: Journal<Asked>,
}

/// A running proxy; it stops when this is dropped.
pub struct ConnectProxy {
    shared: Arc<Shared>,
    listener: Listener,
}

impl ConnectProxy {
    /// Leads from a loopback port, which the system chooses, to `target`.
    ///
    /// # Errors
    /// The system gives no port.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        Self::start_with(target, None)
    }

    /// The same, where one speaks TLS with the proxy itself.
    ///
    /// # Errors
    /// The system gives no port.
    pub fn start_encrypted(target: SocketAddr, config: Arc<ServerConfig>) -> io::Result<Self> {
        Self::start_with(target, Some(config.into()))
    }

    fn start_with(target: SocketAddr, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            target,
            tls,
            reply: Mutex::default(),
            authorization: Mutex::default(),
            asked: Journal::default(),
        });
        let served = Arc::clone(&shared);
        let listener = Listener::start(ANY_LOOPBACK, move |client| {
            let shared = Arc::clone(&served);
            async move {
                // A connection that breaks is the client's to tell.
                let _ = match shared.tls.clone() {
                    Some(tls) => match tls.accept(client).await {
                        Ok(client) => shared.serve(client).await,
                        Err(error) => Err(error),
                    },
                    None => shared.serve(client).await,
                };
            }
        })?;
        Ok(Self { shared, listener })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// How to answer from now on.
    pub fn reply_with(&self, reply: Reply) {
        *lock(&self.shared.reply) = reply;
    }

    /// The `Proxy-Authorization` to insist on from now on: any other is answered with 407.
    pub fn insist_on(&self, authorization: &str) {
        *lock(&self.shared.authorization) = Some(authorization.to_owned());
    }

    /// What was asked for so far.
    pub fn asked(&self) -> Vec<Arc<Asked>> {
        self.shared.asked.all()
    }

    /// Waits until something is asked for.
    pub async fn wait_until_asked(&self) -> Arc<Asked> {
        self.shared.asked.find(0, "a CONNECT", |_| true).await.1
    }

    /// Refuses connections and ends those that are open.
    pub async fn stop(&self) {
        self.listener.stop().await;
    }

    /// Listens again, on the same port.
    ///
    /// # Errors
    /// The system refuses the port.
    pub fn start_again(&self) -> io::Result<()> {
        self.listener.start_again()
    }
}

impl Shared {
    async fn serve(&self, mut client: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let Some(asked) = read_connect(&mut client).await? else {
            return client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        };
        let insisted_on = lock(&self.authorization).clone();
        let refused = insisted_on.is_some() && asked.authorization != insisted_on;
        let reply = if refused {
            Reply::Status(407)
        } else {
            *lock(&self.reply)
        };
        self.asked.push(Arc::new(asked));
        self.answer(client, reply).await
    }

    async fn answer(
        &self,
        mut client: impl AsyncRead + AsyncWrite + Unpin,
        reply: Reply,
    ) -> io::Result<()> {
        const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
        match reply {
            Reply::Tunnel => {
                client.write_all(ESTABLISHED).await?;
                lead(client, self.target, &[]).await
            }
            Reply::TunnelWithGreeting => lead(client, self.target, ESTABLISHED).await,
            Reply::Status(status) => {
                let challenge = match status {
                    407 => "Proxy-Authenticate: Basic realm=\"devnet\"\r\n",
                    _ => "",
                };
                let answer =
                    format!("HTTP/1.1 {status} No\r\n{challenge}Content-Length: 3\r\n\r\nno\n");
                client.write_all(answer.as_bytes()).await?;
                until_closed(client).await
            }
            Reply::Garbage => {
                client.write_all(b"220 mail.example ESMTP\r\n").await?;
                until_closed(client).await
            }
            Reply::Endless => {
                client.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                loop {
                    client.write_all(b"X-More: and more\r\n").await?;
                }
            }
            Reply::Half => {
                client.write_all(b"HTTP/1.1 200 Conn").await?;
                until_closed(client).await
            }
            Reply::Silence => until_closed(client).await,
            Reply::HangUp => Ok(()),
        }
    }
}

/// Carries bytes both ways. `before` goes ahead of the first bytes from the target, together with them.
async fn lead(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    target: SocketAddr,
    before: &[u8],
) -> io::Result<()> {
    let mut target = TcpStream::connect(target).await?;
    target.set_nodelay(true)?;
    if !before.is_empty() {
        let mut first = before.to_vec();
        target.read_buf(&mut first).await?;
        client.write_all(&first).await?;
    }
    copy_bidirectional(&mut client, &mut target).await.map(drop)
}

async fn until_closed(mut client: impl AsyncRead + Unpin) -> io::Result<()> {
    tokio::io::copy(&mut client, &mut tokio::io::sink())
        .await
        .map(drop)
}

/// Reads the head of a request and no byte more, since what follows is the tunnel's; `None`: it is no CONNECT.
async fn read_connect(client: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Asked>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let mut request = lines.next().unwrap_or_default().split(' ');
    if request.next() != Some("CONNECT") {
        return Ok(None);
    }
    let headers: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    let header = |wanted: &str| {
        let found = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| (*value).to_owned())
    };
    Ok(Some(Asked {
        authority: request.next().unwrap_or_default().to_owned(),
        host: header("Host"),
        authorization: header("Proxy-Authorization"),
    }))
}
