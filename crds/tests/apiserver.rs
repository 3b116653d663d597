//! A real kube-apiserver takes the definition (so its size and the cost of its rules are within bounds) and judges every
//! case as the Rust side does: the same verdict, at the same path.
//!
//! Needs `KUBECONFIG_API`, the kubeconfig of a server of its own; `tests/apiserver.sh` starts one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

mod cases;

use std::time::Duration;

use cases::{Case, REFUSED_OF_FUTURE, base, cases, future, not_yet_cases};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams, Request, ValidationDirective};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};
use streamagg_crds::crd::{checkpoint_crd, crd};
use streamagg_crds::rules::rules;
use streamagg_crds::structure::spec_schema;
use streamagg_crds::v1alpha1::{StreamAggregation, StreamCheckpoint};

/// How long the server may take to serve a new definition.
const ESTABLISHED_SECONDS_MAX: u32 = 60;

/// What the server finds wrong: path and message of each cause.
type Causes = Vec<(String, String)>;

async fn client() -> Client {
    let path = std::env::var("KUBECONFIG_API").expect("KUBECONFIG_API is not set; run crds/tests/apiserver.sh");
    let kubeconfig = Kubeconfig::read_from(&path).expect("KUBECONFIG_API names a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

/// Applies the definitions and waits until objects can be created.
async fn install(client: &Client) {
    for definition in [crd().unwrap(), checkpoint_crd().unwrap()] {
        install_one(client, &definition).await;
    }
}

async fn install_one(client: &Client, definition: &CustomResourceDefinition) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = definition.name_any();
    let apply = PatchParams::apply("crds-test").force();
    definitions
        .patch(&name, &apply, &Patch::Apply(definition))
        .await
        .unwrap();
    let mut seen = None;
    for _ in 0..ESTABLISHED_SECONDS_MAX * 10 {
        seen = definitions.get_status(&name).await.unwrap().status;
        let conditions = seen.iter().flat_map(|status| status.conditions.iter().flatten());
        if conditions
            .into_iter()
            .any(|condition| condition.type_ == "Established" && condition.status == "True")
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the definition is not established: {seen:#?}");
}

/// Creates (without keeping) and says what is wrong.
async fn create(client: &Client, manifest: &Value) -> Causes {
    let url = "/apis/streamagg.io/v1alpha1/namespaces/default/streamaggregations";
    let mut request = Request::new(url)
        .create(&PostParams::default(), serde_json::to_vec(manifest).unwrap())
        .unwrap();
    // As kubectl does it: a field that the schema has not is an error, not dropped.
    *request.uri_mut() = format!("{url}?dryRun=All&fieldValidation=Strict").parse().unwrap();
    causes(client.request::<Value>(request).await)
}

fn causes<T>(answer: Result<T, kube::Error>) -> Causes {
    match answer {
        Ok(_) => Vec::new(),
        Err(kube::Error::Api(status)) => {
            let details = status
                .details
                .as_ref()
                .map(|details| details.causes.clone())
                .unwrap_or_default();
            if details.is_empty() {
                // Unknown fields come as one text: `strict decoding error: unknown field "spec.a"`.
                let unknown = status.message.split("unknown field \"").skip(1);
                let paths = unknown
                    .filter_map(|rest| rest.split_once('"'))
                    .map(|(path, _)| path.to_owned());
                let found: Causes = paths.map(|path| (path, "unknown field".to_owned())).collect();
                assert!(!found.is_empty(), "{status:?}");
                return found;
            }
            details.into_iter().map(|cause| (cause.field, cause.message)).collect()
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn assert_same_verdict(case: &Case, found: &Causes) {
    if case.rust_only {
        assert!(
            found.is_empty(),
            "{}: said to be seen by Rust only, but {found:?}",
            case.name
        );
        return;
    }
    for (path, message) in &case.errors {
        // A rule's message is the same on both sides; what the schema says is in the server's own words.
        let ours = rules().iter().any(|rule| rule.message.contains(message));
        let about_metadata = path.starts_with("metadata.");
        let seen = found
            .iter()
            .any(|(field, text)| (field == path || about_metadata) && (!ours || text.contains(message)));
        assert!(
            seen,
            "{}: expected {path}: {message}, the server says {found:#?}",
            case.name
        );
    }
    assert_eq!(found.is_empty(), case.errors.is_empty(), "{}: {found:#?}", case.name);
}

#[tokio::test]
async fn the_server_takes_the_definition_and_judges_every_manifest_as_rust_does() {
    let client = client().await;
    install(&client).await;
    let mut judged = 0;
    for case in cases("accept")
        .into_iter()
        .chain(cases("reject"))
        .chain(not_yet_cases(spec_schema()))
    {
        assert_same_verdict(&case, &create(&client, &case.manifest).await);
        judged += 1;
    }
    assert!(judged > 100, "{judged} cases");
    let mut paths: Vec<String> = create(&client, &future())
        .await
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    paths.sort();
    assert_eq!(paths, REFUSED_OF_FUTURE);
    refuses_changes_as_rust_does(&client).await;
    judges_checkpoints(&client).await;
}

/// Checkpoints have no rules that Rust knows too: name, no other field, and no change.
async fn judges_checkpoints(client: &Client) {
    let resource = ApiResource::erase::<StreamCheckpoint>(&());
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let object = |name: &str, spec: Value| -> DynamicObject {
        let object = json!({
            "apiVersion": "streamagg.io/v1alpha1", "kind": "StreamCheckpoint", "metadata": {"name": name}, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    };
    let strict = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("crds-test").force()
    };
    for (spec, path) in [
        (json!({}), "spec.aggregation"),
        (json!({"aggregation": "Base"}), "spec.aggregation"),
        (json!({"aggregation": "a".repeat(53)}), "spec.aggregation"),
    ] {
        let refused = causes(
            objects
                .create(&PostParams::default(), &object("refused", spec.clone()))
                .await,
        );
        assert!(refused.iter().any(|(field, _)| field == path), "{spec}: {refused:?}");
    }
    let kept = object("kept", json!({"aggregation": "base"}));
    let stored = objects.patch("kept", &strict, &Patch::Apply(&kept)).await.unwrap();
    assert_eq!(stored.data["status"]["observedGeneration"], -1);
    let other = object("kept", json!({"aggregation": "other"}));
    let refused = causes(objects.patch("kept", &strict, &Patch::Apply(&other)).await);
    assert!(
        refused
            .iter()
            .any(|(field, message)| field == "spec.aggregation" && message.contains("create another")),
        "{refused:?}"
    );
    let status = json!({"status": {"phase": "Complete"}});
    objects
        .patch_status("kept", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    for (selector, count) in [
        ("spec.aggregation=base,status.phase=Complete", 1),
        ("spec.aggregation=other", 0),
    ] {
        let found = objects.list(&ListParams::default().fields(selector)).await.unwrap();
        assert_eq!(found.items.len(), count, "{selector}");
    }
}

async fn refuses_changes_as_rust_does(client: &Client) {
    let resource = ApiResource::erase::<StreamAggregation>(&());
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let apply = PatchParams::apply("crds-test").force();
    objects.patch("base", &apply, &Patch::Apply(base())).await.unwrap();
    for case in cases("change") {
        let mut object = objects.get("base").await.unwrap();
        object.data["spec"] = case.manifest["spec"].clone();
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let answer = objects.replace("base", &params, &object).await;
        assert_same_verdict(&case, &causes(answer));
    }
    subresources_work(&objects).await;
}

/// Status, scale and the fields that objects can be selected by.
async fn subresources_work(objects: &Api<DynamicObject>) {
    let strict = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::default()
    };
    let status = json!({"status": {"state": "Running", "replicas": 2, "selector": "a=b"}});
    let object = objects
        .patch_status("base", &strict, &Patch::Merge(status))
        .await
        .unwrap();
    assert_eq!(object.data["status"]["observedGeneration"], -1);
    let to_three = json!({"spec": {"replicas": 3}});
    let scale = objects
        .patch_scale("base", &strict, &Patch::Merge(to_three))
        .await
        .unwrap();
    let status = scale.status.unwrap();
    assert_eq!((status.replicas, status.selector.as_deref()), (2, Some("a=b")));
    assert_eq!(objects.get("base").await.unwrap().data["spec"]["replicas"], 3);
    for (selector, count) in [
        ("status.state=Running,spec.suspend=false", 1),
        ("status.state=Stalled", 0),
    ] {
        let found = objects.list(&ListParams::default().fields(selector)).await.unwrap();
        assert_eq!(found.items.len(), count, "{selector}");
    }
}
