//! What was counted, against what was stored: pure, so that tests/it/instructions.rs can hold it to its word.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// A count may be so far from the stored one, either way: several times what two runs of one program differ by, since an edit
/// elsewhere moves code between the compiler's units, and so what it inlines.
pub(crate) const MARGIN: f64 = 0.03;

/// What `stored.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Who compiled what was counted, as `rustc --version` says it: another one makes other instructions.
    pub(crate) compiler: String,
    /// Instructions per event, by case.
    pub(crate) instructions: BTreeMap<String, u64>,
}

/// What is wrong with a count.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wrong {
    /// It is this part above the stored one.
    More(f64),
    /// It is this part below the stored one: good, and to be kept.
    Fewer(f64),
    /// There is nothing to compare it with.
    NotStored,
    /// It is stored, and there is no such case any more.
    NoSuchCase,
}

// === impl Counts ===

impl Counts {
    /// What is wrong with what was counted, by case. Cases that were left out of this run are not missed.
    pub(crate) fn compare(&self, counted: &BTreeMap<String, u64>, cases: &[&str]) -> Vec<(String, Wrong)> {
        let counted = counted.iter().filter_map(|(case, now)| {
            let wrong = self.instructions.get(case).map_or(Some(Wrong::NotStored), |stored| judge(*stored, *now))?;
            Some((case.clone(), wrong))
        });
        let stale = self.instructions.keys().filter(|case| !cases.contains(&case.as_str()));
        counted.chain(stale.map(|case| (case.clone(), Wrong::NoSuchCase))).collect()
    }
}

/// How much a count differs from the stored one, as a part of that.
#[allow(clippy::cast_precision_loss, reason = "what is counted stays far below 2^52")]
pub(crate) fn change(stored: u64, now: u64) -> f64 {
    now as f64 / stored as f64 - 1.0
}

fn judge(stored: u64, now: u64) -> Option<Wrong> {
    match change(stored, now) {
        change if change > MARGIN => Some(Wrong::More(change)),
        change if change < -MARGIN => Some(Wrong::Fewer(-change)),
        _ => None,
    }
}

// === impl Wrong ===

impl Display for Wrong {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::More(part) => write!(f, "{:.1}% more instructions than stored", part * 100.0),
            Self::Fewer(part) => write!(f, "{:.1}% fewer instructions than stored: well done, store it", part * 100.0),
            Self::NotStored => f.write_str("nothing is stored for it yet"),
            Self::NoSuchCase => f.write_str("stored, and no case any more"),
        }
    }
}
