//! Deterministic LLM traffic with disorder, late events and broken records, spread over partitions by key.
//! Must not know a broker. The fields are those of `config/samples/llm-by-model.yaml`.

use crate::random::Random;

/// One record to produce.
#[derive(Clone, Debug)]
pub struct Message {
    /// Partition of the source topic.
    pub partition: i32,
    /// Record key: the group key, for people who look.
    pub key: String,
    /// Record value.
    pub value: Vec<u8>,
}

/// How traffic looks.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Partitions of the source topic.
    pub partitions: i32,
    /// Event time between two events of a partition, ms.
    pub step_ms: u64,
    /// Events are at most this much out of order (most of them), ms.
    pub disorder_ms: u64,
    /// One event in so many is older by up to `late_by_ms`.
    pub late_one_in: u64,
    /// How old a late event may be, ms.
    pub late_by_ms: u64,
    /// One record in so many is broken.
    pub bad_one_in: u64,
    /// Tenants; each has four models.
    pub tenants: u64,
    /// Events of a key come to any partition.
    pub scattered: bool,
}

/// A source of records. Event time goes on from one call to the next.
#[derive(Clone, Debug)]
pub struct Traffic {
    shape: Shape,
    random: Random,
    clocks_ms: Vec<i64>,
}

impl Traffic {
    /// Traffic whose event time begins at `start_ms`.
    pub fn new(seed: u64, shape: Shape, start_ms: i64) -> Self {
        let partitions = usize::try_from(shape.partitions).unwrap_or_default();
        Self {
            shape,
            random: Random::new(seed),
            clocks_ms: vec![start_ms; partitions],
        }
    }

    /// The next record.
    pub fn next_message(&mut self) -> Message {
        let (tenant, model) = (self.random.below(self.shape.tenants), self.random.below(4));
        let key = format!("t{tenant}/m{model}");
        let partition = match self.shape.scattered {
            true => i32::try_from(self.random.below(self.shape.partitions.unsigned_abs().into())).unwrap_or_default(),
            false => partition_of(&key, self.shape.partitions),
        };
        let clock = &mut self.clocks_ms[partition.unsigned_abs() as usize];
        *clock += self.random.below(2 * self.shape.step_ms + 1).cast_signed();
        let mut behind_ms = self.random.below(self.shape.disorder_ms + 1);
        if self.random.one_in(self.shape.late_one_in) {
            behind_ms += self.random.below(self.shape.late_by_ms);
        }
        let time_ms = *clock - behind_ms.cast_signed();
        let value = match self.random.one_in(self.shape.bad_one_in) {
            true => self.broken(time_ms),
            false => self.event(time_ms, &format!("t{tenant}"), &format!("m{model}")),
        };
        Message {
            partition,
            key,
            value: value.into_bytes(),
        }
    }

    /// One event on every partition, `ahead_ms` further in event time: whatever came before is final when `ahead_ms`
    /// is above window, lateness and bound together.
    pub fn close(&mut self, ahead_ms: i64) -> Vec<Message> {
        (0..self.shape.partitions)
            .map(|partition| {
                let clock = &mut self.clocks_ms[partition.unsigned_abs() as usize];
                *clock += ahead_ms + self.shape.disorder_ms.cast_signed();
                let time_ms = *clock;
                let tenant = format!("closing-{partition}");
                let value = self.event(time_ms, &tenant, "m0").into_bytes();
                Message {
                    partition,
                    key: tenant,
                    value,
                }
            })
            .collect()
    }

    /// Highest event time so far, ms.
    pub fn clock_ms(&self) -> i64 {
        self.clocks_ms.iter().copied().max().unwrap_or_default()
    }

    fn event(&mut self, time_ms: i64, tenant: &str, model: &str) -> String {
        let random = &mut self.random;
        let (prompt, completion) = (random.below(4000), random.below(900));
        let (latency, hundredths) = (random.below(9000), random.below(100));
        let cost_micro = prompt * 3 + completion * 15 + 1;
        format!(
            r#"{{"ts":"{}","tenant":"{tenant}","model":"{model}","usage":{{"prompt":{prompt},"completion":{completion}}},"latency_ms":{latency}.{hundredths:02},"cost_usd":{}.{:06},"status":200}}"#,
            rfc3339(time_ms),
            cost_micro / 1_000_000,
            cost_micro % 1_000_000,
        )
    }

    fn broken(&mut self, time_ms: i64) -> String {
        match self.random.below(4) {
            0 => "no json at all".to_owned(),
            1 => r#"{"tenant":"t0","model":"m0","usage":{"prompt":1}}"#.to_owned(),
            2 => format!(r#"{{"ts":"{}","model":"m0"}}"#, rfc3339(time_ms)),
            _ => r#"{"ts":"yesterday","tenant":"t0","model":"m0"}"#.to_owned(),
        }
    }
}

fn rfc3339(time_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(time_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

/// Partition of a key (FNV-1a); any function of the key will do, as long as a key stays where it is.
pub fn partition_of(key: &str, partitions: i32) -> i32 {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    i32::try_from(hash % u64::from(partitions.unsigned_abs())).unwrap_or_default()
}
