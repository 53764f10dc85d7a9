//! "Did you mean": the nearest of the words that would have been right.

/// The word nearest to `written`, if it is near enough to be what was meant.
///
/// Nearness is Damerau-Levenshtein distance without regard to case: a slip in words of up to four letters, one more
/// for every four beyond. Of equally near words the first one wins.
pub(crate) fn nearest<'w>(written: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let written = written.to_lowercase();
    // What is absurdly long is no slip, and comparing it is slow.
    if written.is_empty() || written.len() > 80 {
        return None;
    }
    let allowed = 1 + written.chars().count().saturating_sub(1) / 4;
    let distance = |word: &str| strsim::damerau_levenshtein(&written, &word.to_lowercase());
    let near = words
        .into_iter()
        .map(|word| (distance(word), word))
        .filter(|(distance, word)| *distance <= allowed && *distance < word.chars().count().max(2));
    near.min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

/// `a`, `b` or `c`.
pub(super) fn alternatives<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{alternatives, nearest};

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let words = ["timeout", "url", "headers", "when", "on"];
        assert_eq!(nearest("timeuot", words), Some("timeout"));
        assert_eq!(nearest("Header", words), Some("headers"));
        assert_eq!(nearest("ulr", words), Some("url"));
        assert_eq!(nearest("no", words), Some("on"));
        assert_eq!(nearest("compression", words), None);
        assert_eq!(nearest("x", words), None);
        assert_eq!(nearest("", words), None);
        assert_eq!(nearest(&"timeout".repeat(1000), words), None);
    }

    #[test]
    fn words_are_listed_as_in_a_sentence() {
        assert_eq!(alternatives(["a", "b", "c"]), "`a`, `b` or `c`");
        assert_eq!(alternatives(["a"]), "`a`");
        assert_eq!(alternatives([]), "");
    }
}
