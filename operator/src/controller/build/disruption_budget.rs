//! The PodDisruptionBudget. Must not hold reading of live objects.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use crate::controller::validate::ValidatedAggregation;
use crate::{labels, names};

/// A node drain takes one pod at a time; the tasks of the others go on.
pub fn disruption_budget(aggregation: &ValidatedAggregation) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(aggregation, names::disruption_budget(&aggregation.name), "processor"),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(labels::selector(&aggregation.name)),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
