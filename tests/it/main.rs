//! One test binary; its files are behaviours, and a test's name is the sentence that would be false if it failed.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod accepting;
mod batching;
mod check;
mod command_line;
mod examples;
mod isolation;
mod mapping;
mod queues;
mod readme;
mod reload;
mod retries;
mod rooms;
mod sdks;
mod serving;
mod shutdown;
mod support;
