//! The engine inside a program: tokens and latency by model over JSON lines from standard input, results to standard
//! output, what is wrong to standard error.
//!
//! ```text
//! streamagg-processor generate events=20000,disorder=2000,late=0.001,bad=0.001 |
//!     cargo run --release -p streamagg-processor --no-default-features --example embedded
//! ```
//! `docs/embedding.md` explains it step by step.

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Duration;

use streamagg_processor::embed::{Aggregate, Key, Record, Stream, TimeUnit, Watermark, Window};

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    let mut run = Stream::new()
        // Closures see the bytes of a record before the engine does.
        .filter(|record| !record.value.starts_with(b"#"))
        .event_time("/ts", TimeUnit::Rfc3339)
        .watermark(Watermark::bounded_out_of_orderness(Duration::from_secs(5)))
        .derive("tokens", "event.usage.prompt + event.usage.completion")
        .condition("event.status != 429")
        .key_by("model", Key::new("/model").or_text("unknown"))
        .window(
            "minute",
            Window::tumbling(Duration::from_secs(60)).allowed_lateness(Duration::from_secs(30)),
        )
        .aggregate("requests", Aggregate::count())
        .aggregate("errors", Aggregate::count().filter("event.status >= 400"))
        .aggregate("tokens", Aggregate::sum("tokens"))
        .aggregate("latency", Aggregate::percentile("/latency_ms", &[0.5, 0.99]))
        .sink(|result| {
            out.write_all(result.value)?;
            out.write_all(b"\n")?;
            Ok(())
        })
        .late_events(|late| {
            eprintln!(
                "line {}: {} ms late for {}",
                late.offset + 1,
                late.lateness_ms,
                late.windows
            );
            Ok(())
        })
        .dead_letters(|dead| {
            eprintln!("line {}: {:?}: {}", dead.offset + 1, dead.reason, dead.detail);
            Ok(())
        })
        .build()?
        .start(0);
    let mut lines = std::io::stdin().lock();
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        run.push(&[Record::new(run.next_offset(), line.trim_ascii_end())])?;
        line.clear();
    }
    run.finish()?;
    let stats = run.stats();
    eprintln!(
        "{} events, {} results, {} late",
        stats.records, stats.results, stats.late
    );
    Ok(())
}
