//! The engine as a library: a pipeline declared in Rust, fed with records, handing its results to closures. Declared
//! steps are those of the manifest and are checked by the same rules, so a pipeline gives the same bytes either way.
//!
//! Must not hold: semantics of its own, a clock, I/O.
//!
//! ```
//! use std::time::Duration;
//! use streamagg_processor::embed::{Aggregate, Record, Stream, TimeUnit, Watermark, Window};
//!
//! let mut lines = Vec::new();
//! let mut run = Stream::new()
//!     .event_time("/ts", TimeUnit::Milliseconds)
//!     .watermark(Watermark::bounded_out_of_orderness(Duration::from_secs(5)))
//!     .condition("event.status < 500")
//!     .key_by("model", "/model")
//!     .window("minute", Window::tumbling(Duration::from_secs(60)))
//!     .aggregate("requests", Aggregate::count())
//!     .aggregate("tokens", Aggregate::sum("/tokens"))
//!     .sink(|result| {
//!         lines.push(String::from_utf8_lossy(result.value).into_owned());
//!         Ok(())
//!     })
//!     .build()?
//!     .start(0);
//! run.push(&[
//!     Record::new(0, br#"{"ts": 1700000045000, "model": "m", "tokens": 12, "status": 200}"#),
//!     Record::new(1, br#"{"ts": 1700000050000, "model": "m", "tokens": 30, "status": 200}"#),
//! ])?;
//! run.finish()?;
//! drop(run);
//! assert_eq!(lines.len(), 1);
//! assert!(lines[0].contains(r#""values":{"requests":2,"tokens":42}"#));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod aggregates;
mod builder;
mod declared;
mod error;
mod keys;
mod operators;
mod run;
mod sinks;
mod watermarks;
mod windows;

pub use streamagg_crds::v1alpha1::{CalendarUnit, Panes, RecordProperty, TimeUnit};

pub use self::aggregates::Aggregate;
pub use self::builder::{Pipeline, Stream};
pub use self::error::{BuildError, BuildErrors, Misuse, RunError, SinkError, Step};
pub use self::keys::Key;
pub use self::operators::{Elements, Filter, FlatMap, Map, Operators, Unchanged};
pub use self::run::Run;
pub use self::sinks::{DeadLetter, LateEvent, WindowResult};
pub use self::watermarks::Watermark;
pub use self::windows::Window;
pub use crate::pipeline::output::{Envelope, Record};

#[cfg(test)]
mod tests;
