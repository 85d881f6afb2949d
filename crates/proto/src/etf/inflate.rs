//! The zlib stream of a compressed term, inflated step by step so that the output is bounded by what really comes out.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_COMPUTE_ADLER32, TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use crate::error::Problem;
use crate::{Error, Limits, Result};

/// Inflates a stream that claims to hold `size` bytes and must hold exactly as many.
pub(super) fn inflate(stream: &[u8], size: usize, limits: &Limits) -> Result<Vec<u8>> {
    const FLAGS: u32 =
        TINFL_FLAG_PARSE_ZLIB_HEADER | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | TINFL_FLAG_COMPUTE_ADLER32;
    // Deflate gains at most a factor of 1,032, so that a larger claim is wrong and need not be made room for.
    const MAX_RATIO: usize = 1032;

    if size > limits.max_inflated {
        return Err(Error::limit("max_inflated", size as u64, limits.max_inflated as u64));
    }
    let wrong = |problem| Error::malformed("compressed term", 6, problem);
    if size > stream.len().saturating_mul(MAX_RATIO) {
        return Err(wrong(Problem::CountTooLarge(size as u64)));
    }
    let mut output = vec![0; size];
    let (status, _, written) = decompress(&mut DecompressorOxide::new(), stream, &mut output, 0, FLAGS);
    match status {
        TINFLStatus::Done if written == size => Ok(output),
        TINFLStatus::Done | TINFLStatus::HasMoreOutput => Err(wrong(Problem::OutOfRange("length"))),
        TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => Err(wrong(Problem::Truncated)),
        _ => Err(wrong(Problem::Other("not a zlib stream"))),
    }
}
