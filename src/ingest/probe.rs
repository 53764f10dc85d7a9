//! Asks a door from outside, on its own machine, whether it serves: what a health check does where there is no curl.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::HOST;
use axum::http::{Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Which door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Address and port, as a client writes them.
    address: String,
    tls: bool,
}

/// What is asked: whether the process serves.
const PATH: &str = "/health";

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody listens, or the connection broke.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// TLS is not set up, or not spoken there.
    #[error("cannot speak TLS")]
    Tls(#[source] io::Error),
    /// What came is not HTTP, or nothing came.
    #[error("no answer")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// The certificate is ours and its name is the public one, not this machine's: there is nothing to find out from it. Who
/// could answer at this address instead of us could as well change us.
#[derive(Debug)]
struct Ours(Arc<CryptoProvider>);

// === impl Probe ===

impl Probe {
    /// Of the door that listens at `listen`, as `[server] listen` has it, from the same machine.
    #[must_use]
    pub fn new(listen: &str, tls: bool) -> Self {
        Self { address: reachable(listen), tls }
    }

    /// Where it asks, for people.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{PATH}", self.address)
    }

    /// Asks once.
    ///
    /// # Errors
    /// When nothing that is an answer comes within `timeout`. An answer that says no is an answer.
    pub async fn ask(&self, timeout: Duration) -> Result<StatusCode, ProbeError> {
        tokio::time::timeout(timeout, self.answer()).await.map_err(|_| ProbeError::Late(timeout))?
    }

    async fn answer(&self) -> Result<StatusCode, ProbeError> {
        let stream = TcpStream::connect(&self.address).await.map_err(ProbeError::Connect)?;
        if !self.tls {
            return self.status(stream).await;
        }
        let config = trusting().map_err(|error| ProbeError::Tls(io::Error::other(error)))?;
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        self.status(stream.map_err(ProbeError::Tls)?).await
    }

    async fn status<I>(&self, stream: I) -> Result<StatusCode, ProbeError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends when `sender` goes, and tells us of its errors through it.
        tokio::spawn(connection);
        let request = Request::get(PATH).header(HOST, "localhost").body(Body::empty());
        let request = request.expect("a path and a host that are constants make a request");
        Ok(sender.send_request(request).await?.status())
    }
}

/// Where a client on this machine finds what listens there: every address (`0.0.0.0`, `[::]`) is also the loopback's.
fn reachable(listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(address)) if address.ip().is_unspecified() => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())).to_string()
        }
        Ok(SocketAddr::V6(address)) if address.ip().is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())).to_string()
        }
        Ok(_) | Err(_) => listen.to_owned(),
    }
}

/// A client that takes every certificate. It is asked only by this machine, and told nothing.
fn trusting() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Ours(provider)))
        .with_no_client_auth();
    Ok(config)
}

// === impl Ours ===

impl ServerCertVerifier for Ours {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_at_the_loopbacks_and_any_other_where_it_is() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "http://127.0.0.1:8080/health"),
            ("[::]:8080", "http://[::1]:8080/health"),
            ("127.0.0.2:9000", "http://127.0.0.2:9000/health"),
            ("localhost:9000", "http://localhost:9000/health"),
        ] {
            assert_eq!(Probe::new(listen, false).url(), asked);
        }
        assert_eq!(Probe::new("[::1]:443", true).url(), "https://[::1]:443/health");
    }
}
