//! The rooms and their one-way rule: a room uses only what stands above it in `lib.rs`.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms that may use only some of what stands above them.
const NARROW: [(&str, &[&str]); 7] = [
    ("segment", &["event", "attempt"]),
    ("expr", &["event", "attempt"]),
    ("retry", &["event", "attempt"]),
    ("queue", &["event", "attempt"]),
    ("sink", &["event", "attempt", "plan"]),
    ("ingest", &["event", "attempt", "segment", "clock", "queue"]),
    ("telemetry", &["attempt", "retry", "queue", "deliver", "ingest"]),
];

/// Words that have no place in a pure room: they await, or ask the world something.
const IMPURE: [&str; 8] =
    ["tokio::", "async fn", "std::env::", "std::fs::", "std::net::Tcp", "Timestamp::now", "SystemTime", "fastrand::"];

/// The rooms that are pure.
const PURE: [&str; 5] = ["segment", "expr", "retry", "plan", "config"];

/// The outside crates that only one room may name.
const FRONT_DOORS: [(&str, &str); 12] = [
    ("gcp_bigquery_client", "plan"),
    ("jsonschema", "plan"),
    ("minijinja", "expr"),
    ("jsonpath_rust", "expr"),
    ("toml", "config"),
    ("axum", "ingest"),
    ("reqwest", "sink"),
    ("notify", "reload"),
    ("prometheus_client", "telemetry"),
    ("indicatif", "cli"),
    ("redb", "queue"),
    ("vercel_runtime", "vercel"),
];

#[test]
fn a_room_uses_only_what_stands_above_it() {
    let rooms = rooms();
    for (position, room) in rooms.iter().enumerate() {
        let above = &rooms[..position];
        for (file, used) in uses(room) {
            let is_known = above.contains(&used) || used == *room;
            assert!(is_known, "{} uses `{used}`, which does not stand above `{room}`", file.display());
        }
    }
}

#[test]
fn a_narrow_room_uses_only_what_it_was_given() {
    for (room, allowed) in NARROW {
        for (file, used) in uses(room) {
            assert!(allowed.contains(&used.as_str()) || used == room, "{} uses `{used}`", file.display());
        }
    }
}

#[test]
fn a_pure_room_asks_the_world_nothing() {
    for room in PURE {
        for (file, text) in files_of(room) {
            for word in IMPURE {
                assert!(!without_tests(&text).contains(word), "{} says `{word}`", file.display());
            }
        }
    }
}

#[test]
fn an_outside_crate_has_one_front_door() {
    for (krate, front_door) in FRONT_DOORS {
        for room in rooms().iter().filter(|room| *room != front_door) {
            for (file, text) in files_of(room) {
                let path = format!("{krate}::");
                let mentions = text.lines().any(|line| {
                    let code = line.trim_start();
                    !code.starts_with("//")
                        && code
                            .split(|c: char| !(c.is_alphanumeric() || "_:".contains(c)))
                            .any(|word| word.starts_with(&path))
                });
                assert!(!mentions, "{} names {krate}, which is {front_door}'s", file.display());
            }
        }
    }
}

/// The modules of `lib.rs`, in order.
fn rooms() -> Vec<String> {
    let text = fs::read_to_string(source_folder().join("lib.rs")).unwrap();
    let rooms: Vec<String> =
        text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect();
    assert!(rooms.len() > 10, "lib.rs is not read right: {rooms:?}");
    rooms
}

/// Which rooms a room's code mentions, with the file that does.
fn uses(room: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for (file, text) in files_of(room) {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for path in line.split("crate::").skip(1) {
                let used: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                found.push((file.clone(), used));
            }
        }
    }
    found
}

/// A room's files with their text.
fn files_of(room: &str) -> Vec<(PathBuf, String)> {
    let single = source_folder().join(format!("{room}.rs"));
    let mut files = if single.exists() { vec![single] } else { Vec::new() };
    collect(&source_folder().join(room), &mut files);
    assert!(!files.is_empty(), "no files for {room}");
    files.into_iter().map(|file| (file.clone(), fs::read_to_string(file).unwrap())).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or_default()
}

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
