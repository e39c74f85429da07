//! `UpdateLog`: which rows the server takes (forgejo-runner-protocol 6.1).

use std::time::SystemTime;

use forgejo_proto::runner::LogRow;

use super::clock::moment;

/// Bytes of a row's text that are kept.
const ROW: usize = 65_536;

/// A row of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the runner says when it was.
    pub time: SystemTime,
    /// Its text as the server stores it.
    pub text: String,
}

impl Row {
    /// What is stored of a row: on one line, cut.
    pub(super) fn stored(row: &LogRow) -> Self {
        let text = row.content.replace('\n', "\\n");
        let bytes = text.as_bytes();
        let text = match bytes.get(..ROW) {
            // The cut may go through a character.
            Some(cut) if bytes.len() > ROW => String::from_utf8_lossy(cut).into_owned(),
            _ => text,
        };
        Self { time: moment(row.time.as_option()), text }
    }
}

/// The log of a task.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) rows: Vec<Row>,
    /// It was closed and takes nothing more.
    pub(super) archived: bool,
}

/// The log takes nothing more: `already_exists`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// How a server differs in this call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manners {
    /// `no_more` counts on a batch without rows (Gitea since 1.27).
    pub(super) closes_on_empty: bool,
    /// A fault: how many new rows it keeps.
    pub(super) keeps: Option<usize>,
}

impl Log {
    /// How many rows it has.
    pub(super) fn length(&self) -> i64 {
        i64::try_from(self.rows.len()).expect("a log is in memory")
    }

    /// What the server does with a batch; the answer is how many rows it has then.
    pub(super) fn append(
        &mut self,
        index: i64,
        rows: &[LogRow],
        no_more: bool,
        manners: Manners,
    ) -> Result<i64, Closed> {
        let held = self.length();
        let count = i64::try_from(rows.len()).expect("a batch is in memory");
        if count == 0 {
            self.archived |= no_more && manners.closes_on_empty;
            return Ok(held);
        }
        if index > held || index.saturating_add(count) <= held {
            return Ok(held);
        }
        if self.archived {
            return Err(Closed);
        }
        let known = usize::try_from(held - index).expect("the batch reaches behind what is held");
        let new = rows.get(known..).unwrap_or_default();
        let kept = new.get(..manners.keeps.unwrap_or(new.len())).unwrap_or(new);
        self.rows.extend(kept.iter().map(Row::stored));
        // What did not all arrive does not end.
        self.archived = no_more && kept.len() == new.len();
        Ok(self.length())
    }

    /// The rows of a range, as far as they are there.
    pub(super) fn slice(&self, index: i64, length: i64) -> &[Row] {
        let end = index.saturating_add(length).clamp(0, self.length());
        let start = index.clamp(0, end);
        let [start, end] = [start, end].map(|at| usize::try_from(at).expect("clamped"));
        self.rows.get(start..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(texts: &[&str]) -> Vec<LogRow> {
        texts
            .iter()
            .map(|text| LogRow { content: (*text).to_owned(), ..Default::default() })
            .collect()
    }

    fn held() -> Log {
        let mut log = Log::default();
        assert_eq!(log.append(0, &rows(&["a", "b", "c"]), false, Manners::default()), Ok(3));
        log
    }

    fn texts(log: &Log) -> Vec<&str> {
        log.rows.iter().map(|row| row.text.as_str()).collect()
    }

    #[test]
    fn every_row_of_the_table_holds() {
        // Index, rows, no_more; the answer, what is held then, whether it is closed then.
        type Case = (
            i64,
            &'static [&'static str],
            bool,
            Result<i64, Closed>,
            &'static [&'static str],
            bool,
        );
        let open: &[Case] = &[
            (3, &[], true, Ok(3), &["a", "b", "c"], false),
            (0, &[], false, Ok(3), &["a", "b", "c"], false),
            (4, &["x"], true, Ok(3), &["a", "b", "c"], false),
            (1, &["b", "c"], true, Ok(3), &["a", "b", "c"], false),
            (3, &["d"], false, Ok(4), &["a", "b", "c", "d"], false),
            (2, &["c", "d", "e"], false, Ok(5), &["a", "b", "c", "d", "e"], false),
            (3, &["d"], true, Ok(4), &["a", "b", "c", "d"], true),
        ];
        for (index, new, no_more, answer, expected, closed) in open {
            let mut log = held();
            let case = format!("{index} {new:?} {no_more}");
            assert_eq!(
                log.append(*index, &rows(new), *no_more, Manners::default()),
                *answer,
                "{case}"
            );
            assert_eq!(texts(&log), *expected, "{case}");
            assert_eq!(log.archived, *closed, "{case}");
        }
        let archived: &[Case] = &[
            (3, &[], true, Ok(3), &["a", "b", "c"], true),
            (4, &["x"], false, Ok(3), &["a", "b", "c"], true),
            (0, &["a", "b", "c"], true, Ok(3), &["a", "b", "c"], true),
            (2, &["c", "d"], true, Err(Closed), &["a", "b", "c"], true),
        ];
        for (index, new, no_more, answer, expected, closed) in archived {
            let mut log = Log { archived: true, ..held() };
            let case = format!("archived {index} {new:?} {no_more}");
            assert_eq!(
                log.append(*index, &rows(new), *no_more, Manners::default()),
                *answer,
                "{case}"
            );
            assert_eq!(texts(&log), *expected, "{case}");
            assert_eq!(log.archived, *closed, "{case}");
        }
    }

    #[test]
    fn newer_giteas_close_on_an_empty_batch() {
        let mut log = held();
        let manners = Manners { closes_on_empty: true, ..Manners::default() };
        assert_eq!(log.append(3, &[], true, manners), Ok(3));
        assert!(log.archived);
    }

    #[test]
    fn rows_are_kept_on_one_line_and_cut() {
        let long = format!("{}é", "x".repeat(ROW - 1));
        let mut log = Log::default();
        let batch = rows(&["a\nb", &long]);
        assert_eq!(log.append(0, &batch, false, Manners::default()), Ok(2));
        assert_eq!(log.rows[0].text, "a\\nb");
        assert_eq!(
            log.rows[1].text,
            format!("{}\u{fffd}", "x".repeat(ROW - 1)),
            "through a character"
        );
    }

    #[test]
    fn a_server_that_keeps_fewer_rows_does_not_close() {
        let mut log = held();
        let manners = Manners { keeps: Some(1), ..Manners::default() };
        assert_eq!(log.append(3, &rows(&["d", "e"]), true, manners), Ok(4));
        assert!(!log.archived);
        assert_eq!(log.append(4, &rows(&["e"]), true, Manners::default()), Ok(5));
        assert!(log.archived);
    }

    #[test]
    fn ranges_end_where_the_log_ends() {
        let log = held();
        let texts = |index, length| log.slice(index, length).len();
        assert_eq!([texts(0, 2), texts(1, 9), texts(5, 1), texts(2, -1)], [2, 2, 0, 0]);
    }
}
