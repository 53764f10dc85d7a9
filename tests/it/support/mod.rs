//! What the tests stand on: a house with a clock that a test moves, the real binary, and destinations that record.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod app;
pub(crate) mod binary;
pub(crate) mod desk;
pub(crate) mod fake;
pub(crate) mod queue;
pub(crate) mod records;
pub(crate) mod sim;
pub(crate) mod tools;

pub(crate) use app::TestApp;
pub(crate) use binary::Binary;
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
