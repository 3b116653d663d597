//! Percentiles against exact answers of many shapes, and the laws of their state.

use proptest::prelude::*;

use super::*;

const ONE: f64 = 1e12;

fn fold(values: &[i128], resolution: Resolution) -> Quantiles {
    let mut quantiles = Quantiles::default();
    for value in values {
        quantiles.add(*value, resolution);
    }
    quantiles
}

fn encoded(quantiles: &Quantiles) -> Vec<u8> {
    let mut bytes = Vec::new();
    quantiles.encode(&mut bytes);
    bytes
}

/// A plain generator of numbers between 0 and 1 (SplitMix64), so that the shapes below are the same in every run.
fn uniform(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ word >> 31) >> 11) as f64 / (1u64 << 53) as f64
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn shapes() -> Vec<(&'static str, Vec<i128>)> {
    let scaled = |values: Vec<f64>, scale: f64| values.into_iter().map(|value| (value * scale) as i128).collect();
    let normal = |seed| -> Vec<f64> {
        let pairs = uniform(20_000, seed).into_iter().zip(uniform(20_000, seed + 1));
        pairs
            .map(|(a, b)| (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos())
            .collect()
    };
    let log_normal: Vec<f64> = normal(3).into_iter().map(|value| (5.0 + 1.5 * value).exp()).collect();
    let zipf: Vec<f64> = uniform(20_000, 7)
        .into_iter()
        .map(|value| (1.0 / (1.0 - value)).floor())
        .collect();
    vec![
        ("uniform", scaled(uniform(20_000, 1), 1000.0 * ONE)),
        ("log-normal", scaled(log_normal, ONE)),
        ("Zipf", scaled(zipf, ONE)),
        ("constant", vec![123_456_789_000_000; 5_000]),
        ("zero", vec![0; 5_000]),
        ("both signs", scaled(normal(5), 250.0 * ONE)),
        ("negative", scaled(uniform(9_000, 11), -7e5 * ONE)),
        ("tiny", scaled(uniform(9_000, 13), 5_000.0)),
        ("huge", scaled(uniform(9_000, 17), 9.9e18 * ONE)),
        (
            "every size",
            (0..20_000i32)
                .map(|n| 10i128.pow(n as u32 % 31) * i128::from(n % 9 + 1))
                .collect(),
        ),
    ]
}

#[test]
fn every_quantile_is_within_the_stated_error_of_the_exact_answer() {
    for ppm in [1_000u32, 2_500, 10_000, 50_000, 100_000] {
        let resolution = Resolution::new(ppm);
        for (shape, mut values) in shapes() {
            let quantiles = fold(&values, resolution);
            values.sort_unstable();
            let ranks: Vec<u64> = (1..=1000u64)
                .map(|share| (share * values.len() as u64).div_ceil(1000))
                .collect();
            for (rank, found) in ranks.iter().zip(quantiles.at_ranks(&ranks, resolution)) {
                let exact = values[*rank as usize - 1];
                // A decimal has no finer unit than 10^-12: a bucket of two such neighbours is off by one of them.
                let error = (found - exact).unsigned_abs();
                assert!(
                    error <= 1 || error * 1_000_000 <= exact.unsigned_abs() * u128::from(ppm),
                    "{shape} at {ppm} ppm, rank {rank}: {found} for {exact}"
                );
            }
        }
    }
}

#[test]
fn few_values_are_answered_exactly() {
    let resolution = Resolution::new(10_000);
    let mut values: Vec<i128> = (0..EXACT_VALUES_MAX as i128)
        .map(|n| (n * 7919 % 256) << (n % 90))
        .collect();
    let quantiles = fold(&values, resolution);
    values.sort_unstable();
    let ranks: Vec<u64> = (1..=values.len() as u64).rev().collect();
    values.reverse();
    assert_eq!(quantiles.at_ranks(&ranks, resolution), values);
    assert_eq!(quantiles.at_ranks(&[0, 9_999], resolution), [values[255], values[0]]);
}

#[test]
fn buckets_ascend_cover_every_value_and_stand_for_themselves() {
    for ppm in [1_000u32, 9_999, 10_000, 37_000, 100_000] {
        let resolution = Resolution::new(ppm);
        let largest = 10i128.pow(31) - 1;
        assert!(resolution.is_bucket(resolution.bucket(largest)) && resolution.is_bucket(resolution.bucket(-largest)));
        let mut before = 0;
        for value in (1..4_000i128).chain((0..100_000).map(|n| 1_000_003i128.pow(2) * n * n + 4_000)) {
            let bucket = resolution.bucket(value);
            assert!(bucket >= before && resolution.bucket(-value) == -bucket, "{value}");
            assert_eq!(resolution.bucket(resolution.middle(bucket)), bucket, "{value}");
            before = bucket;
        }
    }
}

fn values(len: usize) -> impl Strategy<Value = Vec<i128>> {
    let value = prop_oneof![
        (0..50i128).prop_map(|value| value * 1_000_000_000_000),
        any::<i64>().prop_map(i128::from),
        (any::<i128>(), 25..127u32).prop_map(|(value, shift)| value >> shift),
    ];
    prop::collection::vec(value, 0..len)
}

#[test]
fn a_bucket_that_no_number_falls_into_is_damage() {
    let resolution = Resolution::new(10_000);
    let of_small: Vec<i32> = (-64..=64).map(|value| resolution.bucket(value)).collect();
    for bucket in -300..=300 {
        assert_eq!(resolution.is_bucket(bucket), of_small.contains(&bucket), "{bucket}");
    }
    assert!(resolution.is_bucket(resolution.bucket(10i128.pow(31) - 1)));
}

proptest! {
    #[test]
    fn merging_is_associative_commutative_and_equals_adding(
        a in values(200), b in values(200), c in values(200), ppm in prop::sample::select(vec![1_000u32, 10_000, 100_000]),
    ) {
        let resolution = Resolution::new(ppm);
        let merged = |parts: &[&Vec<i128>]| {
            let mut whole = Quantiles::default();
            for part in parts {
                whole.merge(&fold(part, resolution), resolution);
            }
            encoded(&whole)
        };
        let whole = fold(&[a.clone(), b.clone(), c.clone()].concat(), resolution);
        prop_assert_eq!(&merged(&[&a, &b, &c]), &encoded(&whole));
        prop_assert_eq!(&merged(&[&c, &a, &b]), &encoded(&whole));
        let mut tail = fold(&b, resolution);
        tail.merge(&fold(&c, resolution), resolution);
        let mut right = fold(&a, resolution);
        right.merge(&tail, resolution);
        prop_assert_eq!(&encoded(&right), &encoded(&whole));
        let read = Quantiles::decode(&encoded(&whole), resolution).expect("it was written by encode");
        prop_assert_eq!(encoded(&read), encoded(&whole));
        if whole.count() > 0 {
            prop_assert_eq!(read.at_ranks(&[1, 5, 300], resolution), whole.at_ranks(&[1, 5, 300], resolution));
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_in_canonical_form(
        values in values(400), at in any::<prop::sample::Index>(), byte in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let resolution = Resolution::new(10_000);
        let mut bytes = encoded(&fold(&values, resolution));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for bytes in [&bytes[..], &bytes[..at], &noise[..]] {
            if let Some(read) = Quantiles::decode(bytes, resolution) {
                prop_assert_eq!(encoded(&read), bytes);
                prop_assert!(read.count() == 0 || read.at_ranks(&[1], resolution).len() == 1);
            }
        }
    }
}
