//! SplitMix64 (Steele, Lea, Flood 2014): ten lines, the same numbers everywhere, quick enough not to be seen.
//! Must not be used for secrets.

/// What a seed differs by from the next.
pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The first output for this seed; that for the seed and [`STEP`] is the second.
pub fn split_mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(STEP);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
