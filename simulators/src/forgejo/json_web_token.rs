//! JSON web tokens: those that the server reads itself (HS256), and those for the rest of the world
//! (RS256).

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The key of tokens for the rest of the world. Making one takes a while, so all servers of a process
/// have the same.
static PAIR: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).expect("there is randomness"));

/// A token that is signed with a secret.
pub(super) fn hs256(secret: &[u8], claims: &Value) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    token(&json!({"alg": "HS256", "typ": "JWT"}), claims, |text| {
        hmac::sign(&key, text).as_ref().into()
    })
}

/// The claims of a token that is signed with a secret; whether it is too old is not looked at.
pub(super) fn read_hs256(secret: &[u8], token: &str) -> Option<Value> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    read("HS256", token, |text, signature| hmac::verify(&key, text, signature).is_ok())
}

/// A token that everybody can check who has the public key.
pub(super) fn rs256(claims: &Value) -> String {
    let identifier = hex::encode(Sha256::digest(PAIR.public_key()));
    let header = json!({"alg": "RS256", "kid": identifier, "typ": "JWT"});
    token(&header, claims, |text| {
        let mut signature = vec![0; PAIR.public_modulus_len()];
        let signed = PAIR.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature);
        signed.expect("the key is made for it");
        signature
    })
}

/// The claims of a token by [`rs256`].
pub(super) fn read_rs256(token: &str) -> Option<Value> {
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, PAIR.public_key());
    read("RS256", token, |text, signature| key.verify(text, signature).is_ok())
}

fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(text.as_bytes()));
    format!("{text}.{signature}")
}

fn read(kind: &str, token: &str, is_signed: impl FnOnce(&[u8], &[u8]) -> bool) -> Option<Value> {
    let (text, signature) = token.rsplit_once('.')?;
    let (header, claims) = text.split_once('.')?;
    let value = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    let header: Value = value(header)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let is_ours = header["alg"] == kind && is_signed(text.as_bytes(), &signature);
    value(claims).filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_by_who_has_the_key() {
        let claims = json!({"sub": "x", "exp": 7});
        let token = hs256(b"secret", &claims);
        assert_eq!(read_hs256(b"secret", &token), Some(claims.clone()));
        assert_eq!(read_hs256(b"other", &token), None);
        assert_eq!(read_rs256(&token), None, "it is of the other kind");
        let other = hs256(b"secret", &json!({"sub": "y"}));
        let (text, _) = other.rsplit_once('.').unwrap();
        let (_, signature) = token.rsplit_once('.').unwrap();
        assert_eq!(read_hs256(b"secret", &format!("{text}.{signature}")), None);
        for nonsense in ["", "a.b", "a.b.c", "0123456789abcdef0123456789abcdef01234567"] {
            assert_eq!(read_hs256(b"secret", nonsense), None, "{nonsense:?}");
        }
        let public = rs256(&claims);
        assert_eq!(read_rs256(&public), Some(claims));
        assert_eq!(read_hs256(b"secret", &public), None);
    }

    #[test]
    fn the_signature_is_that_of_everybody() {
        // By another program.
        let token = hs256(b"key", &json!({}));
        assert_eq!(
            token,
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.9EmJDfAi6fqc_FoO3yD77spdi7QZX-s9VzN89vOaOp0"
        );
    }
}
