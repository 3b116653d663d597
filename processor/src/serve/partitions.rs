//! Looks at the source while it is read: partitions may be added, a topic may become compacted, and nobody says so.
//! Must not hold: what follows for a task (`state::recovery::startup`).

use std::sync::Arc;
use std::time::Duration;

use super::pod::Pod;
use super::supervise::learn;
use crate::pipeline::executor::count_source_partitions;
use crate::pipeline::stage::task_count;

/// How often, unless a test wants it sooner.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Looks until the pod stops. Where keys stay in their partitions (`byKey`) others have moved them: every task stops, as
/// start-up says, for results would miss the events that went elsewhere. Else there are more tasks from now on, which run
/// here if all do (`assign_all`); the others start up again, so that the first stage says how many partitions windows wait
/// for.
pub(super) fn watch(pod: &Arc<Pod>, assign_all: bool) {
    let mut last = None;
    while !pod.is_stopping() {
        std::thread::sleep(pod.context().look_every);
        let Some(tasks) = pod.task_count() else {
            continue;
        };
        let context = pod.context();
        let shuffle_partitions = context.job.source.shuffle_partitions;
        match count_source_partitions(context) {
            // Start-up says what follows.
            Ok(None) => pod.outdate(),
            Ok(Some(count)) if task_count(count, shuffle_partitions) == tasks => last = None,
            Ok(Some(count)) => {
                let is_news = last.replace(count) != Some(count);
                if shuffle_partitions.is_some() && task_count(count, shuffle_partitions) > tasks {
                    if let Err(stop) = learn(pod, assign_all) {
                        if is_news {
                            tracing::error!(reason = stop.reason.as_str(), "{}; looking again", stop.message);
                        }
                        continue;
                    }
                    tracing::info!(count, tasks = pod.task_count(), "partitions were added to the source");
                } else if is_news {
                    tracing::error!(count, tasks, "the source has another number of partitions than it had");
                }
                // Each time: a task may have seen the topic before and run only now.
                pod.outdate();
            }
            // Whoever reads says what is wrong with the topic.
            Err(stop) => tracing::debug!(reason = stop.reason.as_str(), "{}", stop.message),
        }
    }
}
