//! Where a pod's admin server is. Must not hold requests to it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use streamagg_crds::admin::ADMIN_PORT;

use crate::controller::Resolver;

/// By the pod's own address; a name would lag behind a restart.
pub fn by_pod_address() -> Resolver {
    Arc::new(|pod: &Pod| {
        let address = pod.status.as_ref()?.pod_ip.clone()?;
        let host = if address.contains(':') {
            format!("[{address}]")
        } else {
            address
        };
        Some(format!("http://{host}:{ADMIN_PORT}"))
    })
}
