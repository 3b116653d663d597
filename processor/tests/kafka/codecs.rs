//! What a job writes as the broker has it on its disk: compressed, in transactions, numbered by its producer. Read by the
//! request of Kafka's protocol behind every consumer (Fetch, version 10), for consumers show none of it.
//! Must not test what the records say.

use super::at_least_once::at_least_once;
use super::rig::{Job, Reach};
use super::rights::{ask, text};

const FETCH: (i16, i16) = (1, 10);
const BYTES_MAX: i32 = 50 << 20;

/// Bits of a batch's attributes.
const CODEC: i16 = 0b111;
const TRANSACTIONAL: i16 = 0x10;
/// It ends a transaction.
const CONTROL: i16 = 0x20;

/// Head of a batch of records.
#[derive(Clone, Copy, Debug)]
struct Batch {
    attributes: i16,
    /// Negative without a number.
    producer: i64,
    sequence: i32,
    records: i32,
}

/// The bytes of an answer, from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    fn batch(&mut self) -> Batch {
        let _offset = self.i64();
        let length = usize::try_from(self.i32()).expect("a length");
        let mut batch = Self(self.take(length));
        // Leader's epoch, magic byte, checksum.
        batch.take(4 + 1 + 4);
        let attributes = batch.i16();
        // Offset of the last record, first and last time.
        batch.take(4 + 8 + 8);
        let producer = batch.i64();
        let _epoch = batch.i16();
        Batch {
            attributes,
            producer,
            sequence: batch.i32(),
            records: batch.i32(),
        }
    }
}

fn put(request: &mut Vec<u8>, numbers: &[i32]) {
    request.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
}

/// Heads of the batches with results of a job with one partition.
fn batches(job: &Job) -> Vec<Batch> {
    let mut request = Vec::new();
    // No replica, longest wait, least and most bytes.
    put(&mut request, &[-1, 1_000, 1, BYTES_MAX]);
    // Also what is not committed.
    request.push(0);
    // No session; one topic.
    put(&mut request, &[0, -1, 1]);
    text(&mut request, &format!("{}-out", job.name));
    // One partition, its number, any epoch of the leader, from offset 0, no start of the log, most bytes; nothing forgotten.
    put(&mut request, &[1, 0, -1, 0, 0, -1, -1, BYTES_MAX, 0]);
    let answer = ask(&job.reach.tests, FETCH, &request);
    let mut answer = Bytes(&answer);
    let (_throttled, error, _session, _topics) = (answer.i32(), answer.i16(), answer.i32(), answer.i32());
    assert_eq!(error, 0);
    let name = usize::try_from(answer.i16()).expect("a length");
    answer.take(name);
    let (_partitions, _number, error) = (answer.i32(), answer.i32(), answer.i16());
    assert_eq!(error, 0);
    // End, end of what is committed, start; then aborted transactions, each a producer and an offset.
    answer.take(3 * 8);
    let aborted = usize::try_from(answer.i32()).unwrap_or(0);
    answer.take(16 * aborted);
    let bytes = usize::try_from(answer.i32()).expect("a length");
    let mut records = Bytes(answer.take(bytes));
    let mut batches = Vec::new();
    while !records.0.is_empty() {
        batches.push(records.batch());
    }
    batches.retain(|batch| batch.attributes & CONTROL == 0);
    assert!(!batches.is_empty(), "a test without results shows nothing");
    batches
}

#[test]
fn results_are_compressed_on_the_broker_as_the_spec_says_and_belong_to_transactions() {
    let codecs = [
        ("", 4),
        (", compression: None", 0),
        (", compression: Gzip", 1),
        (", compression: Snappy", 2),
        (", compression: Lz4", 3),
        (", compression: Zstd", 4),
    ];
    let jobs = codecs.map(|(compression, codec)| {
        let mut job = Job::new("codec", 1);
        job.sink = Some(Reach {
            security: compression.to_owned(),
            ..job.reach.clone()
        });
        job.produce(1_000);
        let processor = job.start("data");
        (job, processor, codec)
    });
    for (job, _processor, codec) in &jobs {
        job.assert_exact();
        let batches = batches(job);
        let is_right = |batch: &Batch| batch.attributes & (CODEC | TRANSACTIONAL) == codec | TRANSACTIONAL;
        assert!(batches.iter().all(is_right), "codec {codec}: {batches:?}");
    }
}

/// A broker takes no batch twice that has a number, however often it is sent.
#[test]
fn without_transactions_batches_are_numbered_one_behind_the_other() {
    let job = at_least_once(Job::new("numbered", 1));
    job.produce(1_000);
    let _processor = job.start("data");
    job.assert_exact();
    job.produce(1_000);
    job.assert_exact();
    let batches = batches(&job);
    let mut next = 0;
    for batch in &batches {
        assert_eq!(batch.attributes & TRANSACTIONAL, 0, "{batches:?}");
        assert_eq!(
            (batch.producer, batch.sequence),
            (batches[0].producer, next),
            "{batches:?}"
        );
        next += batch.records;
    }
    assert!(batches[0].producer >= 0, "{batches:?}");
}
