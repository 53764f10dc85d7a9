//! A request's body: whole, decoded, and never more than we agreed to hold.
//!
//! Any content type will do and any of four codings (`docs/wire-contract.md`). What is bounded: bytes on the wire,
//! bytes decoded (while inflating, so that a bomb costs its limit and no more), the time it may take to arrive, and
//! the bytes of all requests together. It does not look into what it read.

use std::convert::Infallible;
use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::header::{CONTENT_ENCODING, EXPECT};
use axum::http::{HeaderMap, HeaderValue, Request, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tower::{ServiceExt, service_fn};
use tower_http::decompression::RequestDecompression;

/// What one body may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes, on the wire and decoded.
    pub(super) bytes_max: usize,
    /// From the head to the last byte.
    pub(super) timeout: Duration,
    /// Bytes of all bodies that are being read or waiting for the queue.
    pub(super) all_bytes_max: usize,
}

/// Why a body could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    /// More than we take. The wording of its beginning is Segment's.
    #[error("Exceed payload limit: the body is larger than the {bytes_max} bytes accepted here")]
    TooLarge {
        /// What we take.
        bytes_max: usize,
    },
    /// The bytes are not what `Content-Encoding` says.
    #[error("the body is not valid {0}")]
    Broken(&'static str),
    /// A coding we do not know, or too many of them.
    #[error("the content encoding is not one of gzip, deflate, br, zstd, identity")]
    UnknownCoding,
    /// The sender stopped in the middle.
    #[error("the body ended too early")]
    CutOff,
    /// The sender took too long.
    #[error("the body did not arrive in time")]
    Slow,
    /// Everybody together sends more than we hold.
    #[error("too many requests at a time")]
    Crowded,
}

/// Bytes of all bodies that are being read or waiting for the queue.
#[derive(Debug, Default)]
pub struct Bodies {
    bytes: AtomicUsize,
}

/// A body's share in [`Bodies`], given back when dropped.
#[derive(Debug)]
pub(super) struct Share<'a> {
    bodies: &'a Bodies,
    bytes: usize,
}

/// A coding of `Content-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// Nobody codes twice on purpose; a bomb inside a bomb inside a bomb would.
const CODINGS_MAX: usize = 2;

/// A sender that is told "too large" while it still writes may see a reset instead and send it all again, so we hear
/// it out, as long as that stays cheap: eight times the limit for a batch (4 MB is the largest SDK batch known).
const UNHEARD_BYTES_MAX: usize = 8 << 20;

/// Reads a body to its end.
///
/// # Errors
/// When a bound was reached, the sender left, or the bytes cannot be decoded.
pub(super) async fn read<'a>(
    headers: &HeaderMap,
    mut body: Body,
    bounds: Bounds,
    bodies: &'a Bodies,
) -> Result<(Bytes, Share<'a>), Unread> {
    let mut share = Share { bodies, bytes: 0 };
    let reading = collect(&mut body, bounds, &mut share);
    let read = tokio::time::timeout(bounds.timeout, reading).await.unwrap_or(Err(Unread::Slow));
    if matches!(read, Err(Unread::TooLarge { .. })) && !headers.contains_key(EXPECT) {
        // The answer stands, heard out or not.
        let _ = tokio::time::timeout(bounds.timeout, hear_out(&mut body)).await;
    }
    let mut bytes = read?;
    for coding in codings(headers)?.into_iter().rev().flatten() {
        bytes = decode(bytes, coding, bounds, &mut share).await?;
    }
    Ok((bytes, share))
}

/// Puts a body together; one that came in one piece is not copied.
async fn collect(body: &mut Body, bounds: Bounds, share: &mut Share<'_>) -> Result<Bytes, Unread> {
    let told = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut left = bounds.bytes_max;
    if told > left {
        return Err(bounds.too_large());
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unread::CutOff)?.into_data() else { continue };
        left = left.checked_sub(data.len()).ok_or_else(|| bounds.too_large())?;
        share.grow(data.len(), bounds.all_bytes_max)?;
        if first.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(told.max(first.len() + data.len()));
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// Reads on without keeping anything.
async fn hear_out(body: &mut Body) {
    let mut heard = 0;
    while heard < UNHEARD_BYTES_MAX {
        let Some(Ok(frame)) = body.frame().await else { return };
        heard += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// Undoes one coding, stopping at the limit.
async fn decode(bytes: Bytes, coding: Coding, bounds: Bounds, share: &mut Share<'_>) -> Result<Bytes, Unread> {
    let mut decoded = decoder(Body::from(bytes), coding).await;
    collect(&mut decoded, bounds, share).await.map_err(|unread| match unread {
        Unread::CutOff => Unread::Broken(coding.name()),
        Unread::TooLarge { .. } | Unread::Broken(_) | Unread::UnknownCoding | Unread::Slow | Unread::Crowded => unread,
    })
}

/// A body that decodes another while it is read: tower-http's decoders, around a service that hands its request back.
async fn decoder(body: Body, coding: Coding) -> Body {
    let mut request = Request::new(body);
    request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    let hand_back = service_fn(|request: Request<_>| {
        ready(Ok::<_, Infallible>(Response::new(Body::new(Request::into_body(request)))))
    });
    match RequestDecompression::new(hand_back).oneshot(request).await {
        Ok(response) => Body::new(response.into_body()),
        Err(never) => match never {},
    }
}

/// The codings of a body in the order they were applied, over all `Content-Encoding` headers.
fn codings(headers: &HeaderMap) -> Result<[Option<Coding>; CODINGS_MAX], Unread> {
    let mut codings = [None; CODINGS_MAX];
    let mut count = 0;
    for value in headers.get_all(CONTENT_ENCODING) {
        for word in value.to_str().map_err(|_| Unread::UnknownCoding)?.split(',') {
            let Some(coding) = Coding::of(word.trim())? else { continue };
            *codings.get_mut(count).ok_or(Unread::UnknownCoding)? = Some(coding);
            count += 1;
        }
    }
    Ok(codings)
}

// === impl Bounds ===

impl Bounds {
    const fn too_large(&self) -> Unread {
        Unread::TooLarge { bytes_max: self.bytes_max }
    }
}

// === impl Bodies, Share ===

impl Bodies {
    /// Bytes held now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Share<'_> {
    fn grow(&mut self, bytes: usize, all_bytes_max: usize) -> Result<(), Unread> {
        let before = self.bodies.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before.saturating_add(bytes) > all_bytes_max { Err(Unread::Crowded) } else { Ok(()) }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.bodies.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

// === impl Coding ===

impl Coding {
    /// Reads a word of the header; `identity` and nothing are no coding.
    fn of(word: &str) -> Result<Option<Self>, Unread> {
        let is = |name: &str| word.eq_ignore_ascii_case(name);
        match () {
            () if is("") || is("identity") => Ok(None),
            () if is("gzip") || is("x-gzip") => Ok(Some(Self::Gzip)),
            () if is("deflate") => Ok(Some(Self::Deflate)),
            () if is("br") => Ok(Some(Self::Brotli)),
            () if is("zstd") => Ok(Some(Self::Zstd)),
            () => Err(Unread::UnknownCoding),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}
