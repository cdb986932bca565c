//! The word that was meant, for messages about names nobody knows.

/// Longer names than any of ours are not compared.
const COMPARED_BYTES_MAX: usize = 32;
/// More slips than this, and it is another word.
const SLIPS_MAX: usize = 2;

/// The name nearest to a misspelt one, if any is near.
pub fn closest<'a>(names: impl IntoIterator<Item = &'a str>, word: &str) -> Option<&'a str> {
    let (slips, name) = names.into_iter().map(|name| (edit_distance(name, word), name)).min()?;
    (slips <= SLIPS_MAX).then_some(name)
}

/// ` (did you mean "threads"?)`, or nothing.
pub fn hint<'a>(names: impl IntoIterator<Item = &'a str>, word: &str) -> String {
    closest(names, word).map_or(String::new(), |name| format!(" (did you mean \"{name}\"?)"))
}

/// Insertions, deletions and substitutions.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if b.len() > COMPARED_BYTES_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + (ca != cb) as usize;
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_slips_are_near() {
        let names = ["context_tokens", "threads"];
        assert_eq!(closest(names, "thread"), Some("threads"));
        assert_eq!(closest(names, "context_token"), Some("context_tokens"));
        assert_eq!(closest(names, "tokens"), None);
        assert_eq!(closest(names, &"x".repeat(1000)), None);
        assert_eq!(closest([], "threads"), None);
    }
}
