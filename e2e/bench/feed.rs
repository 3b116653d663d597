//! Generated events into a topic, spread over its partitions by key or in turn. Must not measure.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use streamagg_e2e::broker::Loader;
use streamagg_e2e::traffic::{Message, partition_of};
use streamagg_e2e::wait::pause;

use super::job::{PARTITIONS, binary};

/// Text of a string member; the generator writes no escapes.
pub fn member<'a>(line: &'a str, name: &str) -> &'a str {
    let at = line.find(name).map_or(line.len(), |at| at + name.len());
    line[at..].split('"').next().unwrap_or_default()
}

/// How events are spread over partitions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// All of a key in one.
    ByKey,
    /// One to each in turn, whatever the key.
    InTurn,
}

/// Hands each line of the generator to `take` with its partition and key; answers how many there were.
pub fn generate(
    options: &str,
    spread: Spread,
    mut take: impl FnMut(i32, &str, String) -> Result<(), String>,
) -> Result<u64, String> {
    let mut generator = Command::new(binary("streamagg-processor")?)
        .args(["generate", options])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let lines = BufReader::new(generator.stdout.take().ok_or("the generator has no output")?).lines();
    let mut count: u64 = 0;
    for line in lines {
        let line = line.map_err(|error| error.to_string())?;
        let user = member(&line, "\"user\":\"").to_owned();
        let partition = match spread {
            Spread::ByKey => partition_of(&user, PARTITIONS),
            Spread::InTurn => (count % PARTITIONS as u64) as i32,
        };
        take(partition, &user, line)?;
        count += 1;
    }
    let status = generator.wait().map_err(|error| error.to_string())?;
    if status.success() {
        Ok(count)
    } else {
        Err(format!("the generator ended with {status} on {options}"))
    }
}

/// Produces the generator's lines, `rate` a second (0: as fast as they come), and hands each to `sent` before it goes.
pub fn produce(
    loader: &mut Loader,
    (options, spread): (&str, Spread),
    rate: u64,
    mut sent: impl FnMut(&str, i32) -> Result<(), String>,
) -> Result<u64, String> {
    let (started, mut count) = (Instant::now(), 0);
    let produced = generate(options, spread, |partition, user, line| {
        while rate > 0 && count > rate * started.elapsed().as_millis() as u64 / 1000 {
            pause(Duration::from_millis(1));
        }
        count += 1;
        sent(&line, partition)?;
        loader.send(&Message {
            partition,
            key: user.to_owned(),
            value: line.into_bytes(),
        })
    })?;
    loader.flush()?;
    Ok(produced)
}
