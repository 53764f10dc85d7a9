//! Whether a file or folder can be written, found out without writing.

use std::io;
use std::path::{Path, PathBuf};

use crate::plan::{Finding, Grade};

/// How things stand with a file that is to grow.
#[must_use]
pub fn look_at_file(path: &Path) -> Finding {
    let subject = format!("file {}", path.display());
    if path.is_dir() {
        return Finding::new(Grade::Problem, subject, "is a folder").help("name a file in it");
    }
    if path.exists() {
        return told(subject, "can be written", may_write(path), path);
    }
    let folder = path.parent().map_or_else(|| Path::new("."), within);
    let found = look_at_folder(folder);
    let message = if found.grade == Grade::Fine { "can be made".to_owned() } else { found.message };
    Finding { subject, message, ..found }
}

/// How things stand with a folder that is made when it is not there.
#[must_use]
pub fn look_at_folder(path: &Path) -> Finding {
    let subject = format!("folder {}", path.display());
    let existing = existing(path);
    if !existing.is_dir() {
        let message = format!("cannot be made: {} is no folder", existing.display());
        return Finding::new(Grade::Problem, subject, message).help("name another folder");
    }
    let fine = if existing == within(path) { "can be written" } else { "can be made" };
    told(subject, fine, may_write(&existing), &existing)
}

/// The nearest folder above it that is there, or it.
#[must_use]
pub fn existing(path: &Path) -> PathBuf {
    let found = path.ancestors().map(within).find(|candidate| candidate.exists());
    found.unwrap_or(Path::new(".")).to_owned()
}

fn told(subject: String, fine: &str, may: io::Result<()>, looked_at: &Path) -> Finding {
    match may {
        Ok(()) => Finding::new(Grade::Fine, subject, fine),
        Err(error) => {
            let message = format!("cannot be written: {}: {error}", looked_at.display());
            Finding::new(Grade::Problem, subject, message).help("let the user that libroseg runs as write there")
        }
    }
}

/// A relative name of one part lies in the folder that we are in.
fn within(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

#[cfg(unix)]
fn may_write(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    let needed = if path.is_dir() { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
    Ok(access(path, needed)?)
}

#[cfg(not(unix))]
fn may_write(path: &Path) -> io::Result<()> {
    let is_readonly = path.metadata()?.permissions().readonly();
    if is_readonly { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
}
