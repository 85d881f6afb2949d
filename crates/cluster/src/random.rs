/// Numbers that look random and follow from a seed: SplitMix64 (Steele, Lea and Flood, 2014), small and the same everywhere.
///
/// For choices that need not be secret: delays that spread attempts over time, and the chance of a simulation.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0 if `end` is 0.
    pub fn below_u64(&mut self, end: u64) -> u64 {
        // The bias of the remainder is far below what such a choice could notice.
        if end == 0 { 0 } else { self.next_u64() % end }
    }
}
