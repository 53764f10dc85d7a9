//! A table that fits a terminal and is written as it comes. Numbers in it are whole.

use std::io;

use super::ask::{clean, say};

/// Rows of so many cells under a head. The widths are those of the first rows; what is longer is cut.
pub(super) struct Table<const N: usize> {
    head: [&'static str; N],
    waiting: Vec<[String; N]>,
    widths: Option<[usize; N]>,
    width_max: usize,
}

/// Rows that are looked at to find the widths.
const ROWS_LOOKED_AT: usize = 500;

/// What is between two columns.
const GAP: &str = "  ";

/// A number of at most so many digits, which is any `u64`, is never cut: it would be another one.
const DIGITS_MAX: usize = 20;

/// No column is made narrower than that, however narrow the terminal.
const COLUMN_MIN: usize = 6;

// === impl Table ===

impl<const N: usize> Table<N> {
    /// A table for so many columns of text.
    pub(super) fn new(head: [&'static str; N], width_max: usize) -> Self {
        Self { head, waiting: Vec::new(), widths: None, width_max }
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: [String; N]) -> io::Result<()> {
        let row = row.map(|cell| clean(&cell).replace('\n', " "));
        if let Some(widths) = &self.widths {
            return say(&drawn(&row, widths));
        }
        self.waiting.push(row);
        if self.waiting.len() < ROWS_LOOKED_AT { Ok(()) } else { self.flush() }
    }

    /// Writes what is there. Answers whether there was anything.
    pub(super) fn end(&mut self) -> io::Result<bool> {
        self.flush()?;
        Ok(self.widths.is_some())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let widths = self.fitting_widths();
        say(&drawn(&self.head.map(str::to_owned), &widths))?;
        self.widths = Some(widths);
        self.waiting.drain(..).try_for_each(|row| say(&drawn(&row, &widths)))
    }

    /// As wide as the longest cell; when that is too wide, the widest columns give way.
    fn fitting_widths(&self) -> [usize; N] {
        let mut widths = self.head.map(|name| name.chars().count());
        for row in &self.waiting {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let room = self.width_max.saturating_sub(GAP.len() * N.saturating_sub(1));
        while widths.iter().sum::<usize>() > room {
            let Some(widest) = widths.iter_mut().max().filter(|width| **width > COLUMN_MIN) else { break };
            *widest -= 1;
        }
        widths
    }
}

fn drawn<const N: usize>(row: &[String; N], widths: &[usize; N]) -> String {
    let cells: Vec<String> =
        row.iter().zip(widths).map(|(cell, width)| format!("{:<width$}", cut(cell, *width))).collect();
    cells.join(GAP).trim_end().to_owned()
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width || is_number(text) {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn is_number(text: &str) -> bool {
    text.len() <= DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{Table, cut, drawn};

    fn row(cells: [&str; 3]) -> [String; 3] {
        cells.map(str::to_owned)
    }

    #[test]
    fn the_widest_columns_give_way_when_there_is_no_room() {
        let mut table = Table::new(["id", "event", "user"], 30);
        table.waiting.push(row(["1", "a very long name of an event", "somebody@example.com"]));
        let widths = table.fitting_widths();
        assert_eq!(widths.iter().sum::<usize>() + 4, 30);
        assert_eq!(widths[0], 2, "short columns keep their width");
        let line = drawn(&row(["1", "a very long name of an event", "somebody@example.com"]), &widths);
        assert_eq!(line.chars().count(), 30, "{line}");
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
        assert_eq!(cut("äöüß", 4), "äöüß");
        assert_eq!(cut(&"7".repeat(21), 4), "777…");
    }

    #[test]
    fn an_id_that_is_longer_than_those_of_the_first_rows_is_whole() {
        assert!(drawn(&row(["3999", "Any", "u1"]), &[2, 5, 4]).starts_with("3999  Any"));
        assert_eq!(cut(&u64::MAX.to_string(), 6), u64::MAX.to_string());
    }
}
