//! The headless Service and the pods' ServiceAccount. Must not hold reading of live objects.

use k8s_openapi::api::core::v1::{Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use streamagg_crds::admin::ADMIN_PORT;

use super::metadata;
use crate::controller::validate::ValidatedAggregation;
use crate::{labels, names};

/// Gives pods stable DNS names, also before they are ready.
pub fn service(aggregation: &ValidatedAggregation) -> Service {
    Service {
        metadata: metadata(aggregation, names::service(&aggregation.name), "processor"),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(labels::selector(&aggregation.name)),
            ports: Some(vec![ServicePort {
                name: Some("admin".to_owned()),
                port: i32::from(ADMIN_PORT),
                target_port: Some(IntOrString::String("admin".to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Pods need no Kubernetes client, so no token is mounted.
pub fn service_account(aggregation: &ValidatedAggregation) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(aggregation, names::service_account(&aggregation.name), "processor"),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
