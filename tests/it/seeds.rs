//! The fuzzers' inputs that are worth keeping, and the files we have anyway, against what must hold of any input.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../fuzz/invariants.rs"]
mod invariants;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// Says which input it is that breaks a promise.
fn hold(folder: &str, invariant: fn(&[u8])) {
    for file in files(folder) {
        let data = fs::read(&file).unwrap();
        let outcome = std::panic::catch_unwind(|| invariant(&data));
        assert!(outcome.is_ok(), "{} breaks a promise", file.display());
    }
}

#[test]
fn any_text_compiles_or_is_told_what_is_wrong() {
    for folder in ["fuzz/corpus/plan", "fixtures/config", "../examples/configs"] {
        hold(folder, invariants::plan);
    }
}

#[test]
fn any_event_and_answer_are_taken_by_what_compiles() {
    hold("fuzz/corpus/requests", invariants::requests);
}

#[test]
fn any_body_is_read_or_turned_away() {
    for folder in ["fuzz/corpus/events", "fixtures/captures"] {
        hold(folder, invariants::events);
    }
}
