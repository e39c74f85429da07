//! A scheme, a host and a port; and a repository there.

use std::fmt;

use reqwest::Url;

/// A scheme, a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Url);

impl Origin {
    /// The origin of an address; what stands behind the host does not count.
    ///
    /// # Errors
    /// It is no address of the web, or has a user or password in it: a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut url = Url::parse(text).map_err(|error| format!("{text} is no address: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("{text} must begin with https://"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(format!("{text} names no host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("an address must have no user and no password".to_owned());
        }
        url.set_path("/");
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// The origin of an address, and the path behind it.
    pub(crate) fn split(text: &str) -> Result<(Self, &str), String> {
        let origin = Self::parse(text)?;
        let path = text.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
        Ok((origin, path.map_or("", |(_, path)| path)))
    }

    /// Its address, with a slash behind it.
    pub(crate) fn url(&self) -> &Url {
        &self.0
    }

    /// Whether nobody between can read along.
    pub(crate) fn is_secure(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// A repository by its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repository {
    origin: Origin,
    /// What stands between the host and the name, where a forge is not at the root of its host.
    path: String,
    /// `owner/name`.
    name: String,
}

impl Repository {
    /// `name` is `owner/name`; the error is a sentence.
    pub(crate) fn new(origin: Origin, path: &str, name: &str) -> Result<Self, String> {
        let name = name.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let part = |part: &str| {
            !matches!(part, "" | "." | "..") && !part.starts_with('-') && part.chars().all(plain)
        };
        match name.split_once('/') {
            Some((owner, repository)) if part(owner) && part(repository) => {
                let path = path.trim_matches('/').to_owned();
                Ok(Self { origin, path, name: name.to_owned() })
            }
            _ => Err(format!("{name} is not owner/name")),
        }
    }

    /// A repository that may be anywhere on its server; the error is a sentence.
    pub(super) fn at(address: &str) -> Result<Self, String> {
        let (origin, path) = Origin::split(address)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-~+".contains(c);
        let part = |part: &str| {
            !matches!(part, "" | "." | "..") && !part.starts_with('-') && part.chars().all(plain)
        };
        let name = path.trim_end_matches('/');
        if !name.split('/').all(part) {
            return Err(format!("{address} is no address of a repository"));
        }
        Ok(Self { origin, path: String::new(), name: name.to_owned() })
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Its address.
    pub(crate) fn url(&self) -> Url {
        let mut url = self.origin.url().clone();
        url.set_path(&[self.path.as_str(), &self.name].join("/"));
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_told_apart_by_scheme_host_and_port() {
        let origin = |text: &str| Origin::parse(text).unwrap();
        assert_eq!(origin("https://a.example/x?y#z"), origin("https://A.example:443"));
        assert_ne!(origin("https://a.example"), origin("http://a.example"));
        assert_ne!(origin("https://a.example"), origin("https://a.example:8443"));
        assert_eq!(origin("http://a.example:3000/").to_string(), "http://a.example:3000");
        for wrong in ["ftp://a", "https://", "a/b", "https://me@a", "https://me:you@a", "file:///x"]
        {
            assert!(Origin::parse(wrong).is_err(), "{wrong}");
        }
        let (origin, path) = Origin::split("https://a.example/owner/name").unwrap();
        assert_eq!((origin.to_string().as_str(), path), ("https://a.example", "owner/name"));
    }

    #[test]
    fn a_repository_has_two_plain_names() {
        let origin = Origin::parse("https://a.example").unwrap();
        let repository = |name: &str| Repository::new(origin.clone(), "", name);
        assert_eq!(repository("o/n.x").unwrap().url().as_str(), "https://a.example/o/n.x");
        let below = Repository::new(origin.clone(), "/git/", "o/n").unwrap();
        assert_eq!(below.url().as_str(), "https://a.example/git/o/n");
        for right in ["https://a.example/n", "https://a.example/~x/y/z.git"] {
            assert_eq!(Repository::at(right).unwrap().url().as_str(), right);
        }
        for wrong in ["", "/", "/o/../n", "/o/%2e%2e/n", "/o//n", "/o/n?x", "/o/n#x", "/-o", "?x"] {
            let address = format!("https://a.example{wrong}");
            assert!(Repository::at(&address).is_err(), "{address}");
        }
        for wrong in ["o", "o/", "/n", "o/..", "../n", "o/n/x", "o/n?x", "o/n#x", "o/-n", "o/n m"] {
            assert!(repository(wrong).is_err(), "{wrong}");
        }
    }
}
