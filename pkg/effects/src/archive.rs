//! An archive of small objects, each written once: in S3, or in a folder on a laptop.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use millrace_projecting::EffectError;
use object_store::{
    Attribute, Attributes, ClientOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum},
    local::LocalFileSystem,
    path::Path,
    signer::Signer,
};
use url::Url;

/// The longest object that is written or read, in bytes.
pub const MAX_OBJECT_BYTES: u64 = 1024 * 1024;

/// How long a connection to S3 may take, in milliseconds.
const CONNECT_TIMEOUT_MS: u64 = 1_000;

/// How long one request may take, in milliseconds: what reacts and what answers a reader try again
/// or say so before their own time is over.
const REQUEST_TIMEOUT_MS: u64 = 5_000;

/// How often a request that failed is sent again, beside whoever asks for it.
const MAX_RETRIES: usize = 1;

/// The region of an endpoint of one's own that names none.
const OWN_REGION: &str = "us-east-1";

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The setting makes no sense.
    #[error("{0:?} is no place for an archive: {1}")]
    BadPlace(String, String),
    /// The archive cannot be reached, or refuses for a time.
    #[error("the archive is not available")]
    Unavailable(#[source] object_store::Error),
    /// What lies there is larger than anything that is written there.
    #[error("the object {path} has {bytes} bytes, more than {MAX_OBJECT_BYTES}")]
    TooLarge {
        /// The object.
        path: String,
        /// Its length.
        bytes: u64,
    },
}

/// Keys of S3, where they do not come from the environment.
#[derive(Clone)]
pub struct ArchiveKeys {
    /// The access key's id.
    pub id: String,
    /// The secret.
    pub secret: String,
}

impl fmt::Debug for ArchiveKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArchiveKeys({})", self.id)
    }
}

/// How an archive in S3 is reached. Without anything, as Amazon's environment variables, web
/// identity, container or instance say.
#[derive(Debug, Clone, Default)]
pub struct ArchiveOptions {
    /// An endpoint of one's own. It gets path-style requests, and HTTP only if it says so.
    pub endpoint: Option<String>,
    /// Keys; those of the environment without. An endpoint of one's own gets keys that nobody looks
    /// at when there are none at all.
    pub keys: Option<ArchiveKeys>,
}

/// What became of an object that was to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It was written.
    Written,
    /// It was there, and stays as it is.
    WasThere,
}

/// A link to an object that works without keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where.
    pub url: String,
    /// For how long.
    pub lifetime: Duration,
}

/// An archive of objects that are written once.
#[derive(Clone)]
pub struct Archive {
    store: Arc<dyn ObjectStore>,
    /// What makes links; a folder has none.
    signer: Option<Arc<dyn Signer>>,
    prefix: Path,
    place: String,
}

impl Archive {
    /// Opens the archive at `file:///folder` or `s3://bucket[/prefix]`. A folder is made when it is
    /// not there; S3 is not asked anything yet. The process's cryptography has to be installed
    /// before (`millrace_runtime::install_crypto`).
    ///
    /// # Errors
    /// [`ArchiveError::BadPlace`].
    pub fn open(place: &str, options: &ArchiveOptions) -> Result<Self, ArchiveError> {
        let bad = |why: String| ArchiveError::BadPlace(place.to_owned(), why);
        let url = Url::parse(place).map_err(|error| bad(error.to_string()))?;
        match url.scheme() {
            "file" if place.starts_with("file:///") => {
                let folder = url
                    .to_file_path()
                    .map_err(|()| bad("it names no folder of this machine".to_owned()))?;
                Self::folder(&folder, place)
            }
            "s3" => {
                let bucket = url.host_str().unwrap_or_default();
                if bucket.is_empty() {
                    return Err(bad("it names no bucket".to_owned()));
                }
                let prefix = Path::from_url_path(url.path()).map_err(|e| bad(e.to_string()))?;
                Self::s3(bucket, prefix, place, options)
            }
            other => Err(bad(format!(
                "{other} is neither file:///folder nor s3://bucket/prefix"
            ))),
        }
    }

