//! `[queue]`: where accepted events wait, how much of them and for how long.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::expressions::Expressions;
use super::server;
use super::table::{Field, Table};
use crate::plan::{QueueKind, QueueSettings};

pub(super) const KINDS: [(&str, QueueKind); 2] = [("disk", QueueKind::Disk), ("memory", QueueKind::Memory)];

/// Keys of the language that a later version has.
const LATER: [&str; 5] = ["ack", "url", "stream", "replicas", "overflow"];

/// Keys of a queue on disk alone.
const DISK_KEYS: [&str; 3] = ["dir", "retain", "dead_letters"];

/// At least a batch of the usual size (528 KiB) has to fit; beyond a pebibyte somebody mistyped.
pub(super) const MEMORY_SIZES: RangeInclusive<u64> = 1_000_000..=1 << 50;

/// The log is let go a file at a time, and what is noted beside it takes room of its own: with less there would be
/// hardly any for events.
pub(super) const DISK_SIZES: RangeInclusive<u64> = 16_000_000..=1 << 50;

/// At least a batch of the usual size (528 KiB), were all of its events given up on.
pub(super) const LETTERS_SIZES: RangeInclusive<u64> = 1_000_000..=1 << 50;

/// Long enough to be looked at; ten years are longer than any duty to keep records we know of.
pub(super) const RETAIN: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24 * 3_650);

/// Nothing, or up to a week, seven times what Segment does; how many ids that is, `dedup_ids` bounds.
pub(super) const DEDUP: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24 * 7);

/// Fewer would be forgotten within seconds under load; a hundred million take some 5 GB of memory.
pub(super) const DEDUP_IDS: RangeInclusive<u64> = 1_000..=100_000_000;

/// Reads `[queue]`.
pub(super) fn read(expressions: &Expressions<'_>, field: Option<Field<'_>>) -> QueueSettings {
    let mut queue = QueueSettings::default();
    let Some(table) = field.and_then(|field| field.table("[queue]")) else { return queue };
    let kind = table.get("type").map_or(Some(queue.kind), |field| field.word_or_later(&KINDS, &["nats"]));
    queue.kind = kind.unwrap_or(queue.kind);
    let sizes = if kind == Some(QueueKind::Disk) { DISK_SIZES } else { MEMORY_SIZES };
    let size = table.get("max_size").and_then(|field| field.size(sizes));
    queue.size_bytes_max = size.unwrap_or(queue.kind.default_size_bytes_max());
    let dedup_window = table.get("dedup").and_then(|field| dedup(&field));
    queue.dedup_window = dedup_window.unwrap_or(queue.dedup_window);
    let dedup_ids_max = table.get("dedup_ids").and_then(|field| field.count_usize(DEDUP_IDS));
    queue.dedup_ids_max = dedup_ids_max.unwrap_or(queue.dedup_ids_max);
    match queue.kind {
        QueueKind::Disk => disk(expressions, &table, &mut queue),
        QueueKind::Memory => not_in_memory(expressions, &table),
    }
    table.not_yet(&LATER);
    table.finish();
    queue
}

/// A window, or `false`.
fn dedup(field: &Field<'_>) -> Option<Duration> {
    match field.raw().as_bool() {
        Some(false) => Some(Duration::ZERO),
        Some(true) => {
            field.wrong_type("`false` or a duration such as \"24h\"");
            None
        }
        None => field.duration(DEDUP),
    }
}

fn disk(expressions: &Expressions<'_>, table: &Table<'_>, queue: &mut QueueSettings) {
    if let Some(dir) = table.get("dir").and_then(|field| server::path(expressions, &field, "folder")) {
        queue.dir = dir;
    }
    queue.retain = table.get("retain").and_then(|field| field.duration(RETAIN)).unwrap_or(queue.retain);
    let Some(letters) = table.get("dead_letters").and_then(|field| field.table("`dead_letters`")) else { return };
    let retain = letters.get("retain").and_then(|field| field.duration(RETAIN));
    queue.letters_retain = retain.unwrap_or(queue.letters_retain);
    let size = letters.get("max_size").and_then(|field| field.size(LETTERS_SIZES));
    queue.letters_bytes_max = size.unwrap_or(queue.letters_bytes_max);
    letters.finish();
}

fn not_in_memory(expressions: &Expressions<'_>, table: &Table<'_>) {
    for field in DISK_KEYS.iter().filter_map(|key| table.tolerate(key)) {
        let message = format!("`{}` is for `type = \"disk\"`", field.name);
        let error = Diagnostic::error(Code::MisplacedKey, field.key_span(), message);
        expressions.findings.add(error.help("leave it out: a queue in memory keeps nothing when the process ends"));
    }
}
