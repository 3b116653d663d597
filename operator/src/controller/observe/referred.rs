//! The content of Secrets and ConfigMaps that a spec refers to, as one digest. Read by name; only the digest is kept.
//! Must not decide what a change of it means.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::json;
use streamagg_crds::v1alpha1::StreamAggregation;

use super::Reader;
use crate::controller::build::references::{Reference, references};
use crate::controller::build::short_hash;
use crate::controller::observed::References;
use crate::error::Error;

/// Age of a digest that is worked out anew.
const REFERENCES_INTERVAL: Duration = Duration::from_secs(20);

/// Reads what `aggregation` refers to.
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
    // Any change of what is referred to, or of the token, is another question.
    let question = short_hash(&format!("{token} {wanted:?}"));
    let memory = &reader.context.memory;
    if reader.caches.is_some()
        && let Some(digest) = memory.references(namespace, name, &question, REFERENCES_INTERVAL)
    {
        return Ok(References::Digest(digest));
    }
    let mut contents = BTreeMap::new();
    for reference in wanted {
        let (object, content) = match &reference {
            Reference::Secret(name) => (format!("secret {name}"), secret(reader, name).await?),
            Reference::ConfigMap(name) => (format!("configmap {name}"), config_map(reader, name).await?),
        };
        match content {
            Some(content) => contents.insert(object, content),
            None => return Ok(References::Missing(object)),
        };
    }
    let digest = short_hash(&format!("{token} {}", json!(contents)));
    memory.keep_references(namespace, name, &question, digest.clone());
    Ok(References::Digest(digest))
}

type Content = BTreeMap<String, ByteString>;

async fn secret(reader: &Reader<'_>, name: &str) -> Result<Option<Content>, Error> {
    let got = reader.api::<Secret>().get_opt(name).await;
    let secret = got.map_err(|error| Error::api("get", format!("secret {name}"), error))?;
    Ok(secret.map(|secret| secret.data.unwrap_or_default()))
}

async fn config_map(reader: &Reader<'_>, name: &str) -> Result<Option<Content>, Error> {
    let got = reader.api::<ConfigMap>().get_opt(name).await;
    let map = got.map_err(|error| Error::api("get", format!("configmap {name}"), error))?;
    Ok(map.map(|map| {
        let texts = map.data.unwrap_or_default().into_iter();
        let texts = texts.map(|(key, text)| (key, ByteString(text.into_bytes())));
        map.binary_data.unwrap_or_default().into_iter().chain(texts).collect()
    }))
}
