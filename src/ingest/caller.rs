//! Who is at the other end, seen through the proxies we trust.
//!
//! A header that anybody may write is believed only when the connection comes from a proxy that the file names.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::uri::{Authority, Scheme};
use axum::http::{HeaderMap, HeaderName};

/// The other end of the connection, put into a request's extensions by whoever accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether it speaks TLS with us.
    pub tls: bool,
}

/// Says whether an address is a proxy of ours.
pub type Trusted = dyn Fn(IpAddr) -> bool + Send + Sync;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The sender's address: the peer's, or behind trusted proxies the nearest one that is none of them.
pub(super) fn address(peer: Option<Peer>, headers: &HeaderMap, trusted: &Trusted) -> Option<IpAddr> {
    let mut nearest = peer?.address.to_canonical();
    for hop in headers.get_all(FORWARDED_FOR).iter().rev().flat_map(|line| line.as_bytes().rsplit(|&b| b == b',')) {
        if !trusted(nearest) {
            break;
        }
        let Some(address) = hop_address(hop) else { break };
        nearest = address;
    }
    Some(nearest)
}

/// One hop of `X-Forwarded-For`: an address, by some proxies with a port.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// The host and port by which the sender knows us, if it is one.
pub(super) fn host(head: &Parts, trusted: &Trusted) -> Option<Authority> {
    let forwarded = forwarded(head, trusted, &FORWARDED_HOST);
    let told = forwarded.or_else(|| head.headers.get(HOST)?.to_str().ok());
    // HTTP/2 says it in the request line.
    let authority = told.map_or_else(|| head.uri.authority().cloned(), |host| host.trim().parse().ok())?;
    (!authority.as_str().contains('@')).then_some(authority)
}

/// `http` or `https`, as the sender sees us.
pub(super) fn protocol(head: &Parts, trusted: &Trusted) -> Scheme {
    let tls = match forwarded(head, trusted, &FORWARDED_PROTO) {
        Some(word) => word.eq_ignore_ascii_case("https"),
        None => peer(head).is_some_and(|peer| peer.tls),
    };
    if tls { Scheme::HTTPS } else { Scheme::HTTP }
}

/// The other end of the connection.
pub(super) fn peer(head: &Parts) -> Option<Peer> {
    head.extensions.get::<Peer>().copied()
}

/// The first word of a header that only a trusted proxy may write.
fn forwarded<'a>(head: &'a Parts, trusted: &Trusted, name: &HeaderName) -> Option<&'a str> {
    if !peer(head).is_some_and(|peer| trusted(peer.address.to_canonical())) {
        return None;
    }
    let word = head.headers.get(name)?.to_str().ok()?.split(',').next()?.trim();
    (!word.is_empty()).then_some(word)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address in a test is one")
    }

    fn address_behind(peer: &str, forwarded_for: &[&'static str]) -> IpAddr {
        let lines = forwarded_for.iter().map(|line| (FORWARDED_FOR, HeaderValue::from_static(line)));
        let headers: HeaderMap = lines.fold(HeaderMap::new(), |mut headers, (name, line)| {
            headers.append(name, line);
            headers
        });
        let in_house = |address: IpAddr| matches!(address, IpAddr::V4(address) if address.octets()[0] == 10);
        address(Some(Peer { address: ip(peer), tls: false }), &headers, &in_house).expect("a peer has an address")
    }

    #[test]
    fn the_sender_is_the_nearest_hop_that_is_no_proxy_of_ours() {
        let cases: &[(&str, &[&str], &str)] = &[
            ("1.1.1.1", &[], "1.1.1.1"),
            ("1.1.1.1", &["9.9.9.9"], "1.1.1.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["9.9.9.9"], "9.9.9.9"),
            ("10.0.0.1", &["6.6.6.6, 9.9.9.9"], "9.9.9.9"),
            ("10.0.0.1", &["6.6.6.6, 9.9.9.9, 10.0.0.2"], "9.9.9.9"),
            ("10.0.0.1", &["6.6.6.6", "9.9.9.9, 10.0.0.2"], "9.9.9.9"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["9.9.9.9:1234"], "9.9.9.9"),
            ("10.0.0.1", &["[2001:db8::1]:1234"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("::ffff:10.0.0.1", &["::ffff:9.9.9.9"], "9.9.9.9"),
            ("10.0.0.1", &[""], "10.0.0.1"),
        ];
        for (peer, forwarded_for, expected) in cases {
            assert_eq!(address_behind(peer, forwarded_for), ip(expected), "{peer} {forwarded_for:?}");
        }
    }
}
