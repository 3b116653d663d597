//! Opens buckets: S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.
//! Must not hold: what is kept there.

use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientOptions, ObjectStore, Result};
use streamagg_crds::v1alpha1::{AzureStore, GcsStore, S3Store};

use super::Credentials;

/// Region where the manifest names none.
const REGION_DEFAULT: &str = "us-east-1";

/// A bucket that was opened; nothing was asked of it yet.
pub(super) struct Opened {
    pub objects: Arc<dyn ObjectStore>,
    /// Its name, for people.
    pub place: String,
}

fn is_plain(endpoint: &str) -> bool {
    endpoint.starts_with("http://")
}

pub(super) fn s3(s3: &S3Store, credentials: &Credentials) -> Result<Opened> {
    // From the environment: a pod's identity is told there.
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&s3.bucket)
        .with_region(s3.region.as_deref().unwrap_or(REGION_DEFAULT));
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(is_plain(endpoint));
    }
    if let (Some(id), Some(secret)) = (&credentials.access_key_id, &credentials.secret_access_key) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
    }
    Ok(Opened {
        objects: Arc::new(builder.build()?),
        place: format!("s3://{}", s3.bucket),
    })
}

pub(super) fn gcs(gcs: &GcsStore, credentials: &Credentials) -> Result<Opened> {
    let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(&gcs.bucket);
    if let Some(endpoint) = &gcs.endpoint {
        builder = builder
            .with_base_url(endpoint.trim_end_matches('/'))
            .with_client_options(ClientOptions::new().with_allow_http(is_plain(endpoint)));
    }
    if let Some(key) = &credentials.service_account_key {
        builder = builder.with_service_account_key(key);
    }
    Ok(Opened {
        objects: Arc::new(builder.build()?),
        place: format!("gs://{}", gcs.bucket),
    })
}

pub(super) fn azure(azure: &AzureStore, credentials: &Credentials) -> Result<Opened> {
    // From the environment, for the same reason.
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_account(&azure.account)
        .with_container_name(&azure.container);
    if let Some(endpoint) = &azure.endpoint {
        builder = builder
            .with_endpoint(endpoint.trim_end_matches('/').to_owned())
            .with_allow_http(is_plain(endpoint));
    }
    if let Some(key) = &credentials.account_key {
        builder = builder.with_access_key(key);
    }
    Ok(Opened {
        objects: Arc::new(builder.build()?),
        place: format!("az://{}/{}", azure.account, azure.container),
    })
}
