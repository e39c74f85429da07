//! The nearest known word to one that is not known.

/// The candidate that a person most likely meant, if one is near enough.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    // A third of the word may be wrong; nothing is near a word of one letter.
    let most = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= most && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `did you mean "x"?`, or nothing.
pub(super) fn hint<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(word, candidates).map(|candidate| format!("did you mean {candidate:?}?"))
}

/// The longest word that is compared, in bytes; a longer one is nobody's slip of a key.
const COMPARED_BYTES: usize = 100;

fn distance(word: &str, candidate: &str) -> usize {
    if word.len() > COMPARED_BYTES || candidate.len() > COMPARED_BYTES {
        return usize::MAX;
    }
    strsim::damerau_levenshtein(word, &candidate.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_found_and_another_word_is_not() {
        let known = ["runs-on", "needs", "steps", "if"];
        assert_eq!(nearest("run-on", known), Some("runs-on"));
        assert_eq!(nearest("Steps", known), Some("steps"));
        assert_eq!(nearest("setps", known), Some("steps"));
        assert_eq!(nearest("services", known), None);
        assert_eq!(nearest("x", known), None);
    }
}
