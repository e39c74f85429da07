//! The list of the blocks of a file, in XML.

/// The names in a list, in order; nothing if it is none.
pub(super) fn read(text: &str) -> Option<Vec<String>> {
    let (_, list) = text.split_once("<BlockList>")?;
    let (list, _) = list.split_once("</BlockList>")?;
    let mut names = Vec::new();
    for entry in list.split("<Latest>").skip(1) {
        let (name, _) = entry.split_once("</Latest>")?;
        names.push(unescaped(name.trim()));
    }
    Some(names)
}

fn unescaped(text: &str) -> String {
    let entities =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    entities.iter().fold(text.to_owned(), |text, (entity, is)| text.replace(entity, is))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            (
                "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\
                 <BlockList><Latest>YQ==</Latest><Latest>Yg==</Latest></BlockList>",
                Some(&["YQ==", "Yg=="]),
            ),
            ("<BlockList>\n\t<Latest>a&amp;b</Latest>\n</BlockList>\n", Some(&["a&b"])),
            ("<BlockList></BlockList>", Some(&[])),
            ("<BlockList><Latest>a</BlockList>", None),
            ("<BlockList><Latest>a</Latest>", None),
            ("a, b", None),
        ];
        for (text, expected) in cases {
            let expected =
                expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
