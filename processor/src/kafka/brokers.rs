//! Names its brokers to a client once more. The only module with `unsafe`: the binding has no function for it.
//! Must not hold: when a client is in doubt.
//!
//! A broker that the controllers have not let in yet, because it was started anew or has stood still, answers that the
//! cluster has no brokers. librdkafka (since 2.10, its issue 5301) then forgets all it knew, those it was configured with,
//! too: it asks nobody any more, and neither does anything time out in it.

use std::cell::Cell;
use std::ffi::CString;
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};

use super::settings::Settings;

/// A call that has no answer for so long may be to a client that forgot its brokers; doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(2);
/// Longest wait between two reminders.
const LONGEST: Duration = Duration::from_secs(60);
/// Reminders of one doubt, in about nine minutes: the client keeps a copy of the names of each.
const MOST: u32 = 12;

/// When a client is reminded of its brokers, while an answer is waited for.
pub struct Reminder {
    due: Cell<Instant>,
    wait: Cell<Duration>,
    left: Cell<u32>,
}

impl Default for Reminder {
    /// Nothing is waited for.
    fn default() -> Self {
        Self {
            due: Cell::new(Instant::now()),
            wait: Cell::new(FIRST),
            left: Cell::new(0),
        }
    }
}

impl Reminder {
    /// An answer is waited for from now on.
    pub fn begin(&self) {
        self.wait.set(FIRST);
        self.due.set(Instant::now() + FIRST);
        self.left.set(MOST);
    }

    /// The client met with trouble: it is in doubt from now on, if it is not already.
    pub fn doubt(&self) {
        if self.left.get() == 0 {
            self.begin();
        }
    }

    /// The answer is not there yet: reminds the client, if it is time to.
    pub fn still_waiting<C: ClientContext>(&self, client: &Client<C>, settings: &Settings) {
        let now = Instant::now();
        if self.left.get() == 0 || now < self.due.get() {
            return;
        }
        name_again(client, settings.servers());
        self.left.set(self.left.get() - 1);
        self.wait.set((2 * self.wait.get()).min(LONGEST));
        self.due.set(now + self.wait.get());
    }
}

/// Names the bootstrap servers to a client. One that knows its brokers asks these, too, and lets go of them with the answer.
#[expect(unsafe_code, reason = "rust-rdkafka has no binding for rd_kafka_brokers_add")]
pub fn name_again<C: ClientContext>(client: &Client<C>, servers: &str) {
    let Ok(servers) = CString::new(servers) else {
        return;
    };
    // SAFETY: the handle is alive, for `client` owns it and is borrowed; the library copies the string, which ends with 0,
    // and takes its own locks: any thread may call this at any time.
    let added = unsafe { rdkafka::bindings::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
    tracing::debug!(added, "a client was told its brokers again");
}

#[cfg(test)]
mod tests;
