//! Grants and revokes rights on a broker, by the two requests of Kafka's protocol that librdkafka's binding lacks
//! (CreateAcls and DeleteAcls, version 1). Must not judge anything.

use std::io::{Read, Write};
use std::net::TcpStream;

/// A thing that rights are on.
#[derive(Clone, Copy, Debug)]
pub enum Resource<'a> {
    /// A topic by its name.
    Topic(&'a str),
    /// Transactional ids that begin so.
    TransactionalIds(&'a str),
    /// A consumer group by its name.
    Group(&'a str),
}

/// A right, by Kafka's number.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Describe = 8,
}

const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;
const ALLOW: u8 = 3;
const USER: &str = "User:limited";

/// Grants the user `limited` a right.
pub fn grant(servers: &str, resource: Resource<'_>, operation: Operation) {
    let answer = ask(servers, (CREATE_ACLS, 1), &entry(resource, operation));
    // Throttle time, number of results, error code of the first.
    assert_eq!(answer[8..10], [0, 0], "{resource:?} {operation:?}: {answer:?}");
}

/// Takes it away again.
pub fn revoke(servers: &str, resource: Resource<'_>, operation: Operation) {
    let answer = ask(servers, (DELETE_ACLS, 1), &entry(resource, operation));
    assert_eq!(answer[8..10], [0, 0], "{resource:?} {operation:?}: {answer:?}");
}

/// One entry, as both requests write it.
fn entry(resource: Resource<'_>, operation: Operation) -> Vec<u8> {
    let (kind, name, pattern) = match resource {
        Resource::Topic(name) => (2, name, 3),
        Resource::TransactionalIds(prefix) => (5, prefix, 4),
        Resource::Group(name) => (3, name, 3),
    };
    let mut bytes = vec![0, 0, 0, 1, kind];
    text(&mut bytes, name);
    bytes.push(pattern);
    text(&mut bytes, USER);
    text(&mut bytes, "*");
    bytes.extend([operation as u8, ALLOW]);
    bytes
}

/// Appends a text as requests have it.
pub(super) fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(u16::try_from(text.len()).expect("short").to_be_bytes());
    bytes.extend(text.as_bytes());
}

/// The body of the answer to a request of a version, after the correlation id.
pub(super) fn ask(servers: &str, (api, version): (i16, i16), body: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(api.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend([0, 0, 0, 7]);
    text(&mut request, "test");
    request.extend(body);
    let mut stream = TcpStream::connect(servers).expect("the broker listens");
    let length = u32::try_from(request.len()).expect("short");
    stream.write_all(&length.to_be_bytes()).expect("writes");
    stream.write_all(&request).expect("writes");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("the broker answers");
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).expect("the broker answers");
    answer.split_off(4)
}
