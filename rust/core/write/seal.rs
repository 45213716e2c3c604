//! Seals: a JSON text that holds the sha256 of itself, so that a reader can tell that it was not
//! changed.
//!
//! The digest covers the bytes of the text, with the 64 digits of its own value read as zeros.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::tokenize::hex;

/// Stands for a digest while it is computed.
pub(crate) const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// The key of the digest.
const SHA256: &str = "sha256";

/// Returns the digest of a text whose own digest is read as zeros.
pub(crate) fn digest_of(zeroed: &str) -> String {
    hex(&Sha256::digest(zeroed.as_bytes()))
}

/// Returns whether `digest`, a value in `text`, is the digest of this text.
pub(crate) fn is_sealed(text: &str, digest: &str) -> bool {
    digest.len() == ZEROS.len() && digest_of(&text.replacen(digest, ZEROS, 1)) == digest
}

/// Returns `object` as JSON, with its seal as the first value.
pub(crate) fn sealed_text(object: &impl Serialize) -> serde_json::Result<String> {
    let mut sealed = Map::from_iter([(SHA256.to_owned(), Value::from(ZEROS))]);
    if let Value::Object(fields) = serde_json::to_value(object)? {
        sealed.extend(fields);
    }
    let zeroed = serde_json::to_string_pretty(&sealed)?;
    Ok(zeroed.replacen(ZEROS, &digest_of(&zeroed), 1))
}

/// Reads a text of [`sealed_text`]. Returns an error in words if it was changed.
pub(crate) fn unsealed<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let digest = value[SHA256].as_str().ok_or("it has no sha256 of itself")?;
    if !is_sealed(text, digest) {
        return Err("its sha256 does not fit".to_owned());
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_bit_breaks_the_seal() {
        let text =
            sealed_text(&serde_json::json!({"b": [1, 2.5, "ọ̀"], "a": {"zeros": ZEROS}})).unwrap();
        let found: Value = unsealed(&text).unwrap();
        assert_eq!(
            (&found["b"][1], &found["a"]["zeros"]),
            (&Value::from(2.5), &Value::from(ZEROS))
        );
        for byte in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[byte] ^= 1 << bit;
                let Ok(flipped) = String::from_utf8(bytes) else { continue };
                assert!(unsealed::<Value>(&flipped).is_err(), "bit {bit} of byte {byte}");
            }
        }
        for unsealed_text in ["", "[]", "{}", "{\"sha256\": 1}", "{\"sha256\": \"\"}"] {
            assert!(unsealed::<Value>(unsealed_text).is_err(), "{unsealed_text}");
        }
    }
}
