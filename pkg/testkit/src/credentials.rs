//! A nats-server that knows its users by what its operator signed, as a managed one does.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use millrace_parts::NatsOptions;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::{NatsServer, OrFail as _};

/// When everything was signed, in seconds since 1970: any time that has passed.
const ISSUED_AT: u64 = 1_700_000_000;

/// A nats-server with an operator and one account, which lets in only who has credentials of that
/// account.
pub struct NatsOperator {
    /// The server.
    pub server: NatsServer,
    account: KeyPair,
    folder: tempfile::TempDir,
}

/// What a user may do.
#[derive(Debug, Clone, Default)]
pub struct NatsPermissions {
    /// The subjects that he may publish to; all when there are none.
    pub publish: Vec<String>,
    /// The subjects that he may subscribe to; all when there are none.
    pub subscribe: Vec<String>,
}

/// What operators are told to grant.
const GUIDE: &str = include_str!("../../../docs/nats.md");

/// The rights that stand under a heading of the operator's guide, for some contexts.
///
/// # Panics
/// When the guide has no such heading, or no list under it.
#[must_use]
pub fn nats_rights(heading: &str, namespace: &str, contexts: &[&str]) -> NatsPermissions {
    let section = GUIDE
        .split("\n## ")
        .find(|section| section.starts_with(heading))
        .unwrap_or_else(|| panic!("docs/nats.md has no heading {heading:?}"));
    let list = |name: &str| -> Vec<String> {
        let list = section.split_once(&format!("\n{name}:\n\n```\n"));
        let (lines, _) = list
            .and_then(|(_, rest)| rest.split_once("```"))
            .unwrap_or_else(|| panic!("{heading:?} does not say what to {name}"));
        let each = |line: &str| -> Vec<String> {
            let line = line.replace("<namespace>", namespace);
            if !line.contains("<context>") {
                return vec![line];
            }
            let of = |context: &&str| line.replace("<context>", context);
            contexts.iter().map(of).collect()
        };
        lines.lines().flat_map(each).collect()
    };
    NatsPermissions {
        publish: list("publish"),
        subscribe: list("subscribe"),
    }
}

/// Starts a nats-server of the test's own whose users have credentials.
pub async fn nats_with_operator() -> NatsOperator {
    let folder = tempfile::tempdir().or_fail("a folder for the operator of NATS");
    let (operator, account, system) = (
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_account(),
    );
    let of_operator = signed(
        &operator,
        &operator,
        "operator",
        json!({"type": "operator"}),
    );
    let of_account = signed(&operator, &account, "shop", account_claims(-1));
    let of_system = signed(&operator, &system, "SYS", account_claims(0));
    let config = format!(
        "operator: {of_operator}\nsystem_account: {system}\nresolver: MEMORY\n\
         resolver_preload: {{\n  {account}: {of_account}\n  {system}: {of_system}\n}}\n",
        system = system.public_key(),
        account = account.public_key(),
    );
    let file = folder.path().join("nats.conf");
    std::fs::write(&file, config).or_fail("writing the configuration of NATS");
    let mut options = NatsOptions::temporary().or_fail("a folder for nats-server");
    options.config = Some(file);
    NatsOperator {
        server: NatsServer::start(options).await,
        account,
        folder,
    }
}

impl NatsOperator {
    /// A file with credentials of the account.
    pub fn credentials(&self, name: &str, may: &NatsPermissions) -> PathBuf {
        self.credentials_by(&self.account, name, may)
    }

    /// A file with credentials that look right, of an account that the server does not know.
    pub fn foreign_credentials(&self, name: &str) -> PathBuf {
        self.credentials_by(&KeyPair::new_account(), name, &NatsPermissions::default())
    }

    fn credentials_by(&self, account: &KeyPair, name: &str, may: &NatsPermissions) -> PathBuf {
        let user = KeyPair::new_user();
        let allowed = |subjects: &[String]| match subjects {
            [] => json!({}),
            some => json!({"allow": some}),
        };
        let claims = json!({
            "type": "user", "subs": -1, "data": -1, "payload": -1,
            "pub": allowed(&may.publish), "sub": allowed(&may.subscribe),
        });
        let jwt = signed(account, &user, name, claims);
        let seed = user.seed().or_fail("the seed of a new key");
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let file = self.folder.path().join(format!("{name}.creds"));
        std::fs::write(&file, text).or_fail("writing credentials");
        file
    }
}

/// An account without limits, whose JetStream may hold this many bytes; -1 for any number.
fn account_claims(storage: i64) -> Value {
    json!({
        "type": "account",
        "limits": {
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
            "wildcards": true, "conn": -1, "leaf": -1,
            "mem_storage": storage, "disk_storage": storage, "streams": storage,
            "consumer": storage,
        },
        "default_permissions": {"pub": {}, "sub": {}},
    })
}

/// What `by` says about `about`, signed: version 2 of NATS's claims.
fn signed(by: &KeyPair, about: &KeyPair, name: &str, mut claims: Value) -> String {
    claims["version"] = json!(2);
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let body = json!({
        "jti": about.public_key(), "iat": ISSUED_AT, "iss": by.public_key(),
        "sub": about.public_key(), "name": name, "nats": claims,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&header), part(&body));
    let signature = by.sign(text.as_bytes()).or_fail("signing a JWT");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
