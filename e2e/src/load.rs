//! Load from a thread of its own, until told to stop. Must not read outputs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::broker::Loader;
use crate::traffic::Traffic;
use crate::wait::pause;

/// How often a slice of the rate is sent.
const SLICE: Duration = Duration::from_millis(50);

/// A thread that produces.
pub struct Load {
    stop: Arc<AtomicBool>,
    produced: Arc<AtomicU64>,
    thread: JoinHandle<Result<(Loader, Traffic), String>>,
    clock_ms: Arc<Mutex<i64>>,
}

impl Load {
    /// Starts to produce `rate` records a second.
    pub fn start(mut loader: Loader, mut traffic: Traffic, rate: u64) -> Self {
        let (stop, produced) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(loader.produced)),
        );
        let clock_ms = Arc::new(Mutex::new(traffic.clock_ms()));
        let (stopped, count, clock) = (Arc::clone(&stop), Arc::clone(&produced), Arc::clone(&clock_ms));
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            let before = loader.produced;
            while !stopped.load(Ordering::Relaxed) {
                let due = before + rate * u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX) / 1000;
                while loader.produced < due {
                    loader.send(&traffic.next_message())?;
                }
                count.store(loader.produced, Ordering::Relaxed);
                if let Ok(mut clock) = clock.lock() {
                    *clock = traffic.clock_ms();
                }
                pause(SLICE);
            }
            // What is not in the topic is not expected of anybody.
            loader.flush().ok();
            Ok((loader, traffic))
        });
        Self {
            stop,
            produced,
            thread,
            clock_ms,
        }
    }

    /// Records produced so far.
    pub fn produced(&self) -> u64 {
        self.produced.load(Ordering::Relaxed)
    }

    /// Highest event time sent so far, ms.
    pub fn clock_ms(&self) -> i64 {
        self.clock_ms.lock().map(|clock| *clock).unwrap_or_default()
    }

    /// Stops; answers what is needed to go on.
    ///
    /// # Errors
    /// What went wrong while producing.
    pub fn stop(self) -> Result<(Loader, Traffic), String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the load thread panicked".to_owned())?
    }
}
