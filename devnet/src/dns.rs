//! DNS servers that answer from a few records, fail as they are told, and keep a record of what they were asked.
//!
//! Invariant: nothing that one serves outlives it.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use domain::{
    base::{Message, MessageBuilder, Name, Rtype, Ttl, iana::Rcode},
    rdata::{A, Aaaa, Cname},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::{JoinHandle, JoinSet},
};

use crate::journal::{Journal, lock};

/// How often a port is looked for that is free on every address, for UDP and for TCP.
const PORTS_TRIED: usize = 16;

/// How long what is answered holds. Nobody should keep it: a test that asks twice wants two answers.
const TTL: Ttl = Ttl::from_secs(3600);

/// A question as a server got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The name, without the dot at its end.
    pub name: String,
    /// For an IPv6 address rather than an IPv4 one.
    pub v6: bool,
    /// Over TCP rather than UDP.
    pub tcp: bool,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.v6 { "AAAA" } else { "A" };
        let over = if self.tcp { " over TCP" } else { "" };
        write!(f, "{} {kind}{over}", self.name)
    }
}

/// What a server does instead of answering from its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing at all.
    Silence,
    /// It answers, but only after a while.
    Delay(Duration),
    /// It refuses, with SERVFAIL.
    Failure,
    /// It refuses, with REFUSED and without repeating the question.
    Refusal,
    /// It says that there is no such name.
    Denial,
    /// It says that the answer does not fit, and holds as many of its addresses as given.
    Truncation(usize),
    /// Somebody else is quicker: first comes an answer with another id, then one to another question, then its own.
    Forgery,
}

type Rule = (Box<dyn Fn(&Asked) -> bool + Send + Sync>, Fault);

#[derive(Default)]
struct Zone {
    addresses: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    aliases: Mutex<BTreeMap<String, String>>,
    rules: Mutex<Vec<Rule>>,
    asked: Journal<Asked>,
}

/// A server on loopback, for UDP and TCP; it ends when it is dropped.
pub struct NameServer {
    addr: SocketAddr,
    zone: Arc<Zone>,
    tasks: [JoinHandle<()>; 2],
}

