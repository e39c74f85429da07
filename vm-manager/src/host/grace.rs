//! How long a service may be away before its machines are nobody's.

use std::time::Duration;

use common::ids::InstanceId;
use common::time::Timestamp;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::files::{read_bounded, write_private};
use super::{HostError, HostSettings};

/// So long after its owner was last there, the machines of a service are left alone, so that a
/// service that is started again can adopt them.
pub const SERVICE_GRACE: Duration = Duration::from_secs(10 * 60);

/// The version of the note that this program writes and reads.
const VERSION: u16 = 1;

/// A note has some hundred bytes.
const NOTE_BYTES: u64 = 4 * 1024;

/// Where Linux says which of its boots this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A moment on both of the host's clocks. The wall clock can be set, by an hour or by years; the
/// time since boot cannot, but means nothing after the next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moment {
    version: u16,
    /// The host's boot; empty if it is not known.
    boot: String,
    /// Microseconds since then, those in which the host slept included.
    since_boot: u64,
    /// By the wall clock.
    wall: Timestamp,
}

impl Moment {
    /// This moment.
    pub(super) fn now() -> Self {
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
        Self {
            version: VERSION,
            // A time that is not known is comparable to none.
            boot: if since_boot.is_ok() { boot } else { String::new() },
            since_boot: micros(since_boot.unwrap_or_default()),
            wall: Timestamp::now(),
        }
    }

    /// How much of the grace is left if the owner was last there at this moment. Within one boot
    /// nobody asks the wall clock, so setting it changes nothing. After another boot, or in a
    /// container with a time of its own, it must do: a moment that lies in its future says that it
    /// was set back, and then nothing is left.
    pub(super) fn grace_left(&self, now: &Self) -> Option<Duration> {
        let same = !self.boot.is_empty() && self.boot == now.boot;
        let away = if same && self.since_boot <= now.since_boot {
            Duration::from_micros(now.since_boot - self.since_boot)
        } else if self.wall <= now.wall {
            now.wall.since(self.wall)
        } else {
            return None;
        };
        SERVICE_GRACE.checked_sub(away).filter(|left| !left.is_zero())
    }

    /// Notes that the owner of an instance was there at this moment.
    pub(super) fn write(&self, settings: &HostSettings, id: InstanceId) -> Result<(), HostError> {
        let text = serde_json::to_vec(self).expect("a moment has a JSON form");
        write_private(&settings.instance_last_seen(id), &text)
    }

    /// When the owner of an instance was last there. A note of another version is as old as its
    /// file.
    pub(super) fn read(settings: &HostSettings, id: InstanceId) -> Result<Option<Self>, HostError> {
        let path = settings.instance_last_seen(id);
        let Some(text) = read_bounded(&path, NOTE_BYTES)? else { return Ok(None) };
        if let Ok(moment) = serde_json::from_slice::<Self>(&text)
            && moment.version == VERSION
        {
            return Ok(Some(moment));
        }
        let changed = std::fs::symlink_metadata(&path).and_then(|found| found.modified());
        let wall = Timestamp::from(changed.map_err(HostError::io("look at", &path))?);
        Ok(Some(Self { version: VERSION, boot: String::new(), since_boot: 0, wall }))
    }
}

/// How much is left of the grace of an instance; `None` once it is over, and where nobody has noted
/// anything: then the host was started again, and nothing runs that could be adopted.
pub(super) fn grace_left(settings: &HostSettings, id: InstanceId) -> Option<Duration> {
    match Moment::read(settings, id) {
        Ok(seen) => seen?.grace_left(&Moment::now()),
        Err(error) => {
            tracing::warn!(instance.id = %id, %error, "cannot tell when a service was last there");
            None
        }
    }
}

/// Notes that the owner of an instance is there.
pub(super) fn stamp(settings: &HostSettings, id: InstanceId) -> Result<(), HostError> {
    Moment::now().write(settings, id)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Makes the grace of an instance over, as if its owner had been away for longer, if the instance
    /// is there.
    pub(in crate::host) fn let_pass(settings: &HostSettings, id: InstanceId) {
        let Some(seen) = Moment::read(settings, id).unwrap() else { return };
        let grace = micros(SERVICE_GRACE);
        let before = |micros: u64| micros.checked_sub(grace).unwrap();
        let boot = if seen.since_boot < grace { String::new() } else { seen.boot };
        let since_boot = seen.since_boot.saturating_sub(grace);
        let wall = Timestamp::from_micros(before(seen.wall.as_micros()));
        // It may be removed meanwhile.
        drop(Moment { version: VERSION, boot, since_boot, wall }.write(settings, id));
    }

    #[test]
    fn no_clock_that_is_set_kills_or_keeps() {
        const MINUTE: u64 = 60_000_000;
        let at = |boot: &str, since_boot: u64, wall: u64| Moment {
            version: VERSION,
            boot: boot.to_owned(),
            since_boot: since_boot * MINUTE,
            wall: Timestamp::from_micros(wall * MINUTE),
        };
        let seen = at("a", 100, 1000);
        let check = |now: Moment, expected: Option<u64>| {
            let left = seen.grace_left(&now).map(|left| left.as_secs() / 60);
            assert_eq!(left, expected, "{now:?}");
        };
        check(at("a", 100, 1000), Some(10));
        check(at("a", 109, 1009), Some(1));
        check(at("a", 110, 1010), None);
        // The wall clock jumps by an hour, either way.
        check(at("a", 101, 1061), Some(9));
        check(at("a", 101, 941), Some(9));
        check(at("a", 110, 950), None);
        // Another boot, or a container that counts its own.
        check(at("b", 1, 1004), Some(6));
        check(at("b", 1, 1010), None);
        check(at("b", 200, 1004), Some(6));
        check(at("b", 1, 999), None);
        check(at("a", 99, 1004), Some(6));
        check(at("", 100, 1004), Some(6));
    }

    #[test]
    fn notes_are_read_back_and_others_are_as_old_as_their_file() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let id = InstanceId::new();
        assert_eq!(Moment::read(&settings, id).unwrap(), None);
        assert_eq!(grace_left(&settings, id), None);
        std::fs::create_dir_all(settings.instance_runtime(id)).unwrap();
        let now = Moment::now();
        assert!(!now.boot.is_empty() && now.since_boot > 0);
        now.write(&settings, id).unwrap();
        assert_eq!(Moment::read(&settings, id).unwrap(), Some(now));
        let_pass(&settings, id);
        assert_eq!(grace_left(&settings, id), None);
        for other in ["", "{\"version\": 2}", "[]"] {
            let path = settings.instance_last_seen(id);
            std::fs::write(&path, other).unwrap();
            assert!(grace_left(&settings, id).is_some(), "{other:?}");
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::SystemTime::now() - 2 * SERVICE_GRACE).unwrap();
            assert_eq!(grace_left(&settings, id), None, "{other:?}");
        }
    }
}
