//! As much of the protocols of Google Cloud Storage (its XML interface) and Azure Blob Storage as the store speaks, on
//! loopback: what is put, with its condition, is kept; every request is noted. Must not be taken for the services: rights
//! and signatures are not checked, uploads in parts are not known.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// When everything was written, in the forms that the protocols want.
const WRITTEN: &str = "Thu, 01 Jul 2021 10:45:02 GMT";
const WRITTEN_ISO: &str = "2021-07-01T10:45:02.000Z";

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    requests: Vec<Request>,
}

/// The service: its bucket or container is everything below `root`.
pub struct Cloud {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

impl Cloud {
    /// Serves until the process ends; `root` is the path of the bucket, such as `/bucket`.
    pub fn start(root: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // Ends with the connection.
                std::thread::spawn(move || serve(&stream, root, &shared));
            }
        });
        Self { port, state }
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .requests
            .clone()
    }

    /// What each `PUT` of `path` had in this header, in order.
    pub fn put_headers(&self, path: &str, header: &str) -> Vec<Option<String>> {
        self.requests()
            .iter()
            .filter(|request| request.method == "PUT" && request.path == path)
            .map(|request| request.headers.get(header).cloned())
            .collect()
    }
}

fn serve(stream: &TcpStream, root: &str, state: &Mutex<State>) {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    while let Some(request) = read(&mut reader) {
        let answer = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.requests.push(request.clone());
            answer(&mut state, root, &request)
        };
        if writer.write_all(&answer).is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut request = Request {
        method,
        path: decoded(path),
        query: query.to_owned(),
        ..Request::default()
    };
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        request
            .headers
            .insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = request
        .headers
        .get("content-length")
        .and_then(|length| length.parse().ok());
    request.body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// A part of an address with its `%` resolved.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).expect("two digits behind %"));
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).expect("names are text")
}

fn respond(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nETag: \"1\"\r\nLast-Modified: {WRITTEN}\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn answer(state: &mut State, root: &str, request: &Request) -> Vec<u8> {
    let Some(name) = request.path.strip_prefix(root) else {
        return respond("404 Not Found", "", b"no such bucket");
    };
    let name = name.trim_start_matches('/').to_owned();
    let only_if_new = ["x-goog-if-generation-match", "if-none-match"]
        .iter()
        .any(|condition| request.headers.contains_key(*condition));
    match (request.method.as_str(), name.is_empty()) {
        ("PUT", false) if only_if_new && state.objects.contains_key(&name) => {
            respond("412 Precondition Failed", "", b"it is there")
        }
        ("PUT", false) => {
            state.objects.insert(name, request.body.clone());
            respond("201 Created", "", b"")
        }
        ("GET" | "HEAD", false) => match state.objects.get(&name) {
            None => respond("404 Not Found", "", b""),
            Some(object) if request.method == "GET" => respond("200 OK", "", object),
            Some(object) => {
                let whole = respond("200 OK", "", object);
                whole[..whole.len() - object.len()].to_vec()
            }
        },
        ("DELETE", false) => match state.objects.remove(&name) {
            Some(_) => respond("204 No Content", "", b""),
            None => respond("404 Not Found", "", b""),
        },
        ("GET", true) => respond("200 OK", "", listing(state, &request.query).as_bytes()),
        ("POST", true) => delete_all(state, root, request),
        _ => respond("501 Not Implemented", "", b""),
    }
}

/// Both protocols' lists of objects.
fn listing(state: &State, query: &str) -> String {
    let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix="));
    let prefix = decoded(prefix.unwrap_or_default());
    let found = state.objects.iter().filter(|(name, _)| name.starts_with(&prefix));
    let is_azure = query.contains("comp=list");
    let mut rows = String::new();
    for (name, object) in found {
        let size = object.len();
        let row = if is_azure {
            format!(
                "<Blob><Name>{name}</Name><Properties><Last-Modified>{WRITTEN}</Last-Modified><Etag>1</Etag>\
                 <Content-Length>{size}</Content-Length><Content-Type>a/b</Content-Type></Properties></Blob>"
            )
        } else {
            format!(
                "<Contents><Key>{name}</Key><LastModified>{WRITTEN_ISO}</LastModified><Size>{size}</Size>\
                 <ETag>1</ETag></Contents>"
            )
        };
        rows.push_str(&row);
    }
    if is_azure {
        format!("<EnumerationResults><Blobs>{rows}</Blobs><NextMarker/></EnumerationResults>")
    } else {
        format!("<ListBucketResult>{rows}</ListBucketResult>")
    }
}

/// Azure's deletions come several in one request, each a part with a request of its own.
fn delete_all(state: &mut State, root: &str, request: &Request) -> Vec<u8> {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let mut parts = String::new();
    let deletions = body
        .lines()
        .filter_map(|line| line.strip_prefix("DELETE ")?.split_whitespace().next());
    for (id, target) in deletions.enumerate() {
        let target = decoded(target);
        let name = target.strip_prefix(root).unwrap_or(&target).trim_start_matches('/');
        let status = match state.objects.remove(name) {
            Some(_) => "202 Accepted",
            None => "404 Not Found",
        };
        let part = "--batch\r\nContent-Type: application/http\r\nContent-ID:";
        write!(parts, "{part} {id}\r\n\r\nHTTP/1.1 {status}\r\n\r\n\r\n").expect("a text takes it");
    }
    parts.push_str("--batch--\r\n");
    let kind = "Content-Type: multipart/mixed; boundary=batch\r\n";
    respond("202 Accepted", kind, parts.as_bytes())
}
