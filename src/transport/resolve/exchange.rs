//! One question to one DNS server, over UDP and, where the answer does not fit, over TCP.
//!
//! Only what repeats id and question counts as an answer, from a port that the system chose at random for this question
//! alone; anything else that arrives there is ignored.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use domain::{
    base::{Message, MessageBuilder, Name, ParsedName, Rtype, ToName, iana::Rcode},
    rdata::{A, Aaaa},
};
use rustix::rand::GetRandomFlags;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout, timeout_at},
};

use super::error::LookupFailure;

type Packet = Message<Vec<u8>>;

/// More than a server sends over UDP to somebody who does not offer to take more: 512 bytes.
const MAX_DATAGRAM: usize = 4096;

/// How long the whole answer is waited for over TCP; what came over UDP serves then. Some networks only let UDP through.
const TCP_LIMIT: Duration = Duration::from_secs(2);

/// A family of addresses, as the DNS keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V6,
    V4,
}

impl Family {
    fn record_type(self) -> Rtype {
        match self {
            Self::V6 => Rtype::AAAA,
            Self::V4 => Rtype::A,
        }
    }
}

/// What to ask.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) name: Name<Vec<u8>>,
    pub(super) family: Family,
    /// Whether to ask over TCP from the start.
    pub(super) tcp: bool,
}

/// What a server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// At least one address of the family.
    Addresses(Vec<IpAddr>),
    /// The name is there, without an address of the family.
    NoAddress,
    /// There is no such name, for no family.
    NoSuchName,
}

/// Asks one server once, and listens until `end`.
pub(super) async fn ask(
    server: SocketAddr,
    question: &Question,
    end: Instant,
) -> Result<Answer, LookupFailure> {
    timeout_at(end, ask_patiently(server, question))
        .await
        .unwrap_or(Err(LookupFailure::Silent))
}

async fn ask_patiently(server: SocketAddr, question: &Question) -> Result<Answer, LookupFailure> {
    let query = query(question)?;
    if question.tcp {
        return read(&over_tcp(server, &query).await?, question.family);
    }
    let reply = over_udp(server, &query).await?;
    if !reply.header().tc() {
        return read(&reply, question.family);
    }
    let whole = timeout(TCP_LIMIT, over_tcp(server, &query)).await;
    let whole = whole.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match (whole, read(&reply, question.family)) {
        (Ok(whole), _) => read(&whole, question.family),
        (Err(_), Ok(part @ Answer::Addresses(_))) => Ok(part),
        (Err(error), _) => Err(error.into()),
    }
}

fn query(question: &Question) -> io::Result<Packet> {
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(random_id()?);
    message.header_mut().set_rd(true);
    let mut message = message.question();
    message
        .push((&question.name, question.family.record_type()))
        .map_err(io::Error::other)?;
    Ok(message.into_message())
}

/// From the kernel itself: what falls back to `/dev/urandom` fails in an image that has no such file.
fn random_id() -> io::Result<u16> {
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, GetRandomFlags::empty())?;
    Ok(u16::from_ne_bytes(id))
}

async fn over_udp(server: SocketAddr, query: &Packet) -> io::Result<Packet> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    // Nobody else's datagrams arrive then, and a port where nobody listens is told at once.
    socket.connect(server).await?;
    socket.send(query.as_slice()).await?;
    let mut datagram = vec![0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut datagram).await?;
        if let Some(reply) = reply_to(query, &datagram[..length]) {
            return Ok(reply);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &Packet) -> io::Result<Packet> {
    let mut stream = TcpStream::connect(server).await?;
    // A name and twenty bytes more: far from the limit.
    let length = u16::try_from(query.as_slice().len()).map_err(io::Error::other)?;
    let sent = [&length.to_be_bytes(), query.as_slice()].concat();
    stream.write_all(&sent).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    reply_to(query, &bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The bytes as a message, if that is a reply to `query`. A server that cannot read a question need not repeat it.
fn reply_to(query: &Packet, bytes: &[u8]) -> Option<Packet> {
    let reply = Message::from_octets(bytes.to_vec()).ok()?;
    let header = reply.header();
    let refusal = header.qr()
        && header.id() == query.header().id()
        && header.rcode() != Rcode::NOERROR
        && header.rcode() != Rcode::NXDOMAIN
        && reply.header_counts().qdcount() == 0;
    (refusal || reply.is_answer(query)).then_some(reply)
}

fn read(reply: &Packet, family: Family) -> Result<Answer, LookupFailure> {
    match reply.header().rcode() {
        Rcode::NOERROR => {
            let found = addresses(reply, family).ok_or(LookupFailure::Refused(Rcode::FORMERR))?;
            Ok(match found.is_empty() {
                true => Answer::NoAddress,
                false => Answer::Addresses(found),
            })
        }
        Rcode::NXDOMAIN => Ok(Answer::NoSuchName),
        code => Err(LookupFailure::Refused(code)),
    }
}

/// The addresses of the name at the end of the chain of aliases; `None` if the message is broken.
fn addresses(reply: &Packet, family: Family) -> Option<Vec<IpAddr>> {
    let name = reply.canonical_name()?;
    let answers = reply.answer().ok()?;
    let found = match family {
        Family::V4 => answers
            .limit_to_in::<A>()
            .flatten()
            .filter(|record| is_of(record.owner(), &name))
            .map(|record| record.data().addr().into())
            .collect(),
        Family::V6 => answers
            .limit_to_in::<Aaaa>()
            .flatten()
            .filter(|record| is_of(record.owner(), &name))
            .map(|record| record.data().addr().into())
            .collect(),
    };
    Some(found)
}

fn is_of(owner: &ParsedName<&[u8]>, name: &ParsedName<&[u8]>) -> bool {
    owner.name_eq(name)
}
