//! The files of `examples/configs`, part of the program: `extends = "mixpanel"` means one of them.
//!
//! A preset is a whole file of its own, with tests of its own. What a destination takes from it is `layers`' business.

use super::spelling;

/// A file of `examples/configs`.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// The file's name without `.toml`: what `extends` says.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

macro_rules! presets {
    ($($name:literal)*) => {
        &[$(Preset { name: $name, text: include_str!(concat!("../../examples/configs/", $name, ".toml")) }),*]
    };
}

/// Every preset there is, by name.
pub const PRESETS: &[Preset] = presets! {
    "amplitude"
    "archive"
    "bigquery"
    "braze"
    "clickhouse"
    "customerio-batch"
    "customerio"
    "datadog"
    "elasticsearch"
    "firehose"
    "ga4"
    "loki"
    "many"
    "meta"
    "mixpanel"
    "posthog"
    "s3"
    "segment"
    "slack"
    "webhook"
};

/// The preset of a name.
#[must_use]
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// The name of the preset that was probably meant.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    spelling::nearest(name, PRESETS.iter().map(|preset| preset.name))
}

// === impl Preset ===

impl Preset {
    /// What it is for: the file's first line, which is a comment.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use std::fs;
    use std::path::Path;

    use super::PRESETS;

    #[test]
    fn every_example_is_a_preset() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/configs");
        let mut files: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        let presets: Vec<String> = PRESETS.iter().map(|preset| format!("{}.toml", preset.name)).collect();
        assert_eq!(presets, files, "the list in presets.rs names every file, in order");
    }

    #[test]
    fn every_preset_says_first_what_it_is_for() {
        for preset in PRESETS {
            assert!(preset.text.starts_with("# "), "{} begins with a comment", preset.name);
            assert!(!preset.summary().is_empty(), "{} begins with a sentence", preset.name);
        }
    }
}
