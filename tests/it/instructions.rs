//! The guard of `cargo bench --bench instructions`: what it says of a count. Counting itself needs valgrind.

use std::collections::BTreeMap;

#[path = "../benches/instructions/counts.rs"]
mod counts;

use counts::{Counts, Wrong};

fn instructions(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(case, count)| ((*case).to_owned(), *count)).collect()
}

/// What is said of this many instructions where a thousand are stored.
fn said(now: u64) -> Option<String> {
    let stored = Counts { instructions: instructions(&[("row", 1_000)]), ..Counts::default() };
    let mut wrong = stored.compare(&instructions(&[("row", now)]), &["row"]);
    wrong.pop().map(|(_, wrong)| wrong.to_string())
}

#[test]
fn a_count_within_the_margin_is_as_stored() {
    for now in [971, 1_000, 1_029] {
        assert_eq!(said(now), None, "{now}");
    }
}

#[test]
fn a_count_beyond_the_margin_is_wrong_whether_it_is_worse_or_better() {
    assert_eq!(said(1_031).as_deref(), Some("3.1% more instructions than stored"));
    assert_eq!(said(900).as_deref(), Some("10.0% fewer instructions than stored: well done, store it"));
}

#[test]
fn a_case_that_is_not_stored_is_wrong_and_so_is_one_that_is_no_more() {
    let stored = Counts { instructions: instructions(&[("gone", 1_000)]), ..Counts::default() };
    let wrong = stored.compare(&instructions(&[("new", 1_000)]), &["new"]);
    assert_eq!(wrong, [("new".to_owned(), Wrong::NotStored), ("gone".to_owned(), Wrong::NoSuchCase)]);
}

#[test]
fn a_case_that_was_left_out_of_a_run_is_not_missed() {
    let stored = Counts { instructions: instructions(&[("read", 1_000), ("row", 1_000)]), ..Counts::default() };
    assert_eq!(stored.compare(&instructions(&[("row", 1_000)]), &["read", "row"]), []);
}

#[test]
fn what_is_stored_is_read_as_it_was_written() {
    let text = include_str!("../benches/instructions/stored.json");
    let stored: Counts = serde_json::from_str(text).unwrap();
    assert!(!stored.instructions.is_empty());
    assert_eq!(serde_json::to_string_pretty(&stored).unwrap() + "\n", text);
}
