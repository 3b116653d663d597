//! A histogram that takes a value with how often it was seen: an epoch's half million latencies in a few hundred steps.
//! Must not hold: what is measured.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

#[derive(Clone, Default)]
struct Counts {
    /// By bucket, not yet cumulated; values above the last bound are only in `count`.
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
}

/// A histogram by task.
#[derive(Clone)]
pub(super) struct Weighted {
    name: String,
    help: String,
    desc: Desc,
    bounds: &'static [f64],
    tasks: Arc<Mutex<BTreeMap<u32, Counts>>>,
}

impl Weighted {
    pub fn new(name: &str, help: &str, bounds: &'static [f64]) -> prometheus::Result<Self> {
        let desc = Desc::new(
            name.to_owned(),
            help.to_owned(),
            vec!["task".to_owned()],
            std::collections::HashMap::new(),
        )?;
        Ok(Self {
            name: name.to_owned(),
            help: help.to_owned(),
            desc,
            bounds,
            tasks: Arc::default(),
        })
    }

    /// Takes values of a task, each with how often it was seen.
    pub fn observe(&self, task: u32, values: impl Iterator<Item = (f64, u64)>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = tasks.entry(task).or_default();
        counts.buckets.resize(self.bounds.len(), 0);
        for (value, times) in values {
            let bucket = self.bounds.partition_point(|bound| *bound < value);
            if let Some(bucket) = counts.buckets.get_mut(bucket) {
                *bucket += times;
            }
            counts.count += times;
            #[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are doubles")]
            let weight = times as f64;
            counts.sum += value * weight;
        }
    }

    fn metric(&self, task: u32, counts: &Counts) -> Metric {
        let mut cumulated = 0;
        let buckets = self.bounds.iter().zip(&counts.buckets).map(|(bound, count)| {
            cumulated += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulated);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(counts.count);
        histogram.set_sample_sum(counts.sum);
        let mut label = LabelPair::default();
        label.set_name("task".to_owned());
        label.set_value(task.to_string());
        let mut metric = Metric::from_label(vec![label]);
        metric.set_histogram(histogram);
        metric
    }
}

impl Collector for Weighted {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut family = MetricFamily::default();
        family.set_name(self.name.clone());
        family.set_help(self.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(tasks.iter().map(|(task, counts)| self.metric(*task, counts)).collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, Registry, TextEncoder};

    use super::*;

    #[test]
    fn weights_are_counted_in_the_bucket_of_their_value() {
        let weighted = Weighted::new("w_seconds", "Help.", &[0.1, 1.0]).unwrap();
        let registry = Registry::new();
        registry.register(Box::new(weighted.clone())).unwrap();
        weighted.observe(3, [(0.1, 2), (0.5, 3), (7.0, 1)].into_iter());
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "# TYPE w_seconds histogram",
            r#"w_seconds_bucket{task="3",le="0.1"} 2"#,
            r#"w_seconds_bucket{task="3",le="1"} 5"#,
            r#"w_seconds_bucket{task="3",le="+Inf"} 6"#,
            r#"w_seconds_sum{task="3"} 8.7"#,
            r#"w_seconds_count{task="3"} 6"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
