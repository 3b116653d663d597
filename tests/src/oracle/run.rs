//! A log from its first entry to its last, under one spec or several one after the other.
//! Must not import engine code, and must not be clever.

use super::shedding::Shedding;
use super::{Entry, Expected, NO_WATERMARK, Spec, accept, late, result, windows};

/// Everything a task must put out for this log, in order.
pub fn outputs(spec: &Spec, log: &[Entry]) -> Vec<Expected> {
    outputs_across(&[(0, spec.clone())], log)
}

/// The same where each spec holds from an entry on, the first from the beginning; they differ in the windows' lateness
/// only. What was closed once is never opened again.
pub fn outputs_across(specs: &[(usize, Spec)], log: &[Entry]) -> Vec<Expected> {
    let (mut out, mut watermark, mut clock) = (Vec::new(), NO_WATERMARK, None);
    let (mut state, mut shedding) = (windows::State::default(), Shedding::default());
    let mut spec = specs[0].1.clone();
    for (entry, item) in log.iter().enumerate() {
        for (_, next) in specs[1..].iter().filter(|(from, _)| *from == entry) {
            for (window, next) in spec.windows.iter_mut().zip(&next.windows) {
                window.lateness_ms = next.lateness_ms;
            }
            close(&mut spec, watermark);
        }
        let advance = match item {
            Entry::IdleAdvance(to) => *to,
            Entry::EndOfInput => i64::MAX,
            Entry::Clock(now) => {
                clock = Some(*now);
                continue;
            }
            Entry::Shed(_) => continue,
            Entry::Share(halvings) => {
                shedding.decided(*halvings);
                continue;
            }
            Entry::Tick(now) => {
                let mut emit = |firing: &windows::Firing| out.push(result(&spec, entry, firing, &shedding));
                state.tick(&spec, *now, watermark, &mut emit);
                continue;
            }
            Entry::Record(_) | Entry::Stamped(..) => match accept(&spec, (entry, item), watermark, clock) {
                Err(reason) => {
                    out.push(Expected::Dead {
                        entry,
                        reason,
                        watermark_ms: watermark,
                    });
                    continue;
                }
                Ok(events) => {
                    let allows = events.iter().map(|event| event.allows).max().unwrap_or(NO_WATERMARK);
                    let late = late(&spec, &events);
                    for event in events.into_iter().filter(|event| !event.is_late()) {
                        if !event.joined.is_empty() {
                            shedding.saw(&spec, event.time);
                        }
                        let mut emit = |firing: &windows::Firing| out.push(result(&spec, entry, firing, &shedding));
                        state.add(&spec, event, watermark, &mut emit);
                    }
                    out.extend(late.map(|(windows, time)| Expected::Late {
                        entry,
                        windows,
                        watermark_ms: watermark,
                        lateness_ms: watermark - time,
                    }));
                    allows
                }
            },
        };
        if advance > watermark {
            close(&mut spec, advance);
            let mut emit = |firing: &windows::Firing| out.push(result(&spec, entry, firing, &shedding));
            state.advance(&spec, watermark, advance, &mut emit);
            watermark = advance;
        }
    }
    out
}

/// The watermark is here: windows that have ended longer ago than they allow are closed.
fn close(spec: &mut Spec, watermark: i64) {
    for window in &mut spec.windows {
        let closed = match watermark {
            // Behind the end of the input everything is.
            i64::MAX => i64::MAX,
            _ => watermark.saturating_sub(window.lateness_ms),
        };
        window.closed_ms = window.closed_ms.max(closed);
    }
}
