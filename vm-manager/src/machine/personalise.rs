//! From a restored clone to a machine of its own.

use std::time::Duration;

use common::personal::{Answer, DIGEST_DIGITS, Personal, SEED_BYTES};
use common::request::Secret;
use common::time::Timestamp;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

use super::Machine;
use super::port::Port;
use crate::template::TemplateError;

/// How long a clone may take to become a machine of its own: an emulated one on a busy host needs
/// seconds.
const DEADLINE: Duration = Duration::from_secs(120);

/// How long a guest that is at it may say nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// A line with its digest in front.
fn checked(line: &[u8]) -> Vec<u8> {
    let mut digest = hex::encode(Sha256::digest(line));
    digest.truncate(DIGEST_DIGITS);
    [digest.as_bytes(), b" ", line].concat()
}

impl Machine {
    /// Lets a clone go on, and makes it a machine of its own: random numbers first, then clock, names
    /// and keys. Nobody may connect before. Gives the digest of its first random numbers, which no
    /// other machine has.
    ///
    /// # Errors
    /// It did not become one, and must be destroyed.
    pub async fn personalise(&self, hostname: &str, script: &str) -> Result<String, TemplateError> {
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
        let mut port = Port::open(&self.body.paths().port()).await?;
        let personal = Personal {
            seed: Secret::new(hex::encode(seed)),
            hostname: hostname.to_owned(),
            machine_id: hex::encode(machine_id),
            user: self.user.clone(),
            authorized_key: self.keys.login_public_line(),
            host_key: Secret::new(host_key.as_str()),
            host_public_key: self.keys.host_public_line(),
            script: script.to_owned(),
        };
        let line = checked(&serde_json::to_vec(&personal).expect("it has a JSON form"));
        // The first thing that it reads when it goes on. The socket has room for the line.
        port.send(&line).await?;
        self.resume().await?;
        let conversation = async {
            loop {
                let answer = tokio::time::timeout(SILENCE, port.answer()).await;
                // A serial port may lose what comes while a guest has no time for it, the end of the
                // line too.
                let Ok(answer) = answer else {
                    port.send(b"").await?;
                    continue;
                };
                match answer? {
                    Answer::Again => port.send(&line).await?,
                    Answer::Done { sample } => return Ok(sample),
                    Answer::Failed { reason } => return Err(TemplateError::Personal { reason }),
                    Answer::Clock => {
                        let time = serde_json::to_vec(&Timestamp::now());
                        port.send(&time.expect("it has a JSON form")).await?;
                    }
                }
            }
        };
        let what = "making a clone a machine of its own";
        tokio::time::timeout(DEADLINE, conversation)
            .await
            .map_err(|_| TemplateError::Timeout { what, deadline: DEADLINE })?
    }
}
