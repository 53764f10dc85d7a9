//! Which entry of a list is which: rules have no names, so they are known by what is in them.

use std::collections::BTreeSet;

use serde_json::Value as Json;

/// For each new entry the old one that it was: first the equal ones, then those that have most in common.
pub(super) fn matched(old: &[Json], new: &[Json]) -> Vec<Option<usize>> {
    let mut matched = vec![None; new.len()];
    for (index, now) in new.iter().enumerate() {
        let is_free = |before: &usize| !matched.contains(&Some(*before));
        matched[index] = (0..old.len()).filter(is_free).find(|before| old[*before] == *now);
    }
    while let Some((index, before)) = likest(old, new, &matched) {
        matched[index] = Some(before);
    }
    matched
}

/// Entries are known by their places.
pub(super) fn by_place(old: &[Json], new: &[Json]) -> Vec<Option<usize>> {
    (0..new.len()).map(|index| (index < old.len()).then_some(index)).collect()
}

/// The two that have most in common of those that are left; at least one value, unless they are the last two.
fn likest(old: &[Json], new: &[Json], matched: &[Option<usize>]) -> Option<(usize, usize)> {
    let left_new: Vec<usize> = (0..new.len()).filter(|index| matched[*index].is_none()).collect();
    let left_old: Vec<usize> = (0..old.len()).filter(|before| !matched.contains(&Some(*before))).collect();
    let is_last = left_new.len() == 1 && left_old.len() == 1 && old.len() == new.len();
    let pairs = left_new.iter().flat_map(|index| left_old.iter().map(move |before| (*index, *before)));
    let scored = pairs.map(|(index, before)| (in_common(&old[before], &new[index]), (index, before)));
    // Of equals the first.
    let best = scored.reduce(|best, next| if next.0 > best.0 { next } else { best })?;
    (best.0 > 0 || is_last).then_some(best.1)
}

/// How many values both have at the same place.
fn in_common(old: &Json, new: &Json) -> usize {
    match (old, new) {
        (Json::Object(old), Json::Object(new)) => {
            old.iter().filter_map(|(key, value)| Some(in_common(value, new.get(key)?))).sum()
        }
        (old, new) => usize::from(old == new),
    }
}

/// The new entries that do not stand among the others in the order in which they stood: as few as possible.
pub(super) fn moved(matched: &[Option<usize>]) -> BTreeSet<usize> {
    let known: Vec<(usize, usize)> =
        matched.iter().enumerate().filter_map(|(index, before)| Some((index, (*before)?))).collect();
    // For each the longest run of entries in order that ends with it.
    let mut runs: Vec<Vec<usize>> = Vec::with_capacity(known.len());
    for (place, (index, before)) in known.iter().enumerate() {
        let earlier = (0..place).filter(|other| known[*other].1 < *before).map(|other| &runs[other]);
        let mut run = earlier.max_by_key(|run| run.len()).cloned().unwrap_or_default();
        run.push(*index);
        runs.push(run);
    }
    let longest = runs.into_iter().max_by_key(Vec::len).unwrap_or_default();
    known.into_iter().map(|(index, _)| index).filter(|index| !longest.contains(index)).collect()
}
