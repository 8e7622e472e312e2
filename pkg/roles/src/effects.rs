//! Where effects go, as the settings say it.

use std::sync::Arc;

use millrace_effects::{Archive, ArchiveKeys, ArchiveOptions, Topic, TopicArn};
use millrace_runtime::aws;

use crate::EffectSettings;

/// Where the effects of reactions go. What is not set is not performed.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// Where receipts are archived.
    pub receipts: Option<Archive>,
    /// Where orders are told of.
    pub notifications: Option<Arc<Topic>>,
    /// In whose name.
    pub namespace: String,
}

impl Effects {
    /// Takes the settings; nothing is asked for yet, so that an endpoint that is away stops nobody.
    ///
    /// # Errors
    /// When a setting makes no sense.
    pub async fn of(settings: &EffectSettings, namespace: &str) -> anyhow::Result<Self> {
        let notifications = match named(settings.notifications_topic_arn.as_deref()) {
            Some(arn) => {
                let arn: TopicArn = arn.parse()?;
                let client = aws::sns_client(named(settings.sns_endpoint.as_deref())).await;
                Some(Arc::new(Topic::new(client, arn)))
            }
            None => None,
        };
        Ok(Self {
            receipts: settings.archive.receipts()?,
            notifications,
            namespace: namespace.to_owned(),
        })
    }
}

impl crate::ArchiveSettings {
    /// The archive of receipts, where one is named.
    ///
    /// # Errors
    /// When it is no place for one.
    pub fn receipts(&self) -> anyhow::Result<Option<Archive>> {
        let Some(place) = named(self.receipts_url.as_deref()) else {
            return Ok(None);
        };
        let keys = self
            .s3_access_key_id
            .clone()
            .zip(self.s3_secret_access_key.as_ref());
        let options = ArchiveOptions {
            endpoint: named(self.s3_endpoint.as_deref()).map(str::to_owned),
            keys: keys.map(|(id, secret)| ArchiveKeys {
                id,
                secret: secret.expose().clone(),
            }),
        };
        Ok(Some(Archive::open(place, &options)?))
    }
}

/// A setting that says something.
fn named(setting: Option<&str>) -> Option<&str> {
    setting.filter(|text| !text.is_empty())
}
