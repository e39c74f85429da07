//! The services of a job: what leads to which, and by what name programs know them.

use common::call::{
    ARTIFACT_CALLS, ARTIFACT_FILES, ARTIFACT_SERVICE, CACHE_SERVICE, ID_SERVICE,
    OLDER_ARTIFACT_CALLS,
};
use common::guest::GuestService;
use common::plan::Dialect;
use serde_json::Value as Json;

/// Whether a path belongs to a service.
pub(crate) fn serves(service: &GuestService, path: &str) -> bool {
    service.paths.iter().any(|known| path.starts_with(known.as_str()))
}

/// Whether whoever asks for a path shows by its query, and not by a token, that it may: so clients send
/// and fetch the files of artifacts (forgejo-runner-protocol 8.9).
pub(crate) fn is_signed(path: &str) -> bool {
    let call = path.strip_prefix(ARTIFACT_CALLS);
    call.is_some_and(|call| matches!(call, "UploadArtifact" | "DownloadArtifact"))
        || path.starts_with(ARTIFACT_FILES)
}

/// The path of an address that lies in a service, wherever its forge says that it is: what comes before
/// the path may be the forge's name in another network.
pub(crate) fn path_of<'a>(service: &GuestService, url: &'a str) -> Option<&'a str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let path = &rest[rest.find('/')?..];
    if serves(service, path) {
        return Some(path);
    }
    // The forge may not be at the root of its host.
    let below = service.base_url.split_once("://")?.1;
    let below = below.find('/').map_or("", |at| below[at..].trim_end_matches('/'));
    path.strip_prefix(below).filter(|path| serves(service, path))
}

/// An answer in JSON in which each address in a service is one at `address`; absent where it is no JSON,
/// or has none.
pub(crate) fn localize(service: &GuestService, address: &str, answer: &[u8]) -> Option<Vec<u8>> {
    let mut answer: Json = serde_json::from_slice(answer).ok()?;
    let mut is_changed = false;
    let mut open = vec![&mut answer];
    while let Some(value) = open.pop() {
        match value {
            Json::String(text) => {
                if let Some(path) = path_of(service, text) {
                    *text = format!("{address}{path}");
                    is_changed = true;
                }
            }
            Json::Array(items) => open.extend(items),
            Json::Object(members) => open.extend(members.iter_mut().map(|(_, value)| value)),
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }
    is_changed.then(|| answer.to_string().into_bytes())
}

/// The variables by which programs find the services, which are at this address
/// (github-runner-protocol 8.4, forgejo-runner-protocol 8.2).
pub(crate) fn variables(
    services: &[GuestService],
    address: &str,
    dialect: Dialect,
) -> Vec<(&'static str, String)> {
    let find = |name: &str| services.iter().find(|service| service.name == name);
    let mut variables = Vec::new();
    if find(CACHE_SERVICE).is_some() {
        variables.push(("ACTIONS_CACHE_URL", format!("{address}/")));
        variables.push(("ACTIONS_RESULTS_URL", address.to_owned()));
        if dialect == Dialect::Github {
            variables.push(("ACTIONS_CACHE_SERVICE_V2", "True".to_owned()));
        }
    }
    if let Some(service) = find(ARTIFACT_SERVICE) {
        variables.push(("ACTIONS_RESULTS_URL", address.to_owned()));
        variables.push(("ACTIONS_RUNTIME_URL", format!("{address}{OLDER_ARTIFACT_CALLS}")));
        let token = service.token.as_ref().map(|token| token.expose().to_owned());
        variables.extend(token.map(|token| ("ACTIONS_RUNTIME_TOKEN", token)));
    }
    let id = find(ID_SERVICE);
    if let Some((service, path)) = id.and_then(|id| id.paths.first().map(|path| (id, path))) {
        // Clients append `&audience=` (forgejo-runner-protocol 5.1).
        let url = format!("{address}{path}?placeholder=true");
        variables.push(("ACTIONS_ID_TOKEN_REQUEST_URL", url));
        let token = service.token.as_ref().map(|token| token.expose().to_owned());
        variables.extend(token.map(|token| ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", token)));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifacts(base_url: &str) -> GuestService {
        GuestService {
            name: ARTIFACT_SERVICE.to_owned(),
            base_url: base_url.to_owned(),
            token: None,
            paths: vec!["/twirp/a/".to_owned()],
        }
    }

    #[test]
    fn an_address_is_known_whatever_its_host_is_called() {
        let service = artifacts("https://forge.example");
        assert_eq!(
            path_of(&service, "https://forge.example/twirp/a/x?y=1"),
            Some("/twirp/a/x?y=1")
        );
        assert_eq!(path_of(&service, "http://10.0.0.1:3000/twirp/a/x"), Some("/twirp/a/x"));
        for other in ["https://forge.example/api", "https://forge.example", "/twirp/a/x", "", "x"] {
            assert_eq!(path_of(&service, other), None, "{other}");
        }
        let below = artifacts("https://forge.example/git/");
        assert_eq!(path_of(&below, "https://forge.example/git/twirp/a/x"), Some("/twirp/a/x"));
    }

    #[test]
    fn variables_are_of_the_services_that_the_job_has() {
        let names = |services: &[GuestService], dialect| -> Vec<&'static str> {
            let variables = variables(services, "http://127.0.0.1:1", dialect);
            assert!(variables.iter().all(|(_, value)| !value.contains("forge.example")));
            variables.into_iter().map(|(name, _)| name).collect()
        };
        assert!(names(&[], Dialect::Forgejo).is_empty());
        let caches = common::call::cache_service();
        let cache = ["ACTIONS_CACHE_URL", "ACTIONS_RESULTS_URL"];
        assert_eq!(names(std::slice::from_ref(&caches), Dialect::Forgejo), cache);
        let github = names(&[caches], Dialect::Github);
        assert_eq!(github, [&cache[..], &["ACTIONS_CACHE_SERVICE_V2"]].concat());
        let with_token = |service: GuestService| {
            let token = Some(common::request::Secret::new("t"));
            GuestService { token, ..service }
        };
        let artifacts = with_token(artifacts("https://forge.example"));
        let id = GuestService { name: ID_SERVICE.to_owned(), ..artifacts.clone() };
        let runtime = ["ACTIONS_RESULTS_URL", "ACTIONS_RUNTIME_URL", "ACTIONS_RUNTIME_TOKEN"];
        assert_eq!(names(&[artifacts], Dialect::Forgejo), runtime);
        let tokens = ["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"];
        assert_eq!(names(&[id], Dialect::Forgejo), tokens);
    }

    #[test]
    fn addresses_in_an_answer_become_local() {
        let service = artifacts("https://forge.example");
        let answer = br#"{"ok":true,"url":"https://forge.example/twirp/a/Up?sig=1","n":["https://other/x"]}"#;
        let local = localize(&service, "http://127.0.0.1:1", answer).unwrap();
        let local: Json = serde_json::from_slice(&local).unwrap();
        assert_eq!(local["url"], "http://127.0.0.1:1/twirp/a/Up?sig=1");
        assert_eq!(local["n"][0], "https://other/x");
        assert_eq!(localize(&service, "http://127.0.0.1:1", b"{\"ok\":true}"), None);
        assert_eq!(localize(&service, "http://127.0.0.1:1", b"no"), None);
    }
}
