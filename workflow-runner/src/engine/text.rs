//! Small helpers for text that people read.

/// An error's text as a sentence: with a capital and a full stop.
pub(super) fn sentence(text: &str) -> String {
    let mut characters = text.trim_end_matches('.').chars();
    let Some(first) = characters.next() else { return String::new() };
    format!("{}{}.", first.to_uppercase(), characters.as_str())
}

/// A number of minutes as people write it.
pub(super) fn minutes(minutes: f64) -> String {
    if minutes == 1.0 { "1 minute".to_owned() } else { format!("{minutes} minutes") }
}

/// The name of a signal, for the systems that share these numbers, which are all that we run on.
pub(super) fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        5 => "TRAP",
        6 => "ABRT",
        8 => "FPE",
        9 => "KILL",
        11 => "SEGV",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        _ => return format!("signal {number}"),
    };
    format!("signal {number} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_well() {
        assert_eq!(sentence("cannot read x: gone"), "Cannot read x: gone.");
        assert_eq!(sentence("It is so."), "It is so.");
        assert_eq!(minutes(1.0), "1 minute");
        assert_eq!(minutes(0.5), "0.5 minutes");
        assert_eq!(signal_name(9), "signal 9 (KILL)");
        assert_eq!(signal_name(40), "signal 40");
    }
}
