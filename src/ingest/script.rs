//! The browser SDK, served from a file: one host less for a page to ask.
//!
//! The file is read when it is asked for and again when it has changed, so a new version needs no restart.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use std::sync::Arc;

/// The file and what was in it.
#[derive(Debug)]
pub struct Script {
    path: PathBuf,
    read: ArcSwapOption<Read>,
}

/// A file's content and by what to see that it changed.
#[derive(Debug)]
struct Read {
    modified: Option<SystemTime>,
    size_bytes: u64,
    content: Bytes,
}

// === impl Script ===

impl Script {
    /// A file to serve; it need not exist yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: ArcSwapOption::empty() }
    }

    /// What is in the file.
    pub(super) async fn content(&self) -> io::Result<Bytes> {
        let metadata = tokio::fs::metadata(&self.path).await?;
        let (modified, size_bytes) = (metadata.modified().ok(), metadata.len());
        if let Some(read) = &*self.read.load()
            && (read.modified, read.size_bytes) == (modified, size_bytes)
        {
            return Ok(read.content.clone());
        }
        let content = Bytes::from(tokio::fs::read(&self.path).await?);
        self.read.store(Some(Arc::new(Read { modified, size_bytes, content: content.clone() })));
        Ok(content)
    }

    /// What is in a file beside it. The SDK's pieces are small and asked for seldom: they are read each time.
    pub(super) async fn bundle(&self, name: &str) -> io::Result<Bytes> {
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        let is_script = Path::new(name).extension().is_some_and(|extension| extension == "js");
        if !name.bytes().all(is_plain) || !is_script {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Bytes::from(tokio::fs::read(self.path.with_file_name(name)).await?))
    }
}
