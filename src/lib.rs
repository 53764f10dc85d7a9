#![doc = include_str!("ARCHITECTURE.md")]

// The order is the rule: a room uses only what stands above it (tests/it/rooms.rs holds us to it).

// --- words: plain data
pub mod event;
pub mod attempt;

// --- rules: pure
pub mod segment;
pub mod expr;
pub mod retry;
pub mod plan;
pub mod config;

// --- shell: where awaiting happens
pub mod clock;
pub mod queue;
pub mod sink;
pub mod deliver;
pub mod rehearse;
pub mod ingest;
pub mod reload;
pub mod telemetry;
pub mod admin;

// --- roof: sees everything, decides nothing
pub mod app;
pub mod vercel;
pub mod cli;
