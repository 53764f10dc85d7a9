//! How bytes are packed: files as they are written, request bodies as they are sent.

use std::io::{self, Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression as Level;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// How bytes are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// One gzip member (RFC 1952) at a time: members one after another are a valid file.
    Gzip,
    /// One Zstandard frame (RFC 8878) with a checksum at a time: frames one after another are a valid file.
    Zstd,
}

/// The level that zstd itself takes when nobody says: as fast as gzip's fastest, and smaller than its best.
const ZSTD_LEVEL: i32 = zstd::DEFAULT_COMPRESSION_LEVEL;

// === impl Compression ===

impl Compression {
    /// The bytes, packed to be kept. The same bytes are always packed the same: a gzip member says nothing of when.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn pack(self, bytes: &Bytes) -> io::Result<Bytes> {
        self.pack_at(Level::default(), bytes)
    }

    /// The bytes, packed to be sent once: with gzip's fastest level. `cargo bench --bench bigquery` prints what the levels
    /// cost: the usual one packs rows a sixth smaller, and takes longer than everything else that happens to a row.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn pack_to_send(self, bytes: &Bytes) -> io::Result<Bytes> {
        self.pack_at(Level::fast(), bytes)
    }

    fn pack_at(self, gzip: Level, bytes: &Bytes) -> io::Result<Bytes> {
        match self {
            Self::None => Ok(bytes.clone()),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), gzip);
                encoder.write_all(bytes)?;
                Ok(encoder.finish()?.into())
            }
            Self::Zstd => {
                let mut encoder = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Ok(encoder.compress(bytes)?.into())
            }
        }
    }

    /// What a gzip member holds that is ours.
    pub(super) fn unpack_gzip(bytes: &[u8]) -> io::Result<Bytes> {
        let mut plain = Vec::new();
        GzDecoder::new(bytes).read_to_end(&mut plain)?;
        Ok(plain.into())
    }
}
