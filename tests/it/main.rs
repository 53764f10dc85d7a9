//! One test binary; its files are behaviours, and a test's name is the sentence that would be false if it failed.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod accepting;
mod acks;
mod auth;
mod backlog;
mod batching;
mod bigquery;
mod bigquery_crash;
mod bigquery_fake;
mod check;
mod command_line;
mod commands;
mod containers;
mod crash;
mod customerio;
mod damage;
mod dead_letters;
mod diff;
mod doctor;
mod durable;
mod effective;
mod examples;
mod explaining;
mod full_disk;
mod google;
mod healthcheck;
mod init;
mod instructions;
mod isolation;
mod layers;
mod limits;
mod mapping;
mod metrics;
mod ordering;
mod policy;
mod power_loss;
mod properties;
mod queues;
mod readme;
mod reload;
mod replay;
mod retries;
mod rooms;
mod schema;
mod sdks;
mod seeds;
mod sentences;
mod serving;
mod shutdown;
mod support;
mod survival;
mod telling;
mod testing;
#[cfg(unix)]
mod vercel;
