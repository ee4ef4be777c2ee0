//! Why a name has no address, in words that lead to who can mend it. The texts do not repeat the name: whoever shows
//! one knows whether it may.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use domain::base::iana::Rcode;

use crate::{file_access::FileFacts, telemetry::printable};

/// A name has no address, or none is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The DNS says that there is no such name.
    #[error("its name cannot be resolved (no such name); check the name and this machine's DNS")]
    NoSuchName,
    /// The name is there and has neither an IPv4 nor an IPv6 address.
    #[error("its name has no address; check its A and AAAA records")]
    NoAddress,
    /// None of the servers said anything about the name.
    #[error(
        "no DNS server could look up its name ({}); check /etc/resolv.conf, and that no firewall or NetworkPolicy is \
         in the way", list(.0)
    )]
    Unanswered(Vec<ServerFailure>),
    /// The file that says whom to ask names servers, and none by an address.
    #[error(
        "its name cannot be looked up, since {} names no DNS server by its address (nameserver {}); write one there, such as \
         nameserver 192.0.2.53", file.display(), printable(written)
    )]
    NoServer {
        /// The file.
        file: PathBuf,
        /// The first server, as it is written.
        written: String,
    },
    /// The file that says whom to ask, or what names mean, is there and cannot be read.
    #[error(transparent)]
    Unreadable(Box<UnreadableFile>),
}

/// A file of this machine's that is there and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its name cannot be looked up, since {} cannot be read: {error} ({facts}); {advice}", file.display())]
pub struct UnreadableFile {
    /// The file.
    pub file: PathBuf,
    /// Who may read it.
    pub facts: FileFacts,
    /// What the system said.
    pub error: String,
    /// What helps.
    pub advice: String,
}

impl NameError {
    /// A file of ours could not be read.
    pub(super) fn unreadable(file: &Path, error: &io::Error) -> Self {
        let facts = FileFacts::of(file);
        Self::Unreadable(Box::new(UnreadableFile {
            file: file.to_owned(),
            advice: facts.advice(error, None),
            error: error.to_string(),
            facts,
        }))
    }

    /// Whether all servers kept silent: no other name would be answered either.
    pub(super) fn is_silence(&self) -> bool {
        let silent = |server: &ServerFailure| !matches!(server.trouble, LookupFailure::Refused(_));
        matches!(self, Self::Unanswered(servers) if servers.iter().all(silent))
    }
}

fn list(servers: &[ServerFailure]) -> String {
    let words: Vec<_> = servers.iter().map(ServerFailure::to_string).collect();
    words.join(", ")
}

/// A server that was of no use, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFailure {
    /// The server.
    pub server: IpAddr,
    /// What was wrong with it.
    pub trouble: LookupFailure,
}

impl ServerFailure {
    pub(super) fn new(server: SocketAddr, trouble: LookupFailure) -> Self {
        Self {
            server: server.ip(),
            trouble,
        }
    }
}

impl fmt::Display for ServerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.server, self.trouble)
    }
}

/// Why a server was of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupFailure {
    /// It did not answer in time.
    Silent,
    /// It cannot be reached.
    Unreachable(io::ErrorKind),
    /// It answered that it cannot or may not answer.
    Refused(Rcode),
}

impl From<io::Error> for LookupFailure {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error.kind())
    }
}

impl fmt::Display for LookupFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("does not answer"),
            Self::Unreachable(kind) => write!(f, "cannot be reached: {kind}"),
            Self::Refused(code) => write!(f, "says {code}"),
        }
    }
}
