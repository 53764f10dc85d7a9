//! TLS at the door: a certificate and a key from PEM files, and nothing to choose.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Certificate and key in force; connections that stand keep what they began with.
#[derive(Debug)]
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    config: ArcSwap<ServerConfig>,
}

/// Why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable, or not PEM.
    #[error("{} cannot be read as PEM", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The certificate file holds none.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The key file holds none.
    #[error("{} holds no private key", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// They do not belong together, or are of a kind we cannot use.
    #[error("certificate and key cannot be used together")]
    Unusable(#[source] rustls::Error),
}

/// Android prefers HTTP/2 where it is offered; everybody else speaks 1.1.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

// === impl Tls ===

impl Tls {
    /// Reads a certificate chain and its private key.
    ///
    /// # Errors
    /// When a file cannot be read, holds something else, or the two do not belong together.
    pub fn open(cert: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let config = ArcSwap::from_pointee(read(&cert, &key)?);
        Ok(Self { cert, key, config })
    }

    /// Reads both files again, for connections to come. On an error the old pair stays.
    ///
    /// # Errors
    /// As for [`Tls::open`].
    pub fn reload(&self) -> Result<(), TlsError> {
        self.config.store(Arc::new(read(&self.cert, &self.key)?));
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }
}

fn read(cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: cert.to_owned(), source };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(cert).map_err(unreadable)?.collect::<Result<_, _>>().map_err(unreadable)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: cert.to_owned() });
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|source| {
        let path = key.to_owned();
        if matches!(source, pem::Error::NoItemsFound) {
            TlsError::NoKey { path }
        } else {
            TlsError::Unreadable { path, source }
        }
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}
