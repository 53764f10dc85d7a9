//! The control socket: requests from other processes of the same user, as lines of JSON over a Unix socket.
//!
//! One request a connection: a line to the service, then lines back, the last of which says that it is the last. Whoever
//! asks keeps the connection open until then; closing it stops the work.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{ANSWERS_MAX, Answer, Desk, Failed, Request, run};
use crate::plan::{Plan, QueueKind};

/// A socket that requests come in at. Its file goes when it is dropped.
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// The user who may ask, besides root.
    owner: u32,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Its path does not fit into an address.
    #[error("the path {} is too long for a socket: some 100 bytes are what fits", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// Another process listens there.
    #[error("another process listens at {}", path.display())]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// There is something else.
    #[error("{} is there and is not a socket", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot listen at {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why a request did not get through.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No service is there.
    #[error("no service listens at {}", path.display())]
    NobodyListens {
        /// Where.
        path: PathBuf,
    },
    /// It cannot be asked.
    #[error("cannot ask the service at {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The socket's name in a disk queue's folder.
const NAME: &str = "control.sock";

/// Bytes of a request's line: room for some 50,000 ids of dead letters.
const REQUEST_BYTES_MAX: u64 = 1 << 20;

/// Requests that are worked on at a time; more wait in the kernel's backlog.
const CLIENTS_MAX: usize = 32;

/// The longest a request may take to arrive. It is one line of a program on the same machine.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// After a connection could not be taken, of which there may be too many, others get the time.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Where the socket of a service with this plan is: where the file says, else in its queue's folder, else nowhere.
#[must_use]
pub fn path(plan: &Plan) -> Option<PathBuf> {
    plan.server.control.clone().or_else(|| match plan.queue.kind {
        QueueKind::Disk => Some(plan.queue.dir.join(NAME)),
        QueueKind::Memory => None,
    })
}

// === the service's side ===

