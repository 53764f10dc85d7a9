//! Goes as far towards a host as no request is needed: its name, a connection, its certificate.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::select_ok;
use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use jiff::{SignedDuration, Timestamp};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Look, certificate, told_time};
use crate::plan::{Finding, Grade, Origin};

/// Whoever renews certificates does so weeks before their end; one that is this near to it was forgotten.
const CERTIFICATE_LEFT_MIN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Bytes of a proxy's answer to `CONNECT`.
const PROXY_ANSWER_BYTES_MAX: usize = 16 << 10;

/// Why a host was not reached, and what to do about it.
struct Stopped {
    message: String,
    help: &'static str,
}

/// Where a connection ends on our side of things.
struct Way {
    /// What is connected to: the host, or a proxy.
    authority: String,
    proxy: Option<Intercept>,
}

/// Reaches a host, and says how far it came.
pub(super) async fn reach(origin: &Origin, tls: &Arc<ClientConfig>, look: Look) -> Finding {
    let subject = origin.to_string();
    match reached(origin, tls, look).await {
        Ok(found) => Finding { subject, ..found },
        Err(Stopped { message, help }) => Finding::new(Grade::Problem, subject, message).help(help),
    }
}

async fn reached(origin: &Origin, tls: &Arc<ClientConfig>, look: Look) -> Result<Finding, Stopped> {
    let began = Instant::now();
    let way = Way::to(origin);
    let mut stream = way.connect(look.timeout).await?;
    let through = way.told();
    if !way.leads_there() {
        let message =
            format!("is behind {through}, which is reached in {}: what it does is not looked at", told_time(began));
        return Ok(Finding::new(Grade::Unknown, "", message));
    }
    if !origin.is_tls {
        let message = format!("{}is reached in {}", way.prefix(), told_time(began));
        return Ok(Finding::new(Grade::Fine, "", message));
    }
    if let Some(proxy) = &way.proxy {
        let tunnel = in_time(look.timeout, "the proxy's answer", tunnel(&mut stream, origin, proxy)).await?;
        tunnel.map_err(|error| stopped(format!("{through} does not let us through: {error}"), PROXY_HELP))?;
    }
    let stream = handshake(origin, tls, stream, look.timeout).await?;
    Ok(certified(&stream, &format!("{}is reached in {}", way.prefix(), told_time(began)), look.now))
}

const PROXY_HELP: &str = "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say which proxy is asked";

// === impl Way ===

impl Way {
    /// As requests go: the same proxies, from the same variables.
    fn to(origin: &Origin) -> Self {
        let uri: Option<Uri> = origin.to_string().parse().ok();
        let proxy = uri.and_then(|uri| Matcher::from_system().intercept(&uri));
        let of_proxy = proxy.as_ref().and_then(|proxy| {
            let usual = if proxy.uri().scheme_str() == Some("https") { 443 } else { 80 };
            Some(format!("{}:{}", proxy.uri().host()?, proxy.uri().port_u16().unwrap_or(usual)))
        });
        Self { authority: of_proxy.unwrap_or_else(|| origin.authority()), proxy }
    }

    /// Whether we can go on from where it ends. A proxy that is reached by TLS or SOCKS is somebody else's to speak to; one
    /// for `http` takes requests alone.
    fn leads_there(&self) -> bool {
        self.proxy.as_ref().is_none_or(|proxy| proxy.uri().scheme_str() == Some("http"))
    }

    fn told(&self) -> String {
        format!("the proxy {}", self.authority)
    }

    fn prefix(&self) -> String {
        if self.proxy.is_some() { format!("through {} ", self.told()) } else { String::new() }
    }

    async fn connect(&self, timeout: Duration) -> Result<TcpStream, Stopped> {
        let whose = if self.proxy.is_some() { self.told() } else { "its name".to_owned() };
        let lookup = in_time(timeout, "an address for its name", tokio::net::lookup_host(&self.authority)).await?;
        let none = |why: String| stopped(format!("{whose} has no address: {why}"), NAME_HELP);
        let addresses: Vec<_> = lookup.map_err(|error| none(innermost(&error)))?.collect();
        let Some(first) = addresses.first() else { return Err(none("the name server knows none".to_owned())) };
        // All at once, as a client that goes by RFC 8305 nearly does: one that is dead does not hide one that is not.
        let connecting = select_ok(addresses.iter().map(|address| TcpStream::connect(address).boxed()));
        let connected = in_time(timeout, "a connection", connecting).await?;
        connected.map(|(stream, _)| stream).map_err(|error| {
            let help = "is it running, and may this machine reach it?";
            stopped(format!("there is no connection to {first}: {error}"), help)
        })
    }
}

const NAME_HELP: &str = "is the host written right, and does this machine's name server know it?";

async fn in_time<T>(timeout: Duration, what: &str, step: impl Future<Output = T>) -> Result<T, Stopped> {
    let ended = tokio::time::timeout(timeout, step).await;
    ended.map_err(|_| {
        let message = format!("there is not {what} within {timeout:?}");
        stopped(message, "is it running, and may this machine reach it? `--timeout` waits longer")
    })
}

fn stopped(message: String, help: &'static str) -> Stopped {
    Stopped { message, help }
}

fn innermost(error: &io::Error) -> String {
    error.get_ref().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Has a proxy connect us (RFC 9110, 9.3.6).
async fn tunnel(stream: &mut TcpStream, origin: &Origin, proxy: &Intercept) -> io::Result<()> {
    let authority = origin.authority();
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some(credentials) = proxy.basic_auth() {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(credentials.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") && answer.len() < PROXY_ANSWER_BYTES_MAX {
        answer.push(stream.read_u8().await?);
    }
    let first = String::from_utf8_lossy(&answer);
    let first = first.lines().next().unwrap_or_default();
    let is_through = first.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
    if is_through { Ok(()) } else { Err(io::Error::other(first.to_owned())) }
}

async fn handshake(
    origin: &Origin,
    tls: &Arc<ClientConfig>,
    stream: TcpStream,
    timeout: Duration,
) -> Result<TlsStream<TcpStream>, Stopped> {
    let name = ServerName::try_from(origin.host.clone());
    let name = name.map_err(|_| stopped("has no name that a certificate could be for".to_owned(), NAME_HELP))?;
    let connected = in_time(timeout, "TLS", TlsConnector::from(Arc::clone(tls)).connect(name, stream)).await?;
    connected.map_err(|error| {
        stopped(
            format!("TLS cannot be agreed on: {}", innermost(&error)),
            "a certificate of a CA of your own belongs among the system's, or into the file that SSL_CERT_FILE names",
        )
    })
}

/// What is told of a host whose certificate is good.
fn certified(stream: &TlsStream<TcpStream>, reached: &str, now: Timestamp) -> Finding {
    let (_, connection) = stream.get_ref();
    let certificates = connection.peer_certificates().unwrap_or_default();
    let Some(end) = certificates.first().and_then(|certificate| certificate::not_after(certificate)) else {
        return Finding::new(Grade::Fine, "", format!("{reached}, its certificate is good"));
    };
    let day = end.strftime("%Y-%m-%d");
    if end.duration_since(now) < CERTIFICATE_LEFT_MIN {
        let warning = Finding::new(Grade::Warning, "", format!("{reached}, its certificate ends on {day}"));
        return warning.help("tell whoever runs it: they forgot to renew it");
    }
    Finding::new(Grade::Fine, "", format!("{reached}, its certificate is good until {day}"))
}
