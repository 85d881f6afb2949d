//! The cookie and the proof that a peer has the same one.
//!
//! OTP: `gen_digest/2` in `dist_util.erl`, and "Distribution Handshake" in the guide "Distribution Protocol".

use core::fmt;
use core::hint::black_box;
use std::sync::Arc;

use md5::{Digest as _, Md5};

/// The secret that the nodes of a cluster share.
///
/// It is never printed, compares in constant time, and its bytes are overwritten when the last clone goes (as far as safe
/// code can promise that: the compiler may have kept copies in registers). Clones share one allocation.
#[derive(Clone)]
pub struct Cookie(Arc<Secret>);

struct Secret(Box<[u8]>);

/// Why a text cannot be a cookie. It does not contain the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CookieError {
    /// An empty cookie would let everybody in.
    Empty,
    /// A cookie is an atom and has at most 255 characters.
    TooLong,
    /// Only Latin-1 characters have a defined digest: OTP computes it from a list of bytes.
    NotLatin1,
}

impl Cookie {
    /// The most characters a cookie can have.
    pub const MAX_CHARACTERS: usize = 255;

    /// A cookie from its text. Each character becomes one byte of Latin-1, as in OTP.
    ///
    /// # Errors
    /// If the text is empty, has more than 255 characters, or one beyond U+00FF.
    pub fn new(text: &str) -> Result<Self, CookieError> {
        if text.is_empty() {
            return Err(CookieError::Empty);
        }
        let characters = text.chars().count();
        if characters > Self::MAX_CHARACTERS {
            return Err(CookieError::TooLong);
        }
        // Reserved at once: a buffer that grows would leave copies of the secret behind.
        let mut secret = Secret(vec![0; characters].into_boxed_slice());
        for (byte, character) in secret.0.iter_mut().zip(text.chars()) {
            *byte = u8::try_from(u32::from(character)).map_err(|_| CookieError::NotLatin1)?;
        }
        Ok(Self(Arc::new(secret)))
    }

    /// The number of characters, for warnings about weak cookies.
    #[allow(clippy::len_without_is_empty, reason = "a cookie is never empty")]
    pub fn len(&self) -> usize {
        self.0.0.len()
    }

    /// The proof that this side knows the cookie: MD5 of its characters followed by `challenge` in decimal.
    pub fn digest(&self, challenge: u32) -> [u8; 16] {
        let mut md5 = Md5::new();
        md5.update(&self.0.0);
        md5.update(challenge.to_string().as_bytes());
        md5.finalize().into()
    }

    /// Whether `digest` proves knowledge of the cookie for `challenge`, in a time that does not depend on where they
    /// differ.
    #[must_use]
    pub fn verify(&self, challenge: u32, digest: &[u8; 16]) -> bool {
        constant_time_eq(&self.digest(challenge), digest)
    }
}

fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| black_box(difference | (x ^ y))) == 0
}

impl PartialEq for Cookie {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(&self.0.0, &other.0.0)
    }
}

impl Eq for Cookie {}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without an observer the compiler would remove a write to memory that is about to be freed.
        black_box(&self.0);
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

impl fmt::Display for CookieError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the cookie is empty",
            Self::TooLong => "the cookie has more than 255 characters",
            Self::NotLatin1 => "the cookie has characters outside of Latin-1",
        })
    }
}

impl core::error::Error for CookieError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digest: [u8; 16]) -> String {
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Digests that OTP 25 and 29 sent and accepted.
    #[test]
    fn digests_are_those_of_otp() {
        let cookie = Cookie::new("secret").unwrap();
        for (challenge, expected) in [
            (0x0000_0001, "e52d98c459819a11775936d8dfbb7929"),
            (0x0102_0304, "24d92202cd3724fb37808c885f4e2298"),
            (0x20eb_0f8f, "7b672a7993a5c4c672006e145b4e622e"),
            (0x4468_971e, "c35630963d74174b86c99e9115d4b929"),
            (0xe879_547e, "fcea1f89ed9efb170ee288dfbd430ef2"),
        ] {
            let digest = cookie.digest(challenge);
            assert_eq!(hex(digest), expected);
            assert!(cookie.verify(challenge, &digest));
            for bit in 0..128 {
                let mut wrong = digest;
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(!cookie.verify(challenge, &wrong));
            }
        }
    }

    #[test]
    fn characters_are_latin_1_bytes() {
        // MD5 of the bytes E5 31 ("å" in Latin-1, then "1"), by md5sum.
        let digest = Cookie::new("å").unwrap().digest(1);
        let mut md5 = Md5::new();
        md5.update(b"\xe51");
        let expected: [u8; 16] = md5.finalize().into();
        assert_eq!(digest, expected);
    }

    #[test]
    fn limits_of_a_cookie() {
        assert_eq!(Cookie::new("").unwrap_err(), CookieError::Empty);
        assert!(Cookie::new(&"å".repeat(255)).is_ok());
        assert_eq!(Cookie::new(&"a".repeat(256)).unwrap_err(), CookieError::TooLong);
        assert_eq!(Cookie::new("€").unwrap_err(), CookieError::NotLatin1);
    }

    #[test]
    fn a_cookie_is_never_printed() {
        let cookie = Cookie::new("do-not-print-me").unwrap();
        assert_eq!(format!("{cookie:?} {:?}", Some(cookie.clone())), "Cookie(..) Some(Cookie(..))");
    }
}
