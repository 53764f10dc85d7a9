//! Hashes that tell one configuration from the next: of meaning, not of layout.
//!
//! Moving a block, sorting keys or editing a comment changes nothing. Stable within one build of the program.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use toml::de::{DeTable, DeValue};

/// A hash being made.
pub(super) struct Fingerprint(DefaultHasher);

impl Fingerprint {
    pub(super) fn new() -> Self {
        Self(DefaultHasher::new())
    }

    /// Adds anything that can be hashed.
    pub(super) fn add(&mut self, piece: impl Hash) -> &mut Self {
        piece.hash(&mut self.0);
        self
    }

    /// Adds a value of the file, without its place.
    pub(super) fn value(&mut self, value: &DeValue<'_>) -> &mut Self {
        value.type_str().hash(&mut self.0);
        match value {
            DeValue::String(text) => self.add(text),
            DeValue::Integer(integer) => self.add(integer.to_string()),
            DeValue::Float(float) => self.add(float.as_str()),
            DeValue::Boolean(boolean) => self.add(boolean),
            DeValue::Datetime(date) => self.add(date.to_string()),
            DeValue::Array(list) => {
                self.add(list.len());
                list.iter().fold(self, |all, element| all.value(element.get_ref()))
            }
            DeValue::Table(table) => self.table(table, &[]),
        }
    }

    /// Adds a table of the file, whatever the order of its keys, but for some keys.
    pub(super) fn table(&mut self, table: &DeTable<'_>, without: &[&str]) -> &mut Self {
        let entries = table.iter().map(|(key, value)| (key.get_ref().as_ref(), value.get_ref()));
        let sorted: BTreeMap<&str, &DeValue<'_>> = entries.filter(|(key, _)| !without.contains(key)).collect();
        self.add(sorted.len());
        sorted.into_iter().fold(self, |all, (key, value)| all.add(key).value(value))
    }

    pub(super) fn finish(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use toml::de::DeTable;

    use super::Fingerprint;

    fn of(text: &str) -> u64 {
        Fingerprint::new().table(DeTable::parse(text).unwrap().get_ref(), &["skipped"]).finish()
    }

    #[test]
    fn layout_and_comments_do_not_count() {
        let one = of("a = 1\n[b]\nc = 'x'\nd = [1, 2]");
        let other = of("# hi\nb = { d = [ 1,2 ], c = \"x\" } # there\n\na = 1\n");
        assert_eq!(one, other);
    }

    #[test]
    fn keys_that_are_left_out_do_not_count() {
        assert_eq!(of("a = 1\nskipped = 2"), of("a = 1"));
        assert_ne!(of("a = 1\nb = { skipped = 2 }"), of("a = 1\nb = {}"), "only those of the table itself");
    }

    #[test]
    fn meaning_does() {
        let all =
            ["a = 1", "a = 2", "a = '1'", "b = 1", "a = [1]", "a = [[1]]", "a = { b = 1 }", "a = 1.0", "a = true"];
        for (index, one) in all.iter().enumerate() {
            for other in &all[index + 1..] {
                assert_ne!(of(one), of(other), "{one} and {other}");
            }
        }
    }
}
