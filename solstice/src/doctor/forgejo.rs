//! The connections to instances: whether each answers and accepts the runner, and whether its clock
//! agrees with that of this host. Nothing is changed on the instances.

use std::time::{Duration, SystemTime};

use forgejo_runner::identity::rest;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::Check;
use crate::forgejo::connections::{Known, known, room};
use crate::forgejo::status::look;
use crate::settings::Settings;

/// How long an instance may take.
const INSTANCE: Duration = Duration::from_secs(20);

/// A clock may be off so far: times of log lines and certificates bear that.
const SKEW: Duration = Duration::from_secs(60);

/// A check for each connection. They wait for others, so they wait together.
pub(super) async fn all(settings: &Settings) -> Vec<Check> {
    match known(settings, room(settings)) {
        Ok(known) => join_all(known.iter().map(check)).await,
        Err(error) => {
            let cure = error.advice().unwrap_or("see the checks `catalogue` and `state-dir`");
            vec![Check::failed("forgejo", error.to_string(), cure)]
        }
    }
}

async fn check(known: &Known) -> Check {
    let id = format!("forgejo-{}", known.name);
    let Ok(status) = timeout(INSTANCE, look(known)).await else {
        let finding = format!("the instance does not answer within {} s", INSTANCE.as_secs());
        return Check::failed(id, finding, "check the URL, and that this host reaches it");
    };
    let url = status.url.clone().unwrap_or_default();
    if let Some(problem) = status.problem {
        let place = if url.is_empty() { url } else { format!("{url}: ") };
        let cure = status.cure.unwrap_or_else(|| "see docs/forgejo.md".to_owned());
        return Check::failed(id, format!("{place}{problem}"), cure);
    }
    if let Some(warning) = known.warnings.first() {
        return Check::warning(id, warning, "change it as the finding says");
    }
    if let Some((finding, cure)) = concern(known).await {
        return Check::warning(id, format!("{url}: {finding}"), cure);
    }
    let server = status.server.map_or_else(String::new, |server| format!(" ({server})"));
    let labels = status.labels.len();
    Check::ok(id, format!("{url}{server} accepts the runner, which offers {labels} labels"))
}

/// What works and could be better.
async fn concern(known: &Known) -> Option<(String, &'static str)> {
    let connection = known.connection.as_ref().ok()?;
    let date = timeout(INSTANCE, rest::date(&connection.url, &connection.trust)).await;
    let date = date.ok().and_then(Result::ok).flatten();
    if let Some(skew) = date.and_then(|date| skew(&date, SystemTime::now())).filter(|s| *s > SKEW) {
        let skew = humantime::format_duration(Duration::from_secs(skew.as_secs()));
        let finding = format!("its clock and that of this host are {skew} apart");
        return Some((finding, "let both follow NTP, such as by systemd-timesyncd"));
    }
    let local = matches!(connection.url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    (connection.url.scheme() == "http" && !local).then(|| {
        let finding = "the token goes over http, where others on the way can read it".to_owned();
        (finding, "give the instance a certificate and write https in the URL")
    })
}

/// How far a date as HTTP writes it is from now.
fn skew(date: &str, now: SystemTime) -> Option<Duration> {
    let then = parse_date(date)?;
    Some(now.duration_since(then).unwrap_or_else(|error| error.duration()))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`; the two forms that HTTP has beside it have been obsolete for long.
fn parse_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http_are_compared_with_the_clock() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let off = |date: &str| skew(date, now).map(|skew| skew.as_secs());
        assert_eq!(off("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        assert_eq!(off("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(off("Sat, 05 Nov 1994 08:49:37 GMT"), Some(24 * 3600));
        for bad in ["", "now", "Sun, 06 Nix 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"] {
            assert_eq!(off(bad), None, "{bad}");
        }
    }
}
