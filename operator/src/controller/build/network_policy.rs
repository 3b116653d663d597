//! The NetworkPolicy. Must not hold reading of live objects.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use crate::controller::validate::ValidatedAggregation;
use crate::{labels, names};

/// Pods are reached at the ports that their containers declare and nowhere else. What they reach is not restricted:
/// the addresses of brokers and stores are not known here.
pub fn network_policy(aggregation: &ValidatedAggregation, template: &PodTemplateSpec) -> NetworkPolicy {
    let containers = template.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let ports = ports.map(|port| NetworkPolicyPort {
        port: Some(IntOrString::Int(port.container_port)),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        end_port: None,
    });
    NetworkPolicy {
        metadata: metadata(aggregation, names::network_policy(&aggregation.name), "processor"),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(labels::selector(&aggregation.name)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                from: None,
                ports: Some(ports.collect()),
            }]),
            egress: None,
        }),
    }
}
