//! What the tests with real SDKs need, which `tests/sdks/install.sh` installs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The drivers and what they are driven with.
pub(crate) fn sdks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdks")
}

/// Whether node and the SDKs for it are there.
pub(crate) fn has_node() -> bool {
    let has_node = || Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    is_there("node and its packages", sdks().join("node_modules/.package-lock.json").exists() && has_node())
}

/// The Python that has the SDK.
pub(crate) fn python() -> Option<PathBuf> {
    let python = sdks().join(".venv/bin/python");
    is_there("python and its packages", python.exists()).then_some(python)
}

/// Whether there is a browser.
pub(crate) fn has_chromium() -> bool {
    let usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(PathBuf::from);
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    is_there("chromium", named.into_iter().chain(usual).any(|path| path.exists()))
}

/// On a developer's machine a missing tool is no failure; in CI nothing may be missing.
pub(crate) fn is_there(what: &str, is_there: bool) -> bool {
    let is_ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(is_there || !is_ci, "{what} not found, run tests/sdks/install.sh");
    is_possible(&format!("{what} not found, run tests/sdks/install.sh"), is_there)
}

/// Says why something cannot be tested on this machine: what it needs is no tool that could be installed.
pub(crate) fn is_possible(why_not: &str, is_possible: bool) -> bool {
    if !is_possible {
        println!("skipped: {why_not}");
    }
    is_possible
}
