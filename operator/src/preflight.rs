//! Checks before the first watch that the custom resource is installed and the rights are there, so that a
//! wrong installation says so in one line instead of retrying for ever. Must not hold: repairs.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use thiserror::Error;

/// Everything the operator does, as `(group, resource, subresource, verbs)`; the chart's Role lists the same.
pub const RIGHTS: &[(&str, &str, &str, &[&str])] = &[
    (
        "streamagg.io",
        "streamaggregations",
        "",
        &["get", "list", "watch", "patch"],
    ),
    ("streamagg.io", "streamaggregations", "status", &["patch"]),
    (
        "streamagg.io",
        "streamcheckpoints",
        "",
        &["get", "list", "watch", "patch"],
    ),
    ("streamagg.io", "streamcheckpoints", "status", &["patch"]),
    (
        "apps",
        "statefulsets",
        "",
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    ("", "pods", "", &["list", "watch", "delete"]),
    ("", "services", "", &["get", "list", "watch", "create", "patch"]),
    ("", "serviceaccounts", "", &["get", "list", "watch", "create", "patch"]),
    (
        "",
        "configmaps",
        "",
        &["get", "list", "watch", "create", "update", "patch", "delete"],
    ),
    ("", "persistentvolumeclaims", "", &["list", "watch", "patch", "delete"]),
    ("", "secrets", "", &["get", "create"]),
    (
        "policy",
        "poddisruptionbudgets",
        "",
        &["get", "list", "watch", "create", "patch"],
    ),
    (
        "networking.k8s.io",
        "networkpolicies",
        "",
        &["get", "list", "watch", "create", "patch"],
    ),
    ("events.k8s.io", "events", "", &["create", "patch"]),
];

/// What the API server has to serve of our group.
const KINDS: [&str; 2] = ["streamaggregations", "streamcheckpoints"];

/// What is missing.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server did not answer the question.
    #[error("cannot ask the API server for our rights: {0}")]
    Api(#[from] Box<kube::Error>),
    /// The resource type is not installed.
    #[error(
        "the API server does not serve {0}.streamagg.io/v1alpha1; install the CRDs of the chart (`kubectl apply --server-side -k crds/generated`)"
    )]
    NoCustomResource(&'static str),
    /// RBAC refuses something.
    #[error(
        "missing rights in {scope}: {rights}; grant them to the operator's ServiceAccount (the chart's Role lists all)"
    )]
    Forbidden {
        /// Namespace or the whole cluster.
        scope: String,
        /// `verb resource` pairs.
        rights: String,
    },
}

/// Checks the custom resource, then every right.
///
/// # Errors
/// See [`enum@Error`]; all missing rights are named at once.
pub async fn check(client: &Client, namespace: Option<&str>) -> Result<(), Error> {
    let served = client.list_api_group_resources("streamagg.io/v1alpha1").await;
    let served = match served {
        Ok(list) => list.resources,
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(Box::new(error).into()),
    };
    for kind in KINDS {
        if !served.iter().any(|resource| resource.name == kind) {
            return Err(Error::NoCustomResource(kind));
        }
    }
    let mut missing = Vec::new();
    for (group, resource, subresource, verbs) in RIGHTS {
        for verb in *verbs {
            if !allowed(client, namespace, (group, resource, subresource), verb).await? {
                let resource = if subresource.is_empty() {
                    (*resource).to_owned()
                } else {
                    format!("{resource}/{subresource}")
                };
                missing.push(format!(
                    "{verb} {resource}{}{group}",
                    if group.is_empty() { "" } else { "." }
                ));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let scope = namespace.map_or_else(|| "all namespaces".to_owned(), |name| format!("namespace {name}"));
    Err(Error::Forbidden {
        scope,
        rights: missing.join(", "),
    })
}

async fn allowed(
    client: &Client,
    namespace: Option<&str>,
    (group, resource, subresource): (&str, &str, &str),
    verb: &str,
) -> Result<bool, Error> {
    let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let attributes = ResourceAttributes {
        namespace: namespace.map(ToOwned::to_owned),
        group: optional(group),
        resource: optional(resource),
        subresource: optional(subresource),
        verb: optional(verb),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..Default::default()
        },
        ..Default::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await.map_err(Box::new)?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
