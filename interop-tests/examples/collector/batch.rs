//! Batches of events as `Foundation.Events.Batch` makes them:
//!
//! | bytes | meaning |
//! |---|---|
//! | 3 | `"FEB"` |
//! | 1 | version, 1 |
//! | 1 | method: 0 plain, 1 one LZ4 block, 2 zlib, 3 one Zstandard frame |
//! | 4 | length of the plain bytes |
//! | 8 | digest of the plain bytes: XXH3 with LZ4 and Zstandard, CRC-32 with the others |

use bytes::Bytes;
use twox_hash::XxHash3_64;

/// The most plain bytes of a batch.
const MAX_PLAIN: usize = 64 << 20;

/// The plain bytes: a list in the external term format. `None` if anything is wrong with them. Zstandard is for readers that have it; a shipper
/// to this one takes the default.
pub(crate) fn unpack(batch: &[u8]) -> Option<Bytes> {
    let rest = batch.strip_prefix(b"FEB\x01")?;
    let (&method, rest) = rest.split_first()?;
    let (size, rest) = rest.split_first_chunk::<4>()?;
    let (digest, bytes) = rest.split_first_chunk::<8>()?;
    let size = usize::try_from(u32::from_be_bytes(*size)).ok().filter(|size| *size <= MAX_PLAIN)?;
    let (plain, found) = match method {
        0 => (bytes.to_vec(), u64::from(crc32(bytes))),
        // No byte of a block stands for more than 255 plain ones: no memory for a false claim.
        1 if size <= bytes.len().saturating_mul(255) => {
            let plain = lz4_flex::block::decompress(bytes, size).ok()?;
            let digest = XxHash3_64::oneshot(&plain);
            (plain, digest)
        }
        2 => {
            let plain = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(bytes, size).ok()?;
            let digest = u64::from(crc32(&plain));
            (plain, digest)
        }
        _ => return None,
    };
    (plain.len() == size && found == u64::from_be_bytes(*digest)).then(|| plain.into())
}

/// CRC-32 of IEEE 802.3, as `:erlang.crc32/1`.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