/// Makes the socket, in place of one that a dead process left.
///
/// # Errors
/// When the path is too long, somebody else listens there, or the file system refuses.
pub async fn listen(path: &Path) -> Result<Listener, ListenError> {
    let failed = |source| ListenError::Io { path: path.to_owned(), source };
    match UnixStream::connect(path).await {
        Ok(_) => return Err(ListenError::Taken { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            return Err(ListenError::TooLong { path: path.to_owned() });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => remove_stale(path)?,
        Err(error) => return Err(failed(error)),
    }
    let socket = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let owner = fs::metadata(path).map_err(failed)?.uid();
    Ok(Listener { socket, path: path.to_owned(), owner })
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Io { path: path.to_owned(), source };
    if !fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
        return Err(ListenError::NotASocket { path: path.to_owned() });
    }
    fs::remove_file(path).map_err(failed)
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Left behind, it would be found stale and replaced.
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers requests until told to stop; what is being worked on then ends as if nobody listened any more.
pub async fn serve(listener: Listener, desk: Arc<Desk>, stop: CancellationToken) {
    let mut talks = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(talk) = talks.join_next() => tell_of_panic(talk),
            accepted = listener.socket.accept(), if talks.len() < CLIENTS_MAX => match accepted {
                Ok((stream, _)) => drop(talks.spawn(talk(stream, Arc::clone(&desk), listener.owner))),
                Err(error) => {
                    tracing::warn!(%error, "a command could not connect");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

fn tell_of_panic(talk: Result<io::Result<()>, tokio::task::JoinError>) {
    // A client that went away is no news.
    if talk.is_err_and(|error| error.is_panic()) {
        tracing::error!("a command's request panicked; this is a bug");
    }
}

async fn talk(stream: UnixStream, desk: Arc<Desk>, owner: u32) -> io::Result<()> {
    // The file's mode says the same, but a moment after the socket is made.
    let user = stream.peer_cred()?.uid();
    if user != owner && user != 0 {
        return Ok(());
    }
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let Ok(line) = timeout(REQUEST_WAIT, request_line(&mut reader)).await else { return Ok(()) };
    let request = match parse(&line?) {
        Ok(request) => request,
        Err(failed) => return write(&mut writer, &[Answer::Failed(failed)]).await,
    };
    let (sender, answers) = mpsc::channel(ANSWERS_MAX);
    let work = async {
        run(&desk, request, sender).await;
        Ok(())
    };
    let told = async { tokio::try_join!(work, tell(answers, &mut writer)).map(|_| ()) };
    tokio::select! {
        told = told => told,
        () = hung_up(reader) => Ok(()),
    }
}

async fn request_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.take(REQUEST_BYTES_MAX).read_until(b'\n', &mut line).await?;
    Ok(line)
}

fn parse(line: &[u8]) -> Result<Request, Failed> {
    if !line.ends_with(b"\n") {
        return Err(Failed::unable(format!("a request is one line of up to {REQUEST_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(line).map_err(|error| {
        let failed = Failed::unable(format!("the service does not understand the request: {error}"));
        failed.with_help("use the command of the version that runs")
    })
}

async fn tell(mut answers: mpsc::Receiver<Answer>, writer: &mut OwnedWriteHalf) -> io::Result<()> {
    let mut some = Vec::new();
    while answers.recv_many(&mut some, ANSWERS_MAX).await > 0 {
        write(writer, &some).await?;
        some.clear();
    }
    Ok(())
}

async fn write(writer: &mut OwnedWriteHalf, answers: &[Answer]) -> io::Result<()> {
    let mut lines = Vec::new();
    for answer in answers {
        serde_json::to_writer(&mut lines, answer)?;
        lines.push(b'\n');
    }
    writer.write_all(&lines).await
}

/// Ready when whoever asked is gone.
async fn hung_up(mut reader: impl AsyncRead + Unpin) {
    let mut ignored = [0; 64];
    while reader.read(&mut ignored).await.is_ok_and(|bytes| bytes > 0) {}
}

// === the asking side ===

/// Asks the service that listens there. The answers end with [`Answer::Done`] or [`Answer::Failed`].
///
/// # Errors
/// When nobody listens there, or it cannot be asked.
pub async fn call(path: &Path, request: &Request) -> Result<mpsc::Receiver<Answer>, CallError> {
    let failed = |source| CallError::Io { path: path.to_owned(), source };
    let stream = UnixStream::connect(path).await.map_err(|error| {
        if is_absence(&error) { CallError::NobodyListens { path: path.to_owned() } } else { failed(error) }
    })?;
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    writer.write_all(&line).await.map_err(failed)?;
    let (sender, answers) = mpsc::channel(ANSWERS_MAX);
    tokio::spawn(async move {
        let failed = forward(reader, &sender).await.err();
        // Held until now: to close it is to hang up.
        drop(writer);
        if let Some(failed) = failed {
            // Nobody may listen any more.
            let _ = sender.send(Answer::Failed(failed)).await;
        }
    });
    Ok(answers)
}

/// Whether nobody can listen there. A path that is too long is one that no service listens at.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, InvalidInput, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused | InvalidInput)
}

/// Passes answers on up to the last one.
async fn forward(reader: impl AsyncRead + Unpin, sender: &mpsc::Sender<Answer>) -> Result<(), Failed> {
    let mut lines = BufReader::new(reader).lines();
    let broken =
        || Failed::unable("the service closed the connection before it was done").with_help("its log may say why");
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line.ok().flatten().ok_or_else(broken)?,
            () = sender.closed() => return Ok(()),
        };
        let answer: Answer = serde_json::from_str(&line).map_err(|error| {
            let failed = Failed::unable(format!("cannot understand the service's answer: {error}"));
            failed.with_help("use the command of the version that runs")
        })?;
        let is_last = matches!(answer, Answer::Done | Answer::Failed(_));
        if sender.send(answer).await.is_err() || is_last {
            return Ok(());
        }
    }
}
