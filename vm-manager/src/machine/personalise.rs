//! From a restored guest to a machine of its own.

use std::time::Duration;

use common::personal::{Answer, Personal, SEED_BYTES, Word};
use common::request::Secret;
use common::time::Timestamp;
use rand::TryRngCore;
use rand::rngs::OsRng;

use super::Machine;
use super::port::Port;
use crate::template::TemplateError;

/// How long a restored guest may take to become a machine of its own: an emulated one on a busy host
/// needs seconds.
const DEADLINE: Duration = Duration::from_secs(45);

/// How long a guest that is at it may say nothing before it is asked to.
const SILENCE: Duration = Duration::from_secs(3);

/// How often the guest program is told that it was heard. One that never ends does no harm, unless
/// the guest is frozen once more.
const FAREWELLS: u32 = 3;

/// Lets the guest program end. QEMU drops what it has not read when its socket is closed, so this
/// waits for the last answer.
async fn farewell(port: &mut Port) -> Result<(), TemplateError> {
    for _ in 0..FAREWELLS {
        port.say(&Word::Heard).await?;
        let over = async {
            while port.answer().await? != Some(Answer::Over) {}
            Ok(())
        };
        if let Ok(over) = tokio::time::timeout(SILENCE, over).await {
            return over;
        }
    }
    Ok(())
}

impl Machine {
    /// Lets a restored guest go on, and makes it a machine of its own: random numbers first, then
    /// clock, names and keys. Nobody may connect before. Gives the digest of its first random numbers,
    /// which no other machine has.
    pub(super) async fn personalise(&self, hostname: &str) -> Result<String, TemplateError> {
        let word = Word::Personal(Box::new(self.personal(hostname)?));
        let mut port = Port::open(&self.body.paths().port()).await?;
        // The first thing that it reads when it goes on. The socket has room for the line.
        port.say(&word).await?;
        self.resume().await?;
        let conversation = async {
            loop {
                let Ok(answer) = tokio::time::timeout(SILENCE, port.answer()).await else {
                    // What it said, or what was said to it, may be lost.
                    port.nudge().await?;
                    continue;
                };
                let answer = answer?;
                tracing::trace!(vm.id = %self.id(), ?answer, "the clone says");
                match answer {
                    // What arrived damaged is said once more when the guest waits long enough.
                    None => {}
                    Some(Answer::Again) => port.say(&word).await?,
                    Some(Answer::Clock { question }) => {
                        port.say(&Word::Clock { question, now: Timestamp::now() }).await?;
                    }
                    Some(Answer::Done { sample }) => {
                        farewell(&mut port).await?;
                        return Ok(sample);
                    }
                    Some(Answer::Over) => {}
                    Some(Answer::Failed { reason }) => {
                        return Err(TemplateError::Personal { reason });
                    }
                }
            }
        };
        let what = "making a clone a machine of its own";
        tokio::time::timeout(DEADLINE, conversation)
            .await
            .map_err(|_| TemplateError::Timeout { what, deadline: DEADLINE })?
    }

    fn personal(&self, hostname: &str) -> Result<Personal, TemplateError> {
        let random = |error: rand::rand_core::OsError| TemplateError::Personal {
            reason: format!("this host gives no random numbers: {error}"),
        };
        let mut seed = [0; SEED_BYTES];
        let mut machine_id = [0; 16];
        OsRng.try_fill_bytes(&mut seed).map_err(random)?;
        OsRng.try_fill_bytes(&mut machine_id).map_err(random)?;
        let host_key = self.keys.host_private_openssh().ok_or_else(|| TemplateError::Personal {
            reason: "its keys were taken over from another owner".to_owned(),
        })?;
        Ok(Personal {
            seed: Secret::new(hex::encode(seed)),
            hostname: hostname.to_owned(),
            machine_id: hex::encode(machine_id),
            user: self.user.clone(),
            authorized_key: self.keys.login_public_line(),
            host_key: Secret::new(host_key.as_str()),
            host_public_key: self.keys.host_public_line(),
        })
    }
}
