use std::{fmt, sync::Arc};

use millrace_es::{Context, Partition};

/// The longest namespace, in bytes: it begins every stream, bucket and subject name.
const MAX_NAMESPACE_BYTES: usize = 40;

/// The longest token that a caller puts into a subject or a consumer's name, in bytes.
const MAX_TOKEN_BYTES: usize = 64;

/// The namespace whose dead letters go to the stream of the plain name.
const DEFAULT_NAMESPACE: &str = "millrace";

/// A text that cannot stand in a subject, a stream's or a consumer's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?} is not valid: {rule}")]
pub struct InvalidToken {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

/// Every name that Millrace uses in NATS, made from one namespace, so that several installations
/// (and every test) can share a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Names {
    namespace: Arc<str>,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names({})", self.namespace)
    }
}

impl Names {
    /// Takes a namespace.
    ///
    /// # Errors
    /// When it is not 1 to 40 of `a-z 0-9 _ -` beginning with a letter: it has to be a subject
    /// token and a part of stream and bucket names at once.
    pub fn new(namespace: &str) -> Result<Self, InvalidToken> {
        let ok = namespace.len() <= MAX_NAMESPACE_BYTES
            && namespace.starts_with(|c: char| c.is_ascii_lowercase())
            && namespace
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
        if !ok {
            return Err(InvalidToken {
                kind: "namespace",
                text: namespace.chars().take(MAX_NAMESPACE_BYTES).collect(),
                rule: "1 to 40 of a-z 0-9 _ -, beginning with a letter",
            });
        }
        Ok(Self {
            namespace: namespace.into(),
        })
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The stream of a context's events: `<ns>-<context>`.
    #[must_use]
    pub fn stream(&self, context: &Context) -> String {
        format!("{}-{context}", self.namespace)
    }

    /// Every subject of a context's events: `<ns>.<context>.>`. Only the relay may publish there.
    #[must_use]
    pub fn subjects(&self, context: &Context) -> String {
        format!("{}.{context}.>", self.namespace)
    }

    /// The subject of an event: `<ns>.<context>.<partition>.<type>`, the type as one token.
    #[must_use]
    pub fn subject(&self, context: &Context, partition: Partition, event_type: &str) -> String {
        let mut subject = format!("{}.{context}.{partition}.", self.namespace);
        subject.extend(event_type.chars().map(token_char));
        subject
    }

    /// The subjects of the events of one type, in every partition: `<ns>.<context>.*.<type>`.
    #[must_use]
    pub fn type_subjects(&self, context: &Context, event_type: &str) -> String {
        let mut subjects = format!("{}.{context}.*.", self.namespace);
        subjects.extend(event_type.chars().map(token_char));
        subjects
    }

    /// What a partition's consumer filters by: `<ns>.<context>.<partition>.>`.
    #[must_use]
    pub fn partition_subjects(&self, context: &Context, partition: Partition) -> String {
        format!("{}.{context}.{partition}.>", self.namespace)
    }

    /// The `CloudEvents` source of a context's events: `/<ns>/<context>`.
    #[must_use]
    pub fn source(&self, context: &Context) -> String {
        format!("/{}/{context}", self.namespace)
    }

    /// The partition in the subject of an event of a context; `None` when the subject is not one.
    #[must_use]
    pub fn partition_of(&self, context: &Context, subject: &str) -> Option<Partition> {
        let rest = subject
            .strip_prefix(&*self.namespace)?
            .strip_prefix('.')?
            .strip_prefix(context.as_str())?
            .strip_prefix('.')?;
        let (partition, _) = rest.split_once('.')?;
        partition.parse().ok().map(Partition::new)
    }

    /// The stream of the dead letters' published copies: `DEAD_LETTERS` in the default namespace,
    /// `<ns>-DEAD_LETTERS` elsewhere.
    #[must_use]
    pub fn dead_letter_stream(&self) -> String {
        if &*self.namespace == DEFAULT_NAMESPACE {
            "DEAD_LETTERS".to_owned()
        } else {
            format!("{}-DEAD_LETTERS", self.namespace)
        }
    }

    /// Every dead letter's subject: `<ns>.dead.>`.
    #[must_use]
    pub fn dead_letter_subjects(&self) -> String {
        format!("{}.dead.>", self.namespace)
    }

    /// A dead letter's subject: `<ns>.dead.<context>.<projection>.<reason class>`.
    ///
    /// # Errors
    /// When projection or reason class is no token.
    pub fn dead_letter_subject(
        &self,
        context: &Context,
        projection: &str,
        reason_class: &str,
    ) -> Result<String, InvalidToken> {
        let projection = token("projection", projection)?;
        let reason_class = token("reason class", reason_class)?;
        Ok(format!(
            "{}.dead.{context}.{projection}.{reason_class}",
            self.namespace
        ))
    }

    /// The core-NATS subject on which a command process says that it appended.
    #[must_use]
    pub fn appended_signal(&self, context: &Context) -> String {
        format!("{}.signal.appended.{context}", self.namespace)
    }

    /// The core-NATS subject on which consumers report messages that are not the log's.
    #[must_use]
    pub fn foreign_signal(&self, context: &Context) -> String {
        format!("{}.signal.foreign.{context}", self.namespace)
    }

    /// The core-NATS subject on which a projector says how far a projection is.
    ///
    /// # Errors
    /// When the projection's name is no token.
    pub fn progress_signal(&self, projection: &str) -> Result<String, InvalidToken> {
        let projection = token("projection", projection)?;
        Ok(format!("{}.signal.progress.{projection}", self.namespace))
    }

    /// The core-NATS subject on which members of a lease group say that its ownership changed.
    ///
    /// # Errors
    /// When the group's name is no token.
    pub fn lease_signal(&self, group: &str) -> Result<String, InvalidToken> {
        let group = token("lease group", group)?;
        Ok(format!("{}.signal.lease.{group}", self.namespace))
    }

    /// The key-value bucket of the leases: `<ns>-leases`.
    #[must_use]
    pub fn lease_bucket(&self) -> String {
        format!("{}-leases", self.namespace)
    }

    /// The stream that keeps the advisories about deliveries given up: `<ns>-advisories`.
    #[must_use]
    pub fn advisory_stream(&self) -> String {
        format!("{}-advisories", self.namespace)
    }

    /// The advisories about the consumers of one context's stream.
    #[must_use]
    pub fn advisory_subjects(&self, context: &Context) -> [String; 2] {
        let stream = self.stream(context);
        ["MAX_DELIVERIES", "MSG_TERMINATED"]
            .map(|kind| format!("$JS.EVENT.ADVISORY.CONSUMER.{kind}.{stream}.>"))
    }

    /// The durable consumer of a projection's generation in one partition:
    /// `<projection>-g<generation>-p<partition>` on the context's stream.
    ///
    /// # Errors
    /// When projection or generation is no token.
    pub fn consumer(
        &self,
        projection: &str,
        generation: &str,
        partition: Partition,
    ) -> Result<String, InvalidToken> {
        let projection = token("projection", projection)?;
        let generation = token("generation", generation)?;
        Ok(format!("{projection}-g{generation}-p{partition}"))
    }
}

/// Checks a text that becomes one token of a subject or a part of a name.
pub(crate) fn token<'a>(kind: &'static str, text: &'a str) -> Result<&'a str, InvalidToken> {
    let ok = !text.is_empty()
        && text.len() <= MAX_TOKEN_BYTES
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if ok {
        Ok(text)
    } else {
        Err(InvalidToken {
            kind,
            text: text.chars().take(MAX_TOKEN_BYTES).collect(),
            rule: "1 to 64 of A-Z a-z 0-9 _ -",
        })
    }
}

/// A character of an event type as it may stand in a subject token. The type itself travels in a
/// header, so nothing is lost by folding.
fn token_char(c: char) -> char {
    if c.is_ascii_alphanumeric() || c == '_' {
        c
    } else {
        '-'
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new("millrace").unwrap()
    }

    fn ordering() -> Context {
        Context::new("ordering").unwrap()
    }

    #[test]
    fn names_follow_the_namespace() {
        let (names, ordering) = (names(), ordering());
        let p = Partition::new(7);
        assert_eq!(names.stream(&ordering), "millrace-ordering");
        assert_eq!(names.subjects(&ordering), "millrace.ordering.>");
        assert_eq!(
            names.subject(&ordering, p, "order.status_updated"),
            "millrace.ordering.7.order-status_updated"
        );
        assert_eq!(
            names.type_subjects(&ordering, "order.status_updated"),
            "millrace.ordering.*.order-status_updated"
        );
        assert_eq!(
            names.partition_subjects(&ordering, p),
            "millrace.ordering.7.>"
        );
        assert_eq!(names.dead_letter_stream(), "DEAD_LETTERS");
        assert_eq!(
            Names::new("t1").unwrap().dead_letter_stream(),
            "t1-DEAD_LETTERS"
        );
        assert_eq!(
            names
                .dead_letter_subject(&ordering, "orders-by-user", "malformed")
                .unwrap(),
            "millrace.dead.ordering.orders-by-user.malformed"
        );
        assert_eq!(
            names.consumer("orders-by-user", "3", p).unwrap(),
            "orders-by-user-g3-p7"
        );
    }

    #[test]
    fn a_subject_gives_its_partition_back() {
        let (names, ordering) = (names(), ordering());
        let subject = names.subject(&ordering, Partition::new(15), "order.created");
        assert_eq!(
            names.partition_of(&ordering, &subject),
            Some(Partition::new(15))
        );
        for foreign in [
            "millrace.ordering.x.order-created",
            "millrace.ordering.3",
            "millrace.orderings.3.a",
            "millraces.ordering.3.a",
            "other.ordering.3.a",
            "millrace.ordering.70000.a",
        ] {
            assert_eq!(names.partition_of(&ordering, foreign), None, "{foreign}");
        }
    }

    #[test]
    fn what_would_break_a_subject_is_refused() {
        for bad in [
            "",
            "1a",
            "A",
            "a.b",
            "a b",
            "a*",
            "a>",
            "é",
            &"a".repeat(41),
        ] {
            assert!(Names::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a.b", "a b", "*", ">", &"a".repeat(65)] {
            assert!(names().progress_signal(bad).is_err(), "{bad:?}");
            assert!(
                names().consumer("orders", bad, Partition::new(0)).is_err(),
                "{bad:?}"
            );
        }
        let odd = names().subject(&ordering(), Partition::new(0), "a b*>.é");
        assert_eq!(odd, "millrace.ordering.0.a-b----");
    }
}
