//! What earlier owners have left is read up to a mark. Must not test what follows from it.

use std::time::Duration;

use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use streamagg_processor::kafka::consumer::{PartitionReader, ReadError};
use streamagg_processor::kafka::settings::Settings;

use super::rig::{Job, PATIENCE};

const MARK: &[u8] = b"the mark";
/// Without anything new for so long, the read is given up that cannot succeed.
const SOON: Duration = Duration::from_secs(3);

fn write(job: &Job, key: &[u8]) {
    let producer: BaseProducer = job.client().create().expect("a producer");
    let record = BaseRecord::<[u8], [u8]>::to(&job.name).partition(0).key(key);
    producer.send(record).expect("is queued");
    producer.flush(Duration::from_secs(30)).expect("is written");
}

/// Keys from the beginning to the end, or to the mark.
fn read(job: &Job, mark: Option<&[u8]>, limit: Duration) -> Result<Vec<Vec<u8>>, ReadError> {
    let mut settings = Settings::default();
    for (name, value) in [
        ("bootstrap.servers", job.reach.processor.as_str()),
        ("group.id", &job.name),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "error"),
    ] {
        settings.set(name, value);
    }
    let reader = PartitionReader::open(&settings, (job.name.clone(), 0)).expect("a reader");
    let mut keys = Vec::new();
    reader.read_to_end(limit, mark, &mut |message| {
        keys.push(message.key().unwrap_or_default().to_vec());
        Ok(())
    })?;
    Ok(keys)
}

/// A leader that was replaced and does not know it has not the mark, and perhaps not what came before it.
#[test]
fn an_end_without_the_mark_is_not_believed_and_with_it_all_before_it_was_read() {
    let job = Job::new("mark", 1);
    for key in [b"one", b"two"] {
        write(&job, key);
    }
    let before: Vec<Vec<u8>> = [b"one", b"two"].map(|key| key.to_vec()).into();
    assert_eq!(read(&job, None, PATIENCE).expect("is read"), before);
    match read(&job, Some(MARK), SOON) {
        Err(ReadError::Passing { message, .. }) => assert!(message.contains("just written"), "{message}"),
        other => panic!("{other:?}"),
    }
    write(&job, MARK);
    let whole = [before, vec![MARK.to_vec()]].concat();
    assert_eq!(read(&job, Some(MARK), PATIENCE).expect("is read"), whole);
}
