//! Reads an address as people and system files write it.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

/// The address, with port 0: IPv4, IPv6 with or without brackets and `%zone`, IPv4 in IPv6's clothes. `None` if it is
/// a name.
pub(super) fn parse(text: &str) -> Option<SocketAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Some((address, zone)) = bare.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        return Some(SocketAddrV6::new(address, 0, 0, zone_index(zone)?).into());
    }
    let address: IpAddr = bare.parse().ok()?;
    // A mapped address is reached over IPv4 also where the kernel has no IPv6.
    Some(SocketAddr::new(address.to_canonical(), 0))
}

/// A zone is an interface's number or its name.
fn zone_index(zone: &str) -> Option<u32> {
    if let Ok(index) = zone.parse() {
        return Some(index);
    }
    if zone.contains(['/', '.']) {
        return None;
    }
    let index = fs::read_to_string(format!("/sys/class/net/{zone}/ifindex")).ok()?;
    index.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_may_be_an_interface_by_name() {
        let loopback = parse("fe80::1%lo").map(|address| address.to_string());
        assert_eq!(loopback.as_deref(), Some("[fe80::1%1]:0"));
        assert_eq!(parse("fe80::1%no-such-interface"), None);
        assert_eq!(parse("fe80::1%../../etc"), None);
    }

    #[test]
    fn a_name_is_no_address() {
        for name in [
            "",
            "localhost",
            "192.0.2",
            "192.0.2.1.",
            "[",
            "[]",
            "::1]",
            "a:b",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
