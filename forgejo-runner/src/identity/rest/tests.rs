use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::identity::address;

/// An instance that gives these answers, one to each connection; the task gives what was asked.
async fn instance(
    answers: Vec<(&'static str, &'static str)>,
) -> (Url, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut bytes = vec![0; 16 * 1024];
            let mut length = 0;
            loop {
                length += stream.read(&mut bytes[length..]).await.expect("a request");
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
                let announced = text
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
                if body.is_some_and(|body| body >= announced.unwrap_or(0)) {
                    asked.push(text);
                    break;
                }
            }
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\ndate: Sun, 06 Nov 1994 08:49:37 \
                 GMT\r\nconnection: close\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).await.expect("an answer");
        }
        asked
    });
    (address(&format!("http://127.0.0.1:{port}/git/")).expect("an address"), asked)
}

fn rest(url: &Url) -> Rest {
    Rest::new(url, &Trust::Host, Secret::new("hunter2")).expect("a client")
}

#[test]
fn scopes_are_what_they_say() {
    let url = address("https://example.org/git/").expect("an address");
    for (text, path, page) in [
        ("admin", "admin", "admin"),
        ("user", "user", "user/settings"),
        ("org/me", "orgs/me", "org/me/settings"),
        ("me/app", "repos/me/app", "me/app/settings"),
    ] {
        let scope: Scope = text.parse().expect(text);
        assert_eq!(scope.to_string(), text);
        assert_eq!(scope.path(), format!("api/v1/{path}/actions/runners"));
        assert_eq!(scope.page(&url), format!("https://example.org/git/{page}/actions/runners"));
    }
    for bad in ["", "org", "org/", "/x", "a/b/c", "a/..", "a b/c", "all"] {
        assert!(bad.parse::<Scope>().expect_err(bad).contains("OWNER/REPOSITORY"), "{bad}");
    }
}

#[tokio::test]
async fn a_runner_is_made_and_deleted() {
    let made = r#"{"id": 7, "uuid": "33834eef-e758-48c4-a676-1745426747aa", "token": "t"}"#;
    let list =
        r#"[{"id": 3, "uuid": "x"}, {"id": 7, "uuid": "33834EEF-e758-48c4-a676-1745426747aa"}]"#;
    let answers = vec![
        ("201 Created", made),
        ("200 OK", list),
        ("204 No Content", ""),
        ("404 Not Found", "{}"),
        ("200 OK", "[]"),
    ];
    let (url, asked) = instance(answers).await;
    let rest = rest(&url);
    let created = rest.create(&Scope::Admin, "build-1").await.expect("a runner");
    assert_eq!((created.id, created.token.expose()), (7, "t"));
    assert_eq!(rest.delete(&Scope::User, &created.uuid, None).await, Ok(true));
    assert_eq!(rest.delete(&Scope::User, &created.uuid, Some(7)).await, Ok(false));
    assert_eq!(rest.delete(&Scope::User, &created.uuid, Some(0)).await, Ok(false));
    let asked = asked.await.expect("an instance");
    assert!(asked[0].starts_with("POST /git/api/v1/admin/actions/runners HTTP/1.1"), "{asked:?}");
    assert!(asked[0].contains("authorization: token hunter2\r\n"), "{asked:?}");
    assert!(asked[0].contains(r#""name":"build-1""#), "{asked:?}");
    assert!(asked[2].starts_with("DELETE /git/api/v1/user/actions/runners/7 "), "{asked:?}");
}

#[tokio::test]
async fn what_the_server_refuses_is_said_without_the_token() {
    for (status, body, message, hint) in [
        ("401 Unauthorized", r#"{"message": "token is bad"}"#, "(token is bad)", "new token"),
        ("403 Forbidden", "", "403 Forbidden", "the token needs organization"),
        ("404 Not Found", "<html>", "404 Not Found", "Forgejo 15"),
        ("302 Found", "", "302 Found", "by hand on http://127.0.0.1:"),
        ("201 Created", "{}", "no identity", "remove that runner"),
    ] {
        let (url, asked) = instance(vec![(status, body)]).await;
        let scope = Scope::Organization("me".to_owned());
        let error = rest(&url).create(&scope, "x").await.expect_err(status);
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.advice().is_some_and(|advice| advice.contains(hint)), "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        asked.await.expect("an instance");
    }
    let (url, asked) = instance(Vec::new()).await;
    asked.await.expect("an instance");
    let error = rest(&url).create(&Scope::Admin, "x").await.expect_err("nobody");
    assert!(error.to_string().contains("does not answer"), "{error}");
}

#[tokio::test]
async fn the_clock_of_an_instance_is_read() {
    let (url, _asked) = instance(vec![("404 Not Found", "")]).await;
    let date = date(&url, &Trust::Host).await.expect("an answer");
    assert_eq!(date.as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
}
