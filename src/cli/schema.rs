//! `libroseg schema`: what editors need to know of the file, to complete, explain and underline while it is written.

use crate::config;

pub(super) const EXAMPLES: &str = "\
Editors with Taplo (Even Better TOML and others) read the schema that a file names in its first line:
  #:schema libroseg.schema.json

Examples:
  libroseg schema > libroseg.schema.json";

/// Prints the schema, the same for every file.
pub(super) fn run() -> u8 {
    super::answer(&format!("{:#}\n", config::schema()))
}
