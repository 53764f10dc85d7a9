//! How long we wait for the other end of a connection.
//!
//! hyper bounds the reading of an HTTP/1 head only: it does not wait for the first byte with a clock, nor for a client
//! that does not read its answer, and its one timer would also end a connection that merely rests between two requests,
//! sooner than a load balancer in front expects. So the socket itself keeps the time: until a request's head is whole,
//! between requests, and while an answer does not get away. The time a body may take is `body`'s.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long we wait, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a head: from the connection's start or the head's first byte to its last.
    pub(super) head: Duration,
    /// For the next request.
    pub(super) idle: Duration,
    /// For room to write.
    pub(super) write: Duration,
}

/// Requests on one connection: how many began and how many of them ended.
#[derive(Debug, Default)]
pub(super) struct Activity {
    began: AtomicUsize,
    ended: AtomicUsize,
}

/// A request under way; it ends when dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Activity>);

/// A socket that gives up.
#[derive(Debug)]
pub(super) struct Patient<I> {
    io: I,
    patience: Patience,
    activity: Arc<Activity>,
    /// Requests that had begun when we last looked.
    seen: usize,
    /// Whether bytes arrived since the last head was whole.
    heard: bool,
    /// In HTTP/2 bytes between requests are the protocol's own business and begin no head.
    is_http2: bool,
    waiting: Option<Waiting>,
    read_deadline: Pin<Box<Sleep>>,
    write_deadline: Option<Pin<Box<Sleep>>>,
}

/// What the other end owes us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Head,
    Request,
}

// === impl Activity, UnderWay ===

impl Activity {
    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.began.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    fn began(&self) -> usize {
        self.began.load(Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        self.ended.load(Ordering::Relaxed) != self.began()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl Patient ===

impl<I> Patient<I> {
    /// A socket on which the time for the first head begins now.
    pub(super) fn new(io: I, patience: Patience, activity: Arc<Activity>) -> Self {
        Self {
            io,
            patience,
            activity,
            seen: 0,
            heard: false,
            is_http2: false,
            waiting: Some(Waiting::Head),
            read_deadline: Box::pin(tokio::time::sleep(patience.head)),
            write_deadline: None,
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        if self.seen == 0 && !self.heard {
            self.is_http2 = bytes.starts_with(b"PRI");
        }
        self.heard = true;
    }

    /// Nothing to read: whose turn is it, and since when?
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let began = self.activity.began();
        if began != self.seen {
            self.seen = began;
            self.heard = false;
            self.waiting = None;
        }
        if self.activity.is_busy() {
            self.waiting = None;
            return Poll::Pending;
        }
        let is_speaking = self.heard && !self.is_http2;
        let waiting = if began == 0 || is_speaking { Waiting::Head } else { Waiting::Request };
        if self.waiting != Some(waiting) {
            self.waiting = Some(waiting);
            self.read_deadline.as_mut().reset(Instant::now() + self.patience.for_(waiting));
        }
        self.read_deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Passes a result of writing on, unless writing has stood still for too long.
    fn pace<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write_deadline = None;
            return polled;
        }
        let patience = self.patience.write;
        let deadline = self.write_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Patience {
    const fn for_(&self, waiting: Waiting) -> Duration {
        match waiting {
            Waiting::Head => self.head,
            Waiting::Request => self.idle,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Patient<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(result) => {
                self.hear(&buf.filled()[before..]);
                Poll::Ready(result)
            }
            Poll::Pending => self.wait(cx),
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Patient<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.pace(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.pace(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        std::task::ready!(self.pace(polled, cx))?;
        // hyper need not look for the next head after an answer, so the wait for it begins here.
        match self.wait(cx) {
            Poll::Ready(over) => Poll::Ready(over),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.pace(polled, cx)
    }
}
