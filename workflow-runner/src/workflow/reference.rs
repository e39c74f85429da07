//! What stands in `uses`.

/// An action by where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reference<'a> {
    /// `./path`: a directory of the workspace.
    Local(&'a str),
    /// `docker://image`.
    Container(&'a str),
    /// A repository of a forge.
    Remote(Remote),
}

/// An action in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    /// All of it but the path inside the repository: what the host fetches.
    pub(crate) whole: String,
    /// The scheme and the host of an address, with a slash behind; empty for the dialect's own place.
    pub(super) origin: String,
    /// `owner/name`.
    pub(crate) repository: String,
    /// The directory inside; empty for the root.
    pub(crate) path: String,
    /// A branch, tag or commit.
    pub(crate) version: String,
}

impl<'a> Reference<'a> {
    /// Reads a reference; the error is a sentence.
    pub(crate) fn parse(text: &'a str) -> Result<Self, String> {
        if text.starts_with("./") || text == "." {
            return Ok(Self::Local(text));
        }
        if let Some(image) = text.strip_prefix("docker://") {
            return Ok(Self::Container(image));
        }
        let (origin, rest) = match text.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => {
                let Some((host, rest)) = rest.split_once('/').filter(|(host, _)| !host.is_empty())
                else {
                    return Err(format!("the action {text} names no repository"));
                };
                (format!("{scheme}://{host}/"), rest)
            }
            Some((scheme, _)) => {
                return Err(format!(
                    "the action {text} begins with {scheme}://; it must begin with https:// or be \
                     owner/name@version"
                ));
            }
            None => (String::new(), text),
        };
        let Some((name, version)) = rest.split_once('@').filter(|(_, version)| !version.is_empty())
        else {
            return Err(format!(
                "the action {text} has no version; write one behind it, such as {text}@v1"
            ));
        };
        let mut parts = name.trim_end_matches('/').split('/');
        let (Some(owner), Some(name)) = (parts.next(), parts.next()) else {
            return Err(format!("the action {text} must be owner/name@version"));
        };
        let path: Vec<&str> = parts.collect();
        let odd = |part: &&str| matches!(*part, "" | "." | "..");
        if [owner, name].iter().chain(&path).any(odd) || version.contains(char::is_whitespace) {
            return Err(format!("the action {text} must be owner/name@version"));
        }
        Ok(Self::Remote(Remote {
            whole: format!("{origin}{owner}/{name}@{version}"),
            origin,
            repository: format!("{owner}/{name}"),
            path: path.join("/"),
            version: version.to_owned(),
        }))
    }
}

impl Remote {
    /// Where its files lie, below the directory for actions.
    pub(crate) fn directory(&self) -> String {
        let host = self.origin.split("://").nth(1).unwrap_or_default();
        let parts = [host.trim_end_matches('/'), &self.repository, &self.version];
        let parts = parts.iter().flat_map(|part| part.split('/')).filter(|part| !part.is_empty());
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let names = parts.map(|part| match part {
            "." | ".." => "_".to_owned(),
            part => part.chars().map(plain).collect::<String>(),
        });
        names.collect::<Vec<_>>().join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(text: &str) -> Remote {
        match Reference::parse(text) {
            Ok(Reference::Remote(remote)) => remote,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn references_are_taken_apart() {
        let plain = remote("owner/name@v1");
        assert_eq!(plain.whole, "owner/name@v1");
        assert_eq!((plain.path.as_str(), plain.directory().as_str()), ("", "owner/name/v1"));
        let deep = remote("owner/name/a/b@feature/x");
        assert_eq!(deep.whole, "owner/name@feature/x");
        assert_eq!(
            (deep.path.as_str(), deep.directory().as_str()),
            ("a/b", "owner/name/feature/x")
        );
        let address = remote("https://forge.example:3000/owner/name/sub@1.0");
        assert_eq!(address.whole, "https://forge.example:3000/owner/name@1.0");
        assert_eq!(address.directory(), "forge.example_3000/owner/name/1.0");
        assert_eq!(Reference::parse("./a"), Ok(Reference::Local("./a")));
        assert_eq!(Reference::parse("docker://a:1"), Ok(Reference::Container("a:1")));
    }

    #[test]
    fn no_reference_leads_out_of_the_directory_for_actions() {
        assert_eq!(remote("owner/name@../../x").directory(), "owner/name/_/_/x");
        for wrong in ["../x@v1", "owner/../x@v1", "owner/name/../../x@v1", "owner/name/./x@v1"] {
            assert!(Reference::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_a_sentence() {
        for (wrong, expected) in [
            ("owner/name", "has no version"),
            ("owner/name@", "has no version"),
            ("name@v1", "must be owner/name@version"),
            ("owner/name@v 1", "must be owner/name@version"),
            ("https://host", "names no repository"),
            ("git://host/owner/name@v1", "begins with git://"),
        ] {
            let error = Reference::parse(wrong).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
