//! Which task does what: the stages of a job and the numbers of their tasks. Pure.
//! Must not hold: what a task does with its records.

pub use streamagg_crds::admin::Stage;
use streamagg_crds::v1alpha1::Delivery;

/// A task's place in its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// What it is.
    pub stage: Stage,
    /// Partition of its input.
    pub partition: u32,
}

impl Role {
    /// The place of a task, by its number. With two stages, window tasks come first: their number never changes, and so
    /// a source partition that is added later renumbers nobody.
    pub fn of(task: u32, shuffle_partitions: Option<u32>) -> Self {
        match shuffle_partitions {
            None => Self {
                stage: Stage::Whole,
                partition: task,
            },
            Some(count) => match task.checked_sub(count) {
                None => Self {
                    stage: Stage::Window,
                    partition: task,
                },
                Some(partition) => Self {
                    stage: Stage::Combine,
                    partition,
                },
            },
        }
    }

    /// What readers of the task's records can rely on, in a job whose results are delivered so: what is sent again between the
    /// stages would be counted twice.
    pub fn delivery(self, of_results: Delivery) -> Delivery {
        match self.stage {
            Stage::Combine => Delivery::ExactlyOnce,
            Stage::Whole | Stage::Window => of_results,
        }
    }

    /// Whether the state of the task is the truth in such a job, and its committed position only follows.
    pub fn state_is_truth(self, of_results: Delivery) -> bool {
        self.delivery(of_results) == Delivery::AtLeastOnce
    }
}

/// Number of tasks of a job.
pub fn task_count(source_partitions: u32, shuffle_partitions: Option<u32>) -> u32 {
    source_partitions.saturating_add(shuffle_partitions.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_has_one_place_and_every_partition_one_task() {
        for (sources, shuffle) in [(3, None), (3, Some(1)), (1, Some(4))] {
            let truth = |task| Role::of(task, shuffle).state_is_truth(Delivery::AtLeastOnce);
            let first_stage = shuffle.map_or(0, |_| sources);
            let count = (0..task_count(sources, shuffle)).filter(|task| !truth(*task)).count();
            assert_eq!(count, first_stage as usize, "what is between the stages counts once");
            let roles: Vec<Role> = (0..task_count(sources, shuffle))
                .map(|task| Role::of(task, shuffle))
                .collect();
            let partitions = |stage| {
                let ours = roles.iter().filter(|role| role.stage == stage);
                ours.map(|role| role.partition).collect::<Vec<_>>()
            };
            let of_source: Vec<u32> = (0..sources).collect();
            match shuffle {
                None => assert_eq!(partitions(Stage::Whole), of_source),
                Some(count) => {
                    assert_eq!(partitions(Stage::Window), (0..count).collect::<Vec<_>>());
                    assert_eq!(partitions(Stage::Combine), of_source);
                }
            }
        }
    }
}
