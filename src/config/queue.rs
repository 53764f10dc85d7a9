//! `[queue]`: where accepted events wait, how much of them and for how long.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::expressions::Expressions;
use super::server;
use super::table::{Field, Table};
use super::target::Target;
use crate::plan::{QueueAck, QueueKind, QueueSettings};

pub(super) const KINDS: [(&str, QueueKind); 2] = [("disk", QueueKind::Disk), ("memory", QueueKind::Memory)];

pub(super) const ACKS: [(&str, QueueAck); 2] = [("queued", QueueAck::Queued), ("delivered", QueueAck::Delivered)];

/// Keys of the language that a later version has.
const LATER: [&str; 4] = ["url", "stream", "replicas", "overflow"];

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

/// Less is no time for a request; a sender that waits longer than five minutes has hung up.
pub(super) const ACK_TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_mins(5);

/// Reads `[queue]`. One whose `type` is not written is on disk, or in memory where there is no disk.
pub(super) fn read(expressions: &Expressions<'_>, field: Option<Field<'_>>) -> QueueSettings {
    let home = match expressions.target() {
        Target::Machine => QueueKind::Disk,
        Target::Vercel { .. } => QueueKind::Memory,
    };
    let mut queue =
        QueueSettings { kind: home, size_bytes_max: home.default_size_bytes_max(), ..QueueSettings::default() };
    let Some(table) = field.and_then(|field| field.table("[queue]")) else { return queue };
    let written = table.get("type");
    let is_written = written.is_some();
    let kind = written.map_or(Some(home), |field| field.word_or_later(&KINDS, &["nats"]));
    queue.kind = kind.unwrap_or(home);
    // What is said of a disk where there is none: `target` tells.
    let is_displaced = !is_written && home == QueueKind::Memory;
    let sizes = if is_displaced || kind == Some(QueueKind::Disk) { DISK_SIZES } else { MEMORY_SIZES };
    let size = table.get("max_size").and_then(|field| field.size(sizes)).filter(|_| !is_displaced);
    queue.size_bytes_max = size.unwrap_or(queue.kind.default_size_bytes_max());
    let dedup_window = table.get("dedup").and_then(|field| dedup(&field));
    queue.dedup_window = dedup_window.unwrap_or(queue.dedup_window);
    let dedup_ids_max = table.get("dedup_ids").and_then(|field| field.count_usize(DEDUP_IDS));
    queue.dedup_ids_max = dedup_ids_max.unwrap_or(queue.dedup_ids_max);
    match queue.kind {
        QueueKind::Disk => {
            disk(expressions, &table, &mut queue);
            not_on_disk(expressions, &table, is_written);
        }
        QueueKind::Memory if is_displaced => {
            disk(expressions, &table, &mut queue);
            memory(expressions, &table, &mut queue);
        }
        QueueKind::Memory => {
            memory(expressions, &table, &mut queue);
            not_in_memory(expressions, &table);
        }
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

fn memory(expressions: &Expressions<'_>, table: &Table<'_>, queue: &mut QueueSettings) {
    queue.ack = table.get("ack").and_then(|field| field.word(&ACKS)).unwrap_or(queue.ack);
    let Some(field) = table.get("ack_timeout") else { return };
    queue.ack_timeout = field.duration(ACK_TIMEOUTS).unwrap_or(queue.ack_timeout);
    if queue.ack == QueueAck::Queued {
        let message = "`ack_timeout` has no effect: a sender hears 200 at once";
        let warning = Diagnostic::warning(Code::NoEffect, field.key_span(), message);
        expressions.findings.add(warning.help("it is for `ack = \"delivered\"`"));
    }
}

/// On disk an event is safe before it is delivered. A file that leaves it to the place where it runs may say `ack` for
/// places without a disk.
fn not_on_disk(expressions: &Expressions<'_>, table: &Table<'_>, is_written: bool) {
    for field in ["ack", "ack_timeout"].into_iter().filter_map(|key| table.tolerate(key)) {
        if field.name == "ack" && field.word(&ACKS) != Some(QueueAck::Delivered) {
            continue;
        }
        let message = format!("`{}` is for `type = \"memory\"`", field.name);
        let help = "leave it out: on disk an event is safe before it is delivered";
        if is_written {
            expressions.findings.add(Diagnostic::error(Code::MisplacedKey, field.key_span(), message).help(help));
        } else {
            let message = format!("{message}: on a machine, where the queue is on disk, it has no effect");
            let warning = Diagnostic::warning(Code::NoEffect, field.key_span(), message);
            expressions.findings.add(warning.help("write `type = \"memory\"` if the queue is to forget here as well"));
        }
    }
}

fn not_in_memory(expressions: &Expressions<'_>, table: &Table<'_>) {
    for field in DISK_KEYS.iter().filter_map(|key| table.tolerate(key)) {
        let message = format!("`{}` is for `type = \"disk\"`", field.name);
        let error = Diagnostic::error(Code::MisplacedKey, field.key_span(), message);
        expressions.findings.add(error.help("leave it out: a queue in memory keeps nothing when the process ends"));
    }
}
