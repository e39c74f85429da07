//! An identity of a secret that the administrator of the server gives to both sides
//! (forgejo-runner-protocol 3.4).

use uuid::Uuid;

/// How many hexadecimal digits a secret has.
const DIGITS: usize = 40;

/// The id that a server gives to the runner of a secret: the first sixteen characters of the secret,
/// taken as the bytes of a UUID. The token is the whole secret.
///
/// # Errors
/// It is no such secret; the secret is not repeated.
pub fn uuid_of(secret: &str) -> Result<String, String> {
    let hexadecimal = secret.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bytes = secret.as_bytes().first_chunk::<16>();
    match bytes {
        Some(bytes) if secret.len() == DIGITS && hexadecimal => {
            Ok(Uuid::from_bytes(*bytes).hyphenated().to_string())
        }
        _ => Err(format!(
            "it is not a shared secret: that has {DIGITS} hexadecimal digits, as `forgejo \
             forgejo-cli actions generate-secret` or `openssl rand -hex 20` prints them"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_secret_is_its_beginning() {
        for (secret, uuid) in [
            ("00112233445566778899aabbccddeeff01234567", "30303131-3232-3333-3434-353536363737"),
            ("7c31591e8b67225a116d4a4519ea8e507e08f71f", "37633331-3539-3165-3862-363732323561"),
        ] {
            assert_eq!(uuid_of(secret).as_deref(), Ok(uuid));
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_shown() {
        for bad in ["", "0011", "zz112233445566778899aabbccddeeff01234567", &"0".repeat(41)] {
            let error = uuid_of(bad).expect_err(bad);
            assert!(error.contains("40 hexadecimal digits"), "{error}");
            assert!(bad.len() < 5 || !error.contains(bad), "{error}");
        }
    }
}
