//! A broker that was not let in yet, as a client sees it: the real one is so only for a moment, and not on demand.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::*;
use crate::kafka::access::Access;

/// So many that reading of them takes a client longer than letting go of its brokers, which it does before: that they are
/// gone would make it begin anew, and the end of the answer calls that off for good.
const TOPICS: i32 = 5_000;
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;

/// Answers what a client asks before anything else.
struct Broker {
    address: SocketAddr,
    /// Metadata name it.
    is_let_in: AtomicBool,
}

impl Broker {
    fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let broker = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            is_let_in: AtomicBool::new(true),
        });
        let answering = Arc::clone(&broker);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (broker, stream) = (Arc::clone(&answering), stream.unwrap());
                // Until the client closes it.
                thread::spawn(move || broker.answer_all(stream));
            }
        });
        broker
    }

    fn answer_all(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut request = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
            stream.read_exact(&mut request)?;
            let key = i16::from_be_bytes([request[0], request[1]]);
            let mut answer = request[4..8].to_vec();
            match key {
                API_VERSIONS => answer.extend(api_versions()),
                METADATA => answer.extend(self.metadata()),
                other => panic!("request {other} is not expected"),
            }
            stream.write_all(&i32::try_from(answer.len()).unwrap().to_be_bytes())?;
            stream.write_all(&answer)?;
        }
    }

    /// Version 1.
    fn metadata(&self) -> Vec<u8> {
        let is_let_in = self.is_let_in.load(Ordering::SeqCst);
        let mut answer = Vec::new();
        answer.extend(i32::from(is_let_in).to_be_bytes());
        if is_let_in {
            answer.extend(1_i32.to_be_bytes());
            answer.extend(text(&self.address.ip().to_string()));
            answer.extend(i32::from(self.address.port()).to_be_bytes());
            answer.extend((-1_i16).to_be_bytes());
        }
        // There is no controller.
        answer.extend((-1_i32).to_be_bytes());
        answer.extend(TOPICS.to_be_bytes());
        for number in 0..TOPICS {
            // No error.
            answer.extend([0; 2]);
            // Long: the client makes room by the length of the answer.
            answer.extend(text(&format!("topic-{number:0>200}")));
            // Not internal; one partition, without error: its number, a leader, no replicas and none in sync.
            answer.extend([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            answer.extend((if is_let_in { 1_i32 } else { -1 }).to_be_bytes());
            answer.extend([0; 8]);
        }
        answer
    }
}

/// Version 3, of which the header is as it always was.
fn api_versions() -> Vec<u8> {
    let ranges: [(i16, i16); 2] = [(METADATA, 1), (API_VERSIONS, 3)];
    let mut answer = vec![0, 0];
    answer.push(u8::try_from(ranges.len() + 1).unwrap());
    for (key, highest) in ranges {
        answer.extend(key.to_be_bytes());
        answer.extend(0_i16.to_be_bytes());
        answer.extend(highest.to_be_bytes());
        answer.push(0);
    }
    answer.extend([0; 5]);
    answer
}

fn text(text: &str) -> Vec<u8> {
    let length = i16::try_from(text.len()).unwrap().to_be_bytes();
    [&length, text.as_bytes()].concat()
}

#[test]
fn a_client_that_forgot_its_brokers_finds_them_when_they_are_named_again() {
    let broker = Broker::start();
    let servers = broker.address.to_string();
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    let ask = |limit| {
        let answer = consumer.fetch_metadata(None, limit);
        answer.map(|answer| answer.brokers().len())
    };
    let patience = Duration::from_secs(30);
    assert_eq!(ask(patience), Ok(1));
    // It is a race between threads of the library, nearly always lost.
    let forgets = (0..20).any(|_| {
        broker.is_let_in.store(false, Ordering::SeqCst);
        ask(Duration::from_secs(5)).ok();
        broker.is_let_in.store(true, Ordering::SeqCst);
        ask(Duration::from_secs(5)).is_err()
    });
    assert!(forgets, "the library was mended: nothing needs naming again");
    name_again(consumer.client(), &servers);
    assert_eq!(ask(patience), Ok(1));
    // To one that knows them it does nothing.
    name_again(consumer.client(), &servers);
    assert_eq!(ask(patience), Ok(1));
}

#[test]
fn reminders_come_while_there_is_doubt_ever_later_and_not_without_end() {
    let reminder = Reminder::default();
    let consumer: BaseConsumer = ClientConfig::new().create().unwrap();
    let mut settings = Settings::new(Access::default());
    settings.set("bootstrap.servers", "127.0.0.1:1");
    // Whether there was one, and the wait behind it.
    let remind = || {
        let left = reminder.left.get();
        reminder.still_waiting(consumer.client(), &settings);
        (reminder.left.get() < left).then(|| reminder.wait.get())
    };
    let remind_when_due = || {
        reminder.due.set(Instant::now());
        remind()
    };
    assert_eq!(remind_when_due(), None, "nothing is waited for");
    reminder.doubt();
    assert_eq!(remind(), None, "not due yet");
    let waits: Vec<Duration> = std::iter::from_fn(remind_when_due).collect();
    assert_eq!(waits[..2], [2 * FIRST, 4 * FIRST]);
    assert_eq!((waits.len(), waits.last()), (12, Some(&LONGEST)));
    reminder.doubt();
    assert_eq!(remind_when_due(), Some(2 * FIRST), "more trouble, more doubt");
    reminder.doubt();
    assert_eq!(
        remind_when_due(),
        Some(4 * FIRST),
        "it goes on, and does not begin again"
    );
}