impl NameServer {
    /// One server.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start() -> io::Result<Self> {
        Ok(Self::several::<1>()
            .await?
            .into_iter()
            .next()
            .unwrap_or_else(|| unreachable!()))
    }

    /// Some servers, at 127.0.0.1 and the addresses after it, all with the same port.
    ///
    /// # Errors
    /// There is no port that is free on all of them.
    pub async fn several<const N: usize>() -> io::Result<[Self; N]> {
        let mut result = Err(io::ErrorKind::AddrInUse.into());
        for _ in 0..PORTS_TRIED {
            result = Self::on_one_port().await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn on_one_port<const N: usize>() -> io::Result<[Self; N]> {
        let mut port = 0;
        let mut servers = Vec::with_capacity(N);
        for last in (1..=u8::MAX).take(N) {
            let server = Self::start_at(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port)));
            let server = server.await?;
            port = server.addr.port();
            servers.push(server);
        }
        servers
            .try_into()
            .map_err(|_| io::ErrorKind::AddrNotAvailable.into())
    }

    async fn start_at(addr: SocketAddr) -> io::Result<Self> {
        let udp = UdpSocket::bind(addr).await?;
        let addr = udp.local_addr()?;
        let tcp = TcpListener::bind(addr).await?;
        let zone = Arc::<Zone>::default();
        let tasks = [
            tokio::spawn(serve_udp(Arc::new(udp), Arc::clone(&zone))),
            tokio::spawn(serve_tcp(tcp, Arc::clone(&zone))),
        ];
        Ok(Self { addr, zone, tasks })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Gives a name one more address; other families then have none, instead of the name not being there.
    pub fn add(&self, name: &str, address: &str) {
        let address = address.parse().expect("an address");
        let mut addresses = lock(&self.zone.addresses);
        addresses.entry(name.to_owned()).or_default().push(address);
    }

    /// Makes a name known that has records of other kinds only.
    pub fn add_without_address(&self, name: &str) {
        lock(&self.zone.addresses)
            .entry(name.to_owned())
            .or_default();
    }

    /// Takes a name away.
    pub fn remove(&self, name: &str) {
        lock(&self.zone.addresses).remove(name);
    }

    /// Makes a name another one's alias.
    pub fn alias(&self, name: &str, target: &str) {
        lock(&self.zone.aliases).insert(name.to_owned(), target.to_owned());
    }

    /// Fails questions that match, until [`NameServer::heal`]; of several rules the first that matches.
    pub fn fail(&self, fault: Fault, matches: impl Fn(&Asked) -> bool + Send + Sync + 'static) {
        lock(&self.zone.rules).push((Box::new(matches), fault));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        lock(&self.zone.rules).clear();
    }

    /// What it was asked so far, in this order.
    pub fn asked(&self) -> Vec<Asked> {
        self.zone
            .asked
            .all()
            .iter()
            .map(|asked| Asked::clone(asked))
            .collect()
    }

    /// Waits until it was asked this, from the start.
    pub async fn wait_until_asked(&self, what: &str, matches: impl Fn(&Asked) -> bool) -> Asked {
        let (_, asked) = self.zone.asked.find(0, what, matches).await;
        Asked::clone(&asked)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, zone: Arc<Zone>) {
    let mut answers = JoinSet::new();
    let mut datagram = vec![0; 4096];
    // An error is about an answer sent before, to somebody who no longer waits for it.
    loop {
        let Ok((length, from)) = socket.recv_from(&mut datagram).await else {
            continue;
        };
        let (question, zone, socket) = (
            datagram[..length].to_vec(),
            Arc::clone(&zone),
            Arc::clone(&socket),
        );
        answers.spawn(async move {
            for answer in zone.answers(question, false).await.unwrap_or_default() {
                let _ = socket.send_to(&answer, from).await;
            }
        });
        while answers.try_join_next().is_some() {}
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let zone = Arc::clone(&zone);
            connections.spawn(async move { serve_connection(stream, &zone).await });
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Ends with the connection, whatever ends that.
async fn serve_connection(mut stream: TcpStream, zone: &Zone) -> Option<()> {
    loop {
        let length = stream.read_u16().await.ok()?;
        let mut question = vec![0; length.into()];
        stream.read_exact(&mut question).await.ok()?;
        for answer in zone.answers(question, true).await? {
            let length = u16::try_from(answer.len()).ok()?;
            stream.write_u16(length).await.ok()?;
            stream.write_all(&answer).await.ok()?;
        }
    }
}

impl Zone {
    /// The messages to send back; `None` if there is none to be sent, ever.
    async fn answers(&self, question: Vec<u8>, tcp: bool) -> Option<Vec<Vec<u8>>> {
        let question = Message::from_octets(question).ok()?;
        let first = question.first_question()?;
        let asked = Asked {
            name: first.qname().to_string(),
            v6: first.qtype() == Rtype::AAAA,
            tcp,
        };
        self.asked.push(Arc::new(asked.clone()));
        let own = || self.answer(&question, &asked, usize::MAX, false);
        Some(match self.fault(&asked) {
            None => vec![own()],
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                vec![own()]
            }
            Some(Fault::Failure) => vec![empty(&question, Rcode::SERVFAIL)],
            Some(Fault::Refusal) => vec![without_question(&question, Rcode::REFUSED)],
            Some(Fault::Denial) => vec![empty(&question, Rcode::NXDOMAIN)],
            Some(Fault::Truncation(count)) => vec![self.answer(&question, &asked, count, true)],
            Some(Fault::Forgery) => {
                vec![with_another_id(own()), another_question(&question), own()]
            }
        })
    }

    fn fault(&self, asked: &Asked) -> Option<Fault> {
        let rules = lock(&self.rules);
        let rule = rules.iter().find(|(matches, _)| matches(asked));
        rule.map(|(_, fault)| *fault)
    }

    /// An answer from the records. Aliases come last and in no order, which is allowed and happens.
    fn answer(
        &self,
        question: &Message<Vec<u8>>,
        asked: &Asked,
        count: usize,
        truncated: bool,
    ) -> Vec<u8> {
        let (chain, last) = self.chain(&asked.name);
        let addresses = lock(&self.addresses).get(&last).cloned();
        let code = match addresses {
            Some(_) => Rcode::NOERROR,
            None => Rcode::NXDOMAIN,
        };
        let mut message = MessageBuilder::new_vec()
            .start_answer(question, code)
            .expect("a question");
        message.header_mut().set_ra(true);
        message.header_mut().set_tc(truncated);
        let fitting = addresses
            .unwrap_or_default()
            .into_iter()
            .filter(|ip| ip.is_ipv6() == asked.v6);
        for address in fitting.take(count) {
            match address {
                IpAddr::V4(ip) => message.push((name(&last), TTL, A::new(ip))),
                IpAddr::V6(ip) => message.push((name(&last), TTL, Aaaa::new(ip))),
            }
            .expect("room");
        }
        for (alias, target) in chain.iter().rev() {
            message
                .push((name(alias), TTL, Cname::new(name(target))))
                .expect("room");
        }
        message.finish()
    }

    /// The aliases from this name on, and the name that is none.
    fn chain(&self, from: &str) -> (Vec<(String, String)>, String) {
        let aliases = lock(&self.aliases);
        let mut chain = Vec::new();
        let mut last = from.to_lowercase();
        while let Some(target) = aliases.get(&last)
            && chain.len() < aliases.len()
        {
            chain.push((last, target.clone()));
            last = target.clone();
        }
        (chain, last)
    }
}

fn empty(question: &Message<Vec<u8>>, code: Rcode) -> Vec<u8> {
    let answer = MessageBuilder::new_vec().start_answer(question, code);
    answer.expect("a question").finish()
}

fn without_question(question: &Message<Vec<u8>>, code: Rcode) -> Vec<u8> {
    let mut message = MessageBuilder::new_vec();
    let header = message.header_mut();
    header.set_id(question.header().id());
    header.set_qr(true);
    header.set_rcode(code);
    message.finish()
}

fn with_another_id(mut answer: Vec<u8>) -> Vec<u8> {
    answer[0] ^= 0xff;
    answer
}

fn another_question(question: &Message<Vec<u8>>) -> Vec<u8> {
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(question.header().id());
    message.header_mut().set_qr(true);
    let mut message = message.question();
    message
        .push((name("forged.example"), Rtype::A))
        .expect("room");
    let mut message = message.answer();
    let forged = A::new(Ipv4Addr::new(203, 0, 113, 66));
    message
        .push((name("forged.example"), TTL, forged))
        .expect("room");
    message.finish()
}

fn name(text: &str) -> Name<Vec<u8>> {
    Name::vec_from_str(text).expect("a name")
}
