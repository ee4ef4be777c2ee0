//! Binds the address that probes and scrapes come to.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the system may hold until they are accepted.
const BACKLOG: i32 = 128;

/// Listens on `addr`. `[::]` takes IPv4 as well, and is `0.0.0.0` on a machine without IPv6.
pub(super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let without_ipv6 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port()));
    match bind(addr) {
        Err(error) if is_any_v6(addr) && says_no_ipv6(&error) => bind(without_ipv6),
        result => result,
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Where the system refuses an option (seccomp), there is still something to listen on.
    if is_any_v6(addr) {
        let _ = socket.set_only_v6(false);
    }
    // So that a restart need not wait for connections of the process before.
    let _ = socket.set_reuse_address(true);
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn is_any_v6(addr: SocketAddr) -> bool {
    addr.is_ipv6() && addr.ip().is_unspecified()
}

/// A kernel without IPv6 knows no such family; one where it is switched off has no such address.
fn says_no_ipv6(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn the_address_for_everybody_takes_ipv4_with_and_without_ipv6() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    }

    #[test]
    fn a_kernel_without_ipv6_is_told_from_a_port_that_is_taken() {
        assert!(says_no_ipv6(&Errno::AFNOSUPPORT.into()));
        assert!(says_no_ipv6(&Errno::ADDRNOTAVAIL.into()));
        let taken = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = listen(taken.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(!says_no_ipv6(&error));
    }
}
