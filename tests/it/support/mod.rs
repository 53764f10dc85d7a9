//! What the tests stand on: a house with a clock that a test moves, the real binary, and destinations that record.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod app;
pub(crate) mod bigquery;
pub(crate) mod binary;
pub(crate) mod customerio;
pub(crate) mod desk;
pub(crate) mod fake;
pub(crate) mod process;
pub(crate) mod queue;
pub(crate) mod records;
pub(crate) mod sim;
pub(crate) mod tools;
#[cfg(unix)]
pub(crate) mod vercel;

pub(crate) use app::TestApp;
pub(crate) use binary::Binary;
pub(crate) use customerio::Customerio;
pub(crate) use fake::{Answer, Fake};

use std::time::Duration;

/// However slow the machine: what has not happened by then never will.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// An HTTP client, whichever test comes first.
pub(crate) fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "never happened: {what}");
}

/// A file of ours that is made from the code says what the code does; `UPDATE_FIXTURES=1` writes it anew.
pub(crate) fn is_current(name: &str, made: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = made.lines().zip(kept.lines()).find(|(made, kept)| made != kept);
    assert!(
        made == kept,
        "{name} is out of date: run this test with UPDATE_FIXTURES=1. It differs here: {differing:?}"
    );
}
