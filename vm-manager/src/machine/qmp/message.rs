//! Lines, and what they say.

use serde_json::{Map, Value};

use super::QmpError;

/// The longest line that we take. The longest that QEMU sends us is the table of its user network:
/// a hundred bytes for each of a guest's connections.
pub(super) const LINE_BYTES: usize = 4 * 1024 * 1024;

/// What QEMU says in one line.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    /// The first line.
    Greeting,
    /// The answer to the command with this number.
    Answer(u64, Result<Value, String>),
    /// Something happened.
    Event(Event),
}

/// Something happened in QEMU or the guest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// Such as `SHUTDOWN`.
    pub(crate) name: String,
    /// Its particulars; null where it has none.
    pub(crate) data: Value,
}

/// Cuts a byte stream into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// Up to here there is no line end.
    searched: usize,
}

impl Lines {
    /// Takes in what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line without its end, or an error once one is too long.
    pub(super) fn next_line(&mut self) -> Result<Option<Vec<u8>>, QmpError> {
        let end = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
        let end = end.map(|end| self.searched + end);
        if end.unwrap_or(self.bytes.len()) > LINE_BYTES {
            return Err(QmpError::TooLong { limit: LINE_BYTES });
        }
        let Some(end) = end else {
            self.searched = self.bytes.len();
            return Ok(None);
        };
        let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
        self.searched = 0;
        line.pop();
        Ok(Some(line))
    }
}

/// Reads one line strictly: it must be exactly one of the kinds of message.
pub(super) fn parse(line: &[u8]) -> Result<Message, QmpError> {
    let value: Value =
        serde_json::from_slice(line).map_err(|error| QmpError::Malformed(error.to_string()))?;
    let Value::Object(mut fields) = value else {
        return Err(QmpError::Malformed("a line that is not an object".to_owned()));
    };
    if let Some(greeting) = fields.remove("QMP") {
        return match greeting.pointer("/version/qemu/major").and_then(Value::as_u64) {
            Some(_) => Ok(Message::Greeting),
            None => Err(QmpError::Malformed("a greeting without a version".to_owned())),
        };
    }
    if let Some(name) = fields.remove("event") {
        let Value::String(name) = name else {
            return Err(QmpError::Malformed("an event without a name".to_owned()));
        };
        let data = fields.remove("data").unwrap_or(Value::Null);
        return Ok(Message::Event(Event { name, data }));
    }
    if let Some(value) = fields.remove("return") {
        return Ok(Message::Answer(number(&fields)?, Ok(value)));
    }
    if let Some(error) = fields.remove("error") {
        let reason = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
        return Ok(Message::Answer(number(&fields)?, Err(reason.to_owned())));
    }
    Err(QmpError::Malformed("a message of no known kind".to_owned()))
}

/// One command as a line. Values with a secret never travel here: QEMU may log them.
pub(super) fn command(number: u64, command: &str, arguments: &Value) -> Vec<u8> {
    let mut fields = Map::new();
    fields.insert("execute".to_owned(), command.into());
    if !arguments.is_null() {
        fields.insert("arguments".to_owned(), arguments.clone());
    }
    fields.insert("id".to_owned(), number.into());
    let mut line = serde_json::to_vec(&fields).expect("a map of JSON values has a JSON form");
    line.push(b'\n');
    line
}

fn number(fields: &Map<String, Value>) -> Result<u64, QmpError> {
    let number = fields.get("id").and_then(Value::as_u64);
    number.ok_or_else(|| {
        QmpError::Malformed("an answer without the number of its command".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_as_qemu_sends_them() {
        let check = |line: &str, expected: Message| {
            assert_eq!(parse(line.as_bytes()).unwrap(), expected, "{line}");
        };
        check(
            r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "x"}, "capabilities": ["oob"]}}"#,
            Message::Greeting,
        );
        check(r#"{"return": {}, "id": 1}"#, Message::Answer(1, Ok(json!({}))));
        check(
            r#"{"id": 7, "error": {"class": "GenericError", "desc": "no such thing"}}"#,
            Message::Answer(7, Err("no such thing".to_owned())),
        );
        check(
            r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "POWERDOWN"}"#,
            Message::Event(Event { name: "POWERDOWN".to_owned(), data: Value::Null }),
        );
        check(
            r#"{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true}}"#,
            Message::Event(Event { name: "SHUTDOWN".to_owned(), data: json!({ "guest": true }) }),
        );
    }

    #[test]
    fn anything_else_is_refused() {
        let lines = [
            "",
            "null",
            "[]",
            "{}",
            "{\"QMP\": 5}",
            "{\"QMP\": {\"version\": {\"qemu\": {\"major\": \"10\"}}}}",
            "{\"event\": 5}",
            "{\"return\": {}}",
            "{\"return\": {}, \"id\": \"1\"}",
            "{\"return\": {}, \"id\": -1}",
            "{\"error\": {\"desc\": \"bad JSON\"}}",
            "{\"return\": {}, \"id\": 1} trailing",
            "SSH-2.0-x",
        ];
        for line in lines {
            assert!(matches!(parse(line.as_bytes()), Err(QmpError::Malformed(_))), "{line}");
        }
        assert!(parse(b"\xff").is_err());
    }

    #[test]
    fn lines_however_they_are_cut() {
        let mut lines = Lines::default();
        lines.push(b"on");
        assert!(lines.next_line().unwrap().is_none());
        lines.push(b"e\ntwo\nth");
        assert_eq!(lines.next_line().unwrap().unwrap(), b"one");
        assert_eq!(lines.next_line().unwrap().unwrap(), b"two");
        assert!(lines.next_line().unwrap().is_none());
    }

    #[test]
    fn a_line_without_end_is_an_error() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LINE_BYTES]);
        assert!(lines.next_line().unwrap().is_none());
        lines.push(b"x");
        assert!(matches!(lines.next_line(), Err(QmpError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn no_line_harms(line in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&line));
        }
    }
}
