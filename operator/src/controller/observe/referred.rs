//! The content of Secrets and ConfigMaps that a spec refers to, as one digest. Read by name; only the digest is kept.
//! Must not decide what a change of it means.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ObjectMeta;
use kube::core::PartialObjectMeta;
use serde_json::json;
use streamagg_crds::v1alpha1::StreamAggregation;

use super::Reader;
use crate::controller::build::references::{Reference, references};
use crate::controller::build::short_hash;
use crate::controller::observed::References;
use crate::error::Error;

/// How long what was seen of an object counts, for every aggregation that refers to it.
const REFERENCES_INTERVAL: Duration = Duration::from_secs(20);

type Content = BTreeMap<String, ByteString>;

/// Reads what `aggregation` refers to. While nothing changes only metadata is read, and of each object once for all
/// aggregations that share it.
///
/// # Errors
/// When the API server refuses or does not answer; an object that is not there is a fact.
pub async fn read(
    reader: &Reader<'_>,
    aggregation: Option<&StreamAggregation>,
    token: Option<&str>,
) -> Result<References, Error> {
    let wanted = aggregation
        .map(|aggregation| references(&aggregation.spec))
        .unwrap_or_default();
    if wanted.is_empty() {
        return Ok(References::None);
    }
    let Some(token) = token else {
        return Ok(References::WithoutToken);
    };
    let (namespace, name) = (reader.namespace, reader.name);
    let memory = &reader.context.memory;
    if reader.caches.is_some() {
        let mut versions = BTreeMap::new();
        for reference in &wanted {
            match version(reader, reference).await? {
                Some(version) => versions.insert(object(reference), version),
                None => return Ok(References::Missing(object(reference))),
            };
        }
        if let Some(digest) = memory.references(namespace, name, &question(token, &versions)) {
            return Ok(References::Digest(digest));
        }
    }
    let (mut contents, mut versions) = (BTreeMap::new(), BTreeMap::new());
    for reference in &wanted {
        let (object, Some((version, content))) = (object(reference), content(reader, reference).await?) else {
            return Ok(References::Missing(object(reference)));
        };
        contents.insert(object.clone(), content);
        versions.insert(object, version);
    }
    let digest = short_hash(&format!("{token} {}", json!(contents)));
    memory.keep_references(namespace, name, &question(token, &versions), digest.clone());
    Ok(References::Digest(digest))
}

/// Any change of what is referred to, or of the token, is another question.
fn question(token: &str, versions: &BTreeMap<String, String>) -> String {
    short_hash(&format!("{token} {versions:?}"))
}

fn object(reference: &Reference) -> String {
    match reference {
        Reference::Secret(name) => format!("secret {name}"),
        Reference::ConfigMap(name) => format!("configmap {name}"),
    }
}

/// The version of an object as it was seen of late, whoever looked; `None` when it is not there.
async fn version(reader: &Reader<'_>, reference: &Reference) -> Result<Option<String>, Error> {
    let object = object(reference);
    let memory = &reader.context.memory;
    if let Some(seen) = memory.version(reader.namespace, &object, REFERENCES_INTERVAL) {
        return Ok(seen);
    }
    let got = match reference {
        Reference::Secret(name) => reader.api::<Secret>().get_metadata_opt(name).await.map(metadata),
        Reference::ConfigMap(name) => reader.api::<ConfigMap>().get_metadata_opt(name).await.map(metadata),
    };
    let metadata = got.map_err(|error| Error::api("get", object.clone(), error))?;
    let version = metadata.as_ref().map(version_of);
    memory.keep_version(reader.namespace, &object, version.clone(), REFERENCES_INTERVAL);
    Ok(version)
}

fn metadata<K>(object: Option<PartialObjectMeta<K>>) -> Option<ObjectMeta> {
    object.map(|object| object.metadata)
}

fn version_of(metadata: &ObjectMeta) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{} {}", part(&metadata.uid), part(&metadata.resource_version))
}

/// Version and content as they are now.
async fn content(reader: &Reader<'_>, reference: &Reference) -> Result<Option<(String, Content)>, Error> {
    let object = object(reference);
    let failed = |error| Error::api("get", object.clone(), error);
    let read = match reference {
        Reference::Secret(name) => {
            let secret = reader.api::<Secret>().get_opt(name).await.map_err(failed)?;
            secret.map(|secret| (secret.metadata, secret.data.unwrap_or_default()))
        }
        Reference::ConfigMap(name) => {
            let map = reader.api::<ConfigMap>().get_opt(name).await.map_err(failed)?;
            map.map(|map| {
                let texts = map.data.unwrap_or_default().into_iter();
                let texts = texts.map(|(key, text)| (key, ByteString(text.into_bytes())));
                let all = map.binary_data.unwrap_or_default().into_iter().chain(texts);
                (map.metadata, all.collect())
            })
        }
    };
    let read = read.map(|(metadata, content)| (version_of(&metadata), content));
    let version = read.as_ref().map(|(version, _)| version.clone());
    let memory = &reader.context.memory;
    memory.keep_version(reader.namespace, &object, version, REFERENCES_INTERVAL);
    Ok(read)
}