    fn folder(folder: &std::path::Path, place: &str) -> Result<Self, ArchiveError> {
        let bad = |why: String| ArchiveError::BadPlace(place.to_owned(), why);
        std::fs::create_dir_all(folder).map_err(|error| bad(error.to_string()))?;
        // A receipt is on the disk before its checkpoint says so.
        let store = LocalFileSystem::new_with_prefix(folder)
            .map_err(|error| bad(error.to_string()))?
            .with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            signer: None,
            prefix: Path::default(),
            place: place.to_owned(),
        })
    }

    fn s3(
        bucket: &str,
        prefix: Path,
        place: &str,
        options: &ArchiveOptions,
    ) -> Result<Self, ArchiveError> {
        let client = ClientOptions::new()
            .with_connect_timeout(Duration::from_millis(CONNECT_TIMEOUT_MS))
            .with_timeout(Duration::from_millis(REQUEST_TIMEOUT_MS));
        let retries = RetryConfig {
            max_retries: MAX_RETRIES,
            retry_timeout: Duration::from_millis(REQUEST_TIMEOUT_MS),
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retries)
            .with_checksum_algorithm(Checksum::SHA256);
        let mut client = client;
        if let Some(endpoint) = &options.endpoint {
            client = client.with_allow_http(endpoint.starts_with("http://"));
            builder = builder
                .with_endpoint(endpoint)
                .with_virtual_hosted_style_request(false);
            if builder
                .get_config_value(&AmazonS3ConfigKey::Region)
                .is_none()
            {
                builder = builder.with_region(OWN_REGION);
            }
        }
        builder = builder.with_client_options(client);
        builder = match &options.keys {
            Some(keys) => builder
                .with_access_key_id(&keys.id)
                .with_secret_access_key(&keys.secret),
            None if options.endpoint.is_some() && !has_keys(&builder) => builder
                .with_access_key_id("local")
                .with_secret_access_key("local"),
            None => builder,
        };
        let store = builder
            .build()
            .map_err(|error| ArchiveError::BadPlace(place.to_owned(), error.to_string()))?;
        let store = Arc::new(store);
        Ok(Self {
            store: store.clone(),
            signer: Some(store),
            prefix,
            place: place.to_owned(),
        })
    }

    /// Where it is, as it was said.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    fn path(&self, path: &str) -> Result<Path, object_store::Error> {
        let own = Path::parse(path)?;
        Ok(self.prefix.parts().chain(own.parts()).collect())
    }

    /// Creates an object, unless there is one under its path: that one stays.
    ///
    /// # Errors
    /// [`EffectError::Refused`] for a path or a length that no archive takes; everything else is
    /// taken for something that passes.
    pub async fn create(
        &self,
        path: &str,
        content_type: &'static str,
        content: Bytes,
    ) -> Result<Stored, EffectError> {
        let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
        if bytes > MAX_OBJECT_BYTES {
            let path = path.to_owned();
            return Err(EffectError::refused(ArchiveError::TooLarge { path, bytes }));
        }
        let location = self.path(path).map_err(EffectError::refused)?;
        let mut options = PutOptions::from(PutMode::Create);
        // A folder keeps no content types; the names say them.
        if self.signer.is_some() {
            options.attributes = Attributes::from_iter([(Attribute::ContentType, content_type)]);
        }
        let put = self
            .store
            .put_opts(&location, content.into(), options)
            .await;
        match put {
            Ok(_) => Ok(Stored::Written),
            // S3 says the same while another request creates it, which may fail yet.
            Err(object_store::Error::AlreadyExists { .. }) => {
                let found = self.store.head(&location).await;
                found
                    .map(|_| Stored::WasThere)
                    .map_err(EffectError::unavailable)
            }
            Err(error) => Err(EffectError::unavailable(error)),
        }
    }

    /// Reads an object; none when there is none.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub async fn read(&self, path: &str) -> Result<Option<Bytes>, ArchiveError> {
        let location = self.path(path).map_err(ArchiveError::Unavailable)?;
        let found = match self.store.get(&location).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(ArchiveError::Unavailable(error)),
        };
        if found.meta.size > MAX_OBJECT_BYTES {
            return Err(ArchiveError::TooLarge {
                path: path.to_owned(),
                bytes: found.meta.size,
            });
        }
        let content = found.bytes().await.map_err(ArchiveError::Unavailable)?;
        Ok(Some(content))
    }

    /// Whether there is an object.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`].
    pub async fn has(&self, path: &str) -> Result<bool, ArchiveError> {
        let location = self.path(path).map_err(ArchiveError::Unavailable)?;
        match self.store.head(&location).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(ArchiveError::Unavailable(error)),
        }
    }

    /// A link to an object, whether there is one or not; none where the archive makes no links.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`] when the keys cannot be had.
    pub async fn link(&self, path: &str, lifetime: Duration) -> Result<Option<Link>, ArchiveError> {
        let Some(signer) = &self.signer else {
            return Ok(None);
        };
        let location = self.path(path).map_err(ArchiveError::Unavailable)?;
        let url = signer
            .signed_url(http::Method::GET, &location, lifetime)
            .await
            .map_err(ArchiveError::Unavailable)?;
        Ok(Some(Link {
            url: url.into(),
            lifetime,
        }))
    }

    /// Whether it makes links.
    #[must_use]
    pub const fn makes_links(&self) -> bool {
        self.signer.is_some()
    }
}

/// Whether the environment says whose keys are used.
fn has_keys(builder: &AmazonS3Builder) -> bool {
    use AmazonS3ConfigKey::{
        AccessKeyId, ContainerCredentialsFullUri, ContainerCredentialsRelativeUri,
        WebIdentityTokenFile,
    };
    [
        AccessKeyId,
        ContainerCredentialsFullUri,
        ContainerCredentialsRelativeUri,
        WebIdentityTokenFile,
    ]
    .iter()
    .any(|key| builder.get_config_value(key).is_some())
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Archive({})", self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_for_archives_are_taken() {
        for wrong in [
            "",
            "receipts",
            "http://bucket",
            "s3:///prefix",
            "s3:",
            "file:relative",
            "file://host/folder",
        ] {
            let opened = Archive::open(wrong, &ArchiveOptions::default());
            assert!(
                matches!(opened, Err(ArchiveError::BadPlace(..))),
                "{wrong}: {opened:?}"
            );
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let keys = ArchiveKeys {
            id: "id".to_owned(),
            secret: "hush".to_owned(),
        };
        assert!(!format!("{keys:?}").contains("hush"));
    }
}
