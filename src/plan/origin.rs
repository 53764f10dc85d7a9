//! Where a destination is reached: the constant part of its URLs.

use std::fmt;

use url::Url;

use super::{Destination, RequestTemplate};

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether TLS is spoken.
    pub is_tls: bool,
    /// A name, or an IP address (IPv6 without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
}

// === impl Origin ===

impl Origin {
    /// The origin of a URL, or of what is known of one: scheme and host are enough.
    ///
    /// ```
    /// use libroseg::plan::Origin;
    ///
    /// let origin = Origin::of("https://user:secret@crm.example.com/v1/users/").expect("a URL");
    /// assert_eq!(origin.to_string(), "https://crm.example.com");
    /// ```
    #[must_use]
    pub fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let host_end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
        let url = Url::parse(&format!("{scheme}://{}", &rest[..host_end])).ok()?;
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { is_tls: url.scheme() == "https", host, port: url.port_or_known_default()? })
    }

    /// `host:port`, an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.is_tls { ("https", 443) } else { ("http", 80) };
        let authority = self.authority();
        let known = authority.strip_suffix(&format!(":{usual}")).unwrap_or(&authority);
        write!(f, "{scheme}://{known}")
    }
}

// === impl Destination ===

impl Destination {
    /// Where its requests go, each origin once, in the order of the rules.
    #[must_use]
    pub fn origins(&self) -> Vec<Origin> {
        let mut origins = Vec::new();
        for origin in self.rules.iter().filter_map(|rule| origin_of(&rule.request)) {
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
        origins
    }
}

fn origin_of(request: &RequestTemplate) -> Option<Origin> {
    if let Some(insert) = &request.insert {
        return Origin::of(&insert.table.endpoint);
    }
    let url = request.url.as_ref()?;
    let known = url.as_constant().map_or_else(|| url.constant_prefix(), |value| value.as_str().unwrap_or_default());
    Origin::of(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port_alone() {
        for (url, told, authority) in [
            ("https://crm.example.com", "https://crm.example.com", "crm.example.com:443"),
            ("http://127.0.0.1:8080/a?b=c", "http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("HTTPS://[::1]:443/", "https://[::1]", "[::1]:443"),
            ("https://u:p@h.example#x", "https://h.example", "h.example:443"),
            ("https://h.example/users/%", "https://h.example", "h.example:443"),
        ] {
            let origin = Origin::of(url).expect("an origin");
            assert_eq!((origin.to_string().as_str(), origin.authority().as_str()), (told, authority), "{url}");
        }
        assert_eq!(Origin::of("crm.example.com"), None);
        assert_eq!(Origin::of("https://"), None);
    }
}
