use utoipa::{
    IntoParams,
    openapi::{
        Object, ObjectBuilder, Required, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
    },
};

use crate::page::{DEFAULT_PAGE_ITEMS, MAX_PAGE_ITEMS};

/// The headers of a write that makes something: `Idempotency-Key`.
#[derive(Debug)]
pub enum WriteHeaders {}

/// The headers of a write to something that exists: `Idempotency-Key` and `If-Match`.
#[derive(Debug)]
pub enum ChangeHeaders {}

/// What every query takes: `at_least`, `Min-Log-Position`, `Prefer` and `If-None-Match`.
#[derive(Debug)]
pub enum ReadParams {}

/// What a query takes that also has a strong form: [`ReadParams`] and `consistency=strong`.
#[derive(Debug)]
pub enum StrongReadParams {}

/// What a list takes: [`ReadParams`], `limit` and `cursor`.
#[derive(Debug)]
pub enum ListParams {}

macro_rules! params {
    ($name:ident: $($param:expr),+ $(,)?) => {
        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                let mut all = Vec::new();
                $(all.extend($param);)+
                all
            }
        }
    };
}

params!(WriteHeaders: [idempotency_key()]);
params!(ChangeHeaders: [idempotency_key(), if_match()]);
params!(ReadParams: reading());
params!(StrongReadParams: reading(), [consistency()]);
params!(ListParams: reading(), [limit(), cursor()]);

fn optional(name: &str, place: ParameterIn, schema: ObjectBuilder, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn idempotency_key() -> Parameter {
    optional(
        "Idempotency-Key",
        ParameterIn::Header,
        text()
            .min_length(Some(1))
            .max_length(Some(crate::write::MAX_IDEMPOTENCY_KEY_BYTES))
            .pattern(Some("^[!-~]([ -~]*[!-~])?$")),
        "Names the request. The same key and body gets the first answer again; keys live 24 hours.",
    )
}

fn if_match() -> Parameter {
    optional(
        "If-Match",
        ParameterIn::Header,
        text().pattern(Some(r#"^(\*|"(0|[1-9][0-9]{0,17})(-[0-9a-f]{16})?")$"#)),
        "The version it must be at, in quotes as `ETag` gave it, or `*`.",
    )
}

const TOKEN: &str = "^[a-z][a-z0-9_]{0,31}/[0-9]{1,18}(~[0-9]{1,18}(~[0-9]{1,5}_[0-9]{1,18}(\\.[0-9]{1,5}_[0-9]{1,18})*)?)?$";

fn reading() -> [Parameter; 4] {
    let token = || text().pattern(Some(TOKEN));
    [
        optional(
            "at_least",
            ParameterIn::Query,
            token(),
            "Wait until the read model is at this `Log-Position`.",
        ),
        optional(
            "Min-Log-Position",
            ParameterIn::Header,
            token(),
            "The same as `at_least`.",
        ),
        optional(
            "Prefer",
            ParameterIn::Header,
            // No pattern: a preference that is not understood is ignored (RFC 7240).
            text().examples(["wait=10"]),
            "`wait=<seconds>`: how long `at_least` may wait; 2 unless given, at most 30.",
        ),
        optional(
            "If-None-Match",
            ParameterIn::Header,
            text().pattern(Some(r#"^(\*|(W/)?"[!#-~]*")$"#)),
            "The `ETag` of what the client has: 304 when it is still that.",
        ),
    ]
}

fn consistency() -> Parameter {
    optional(
        "consistency",
        ParameterIn::Query,
        text().enum_values(Some(["eventual", "strong"])),
        "`strong` answers from the event log instead of a read model.",
    )
}

fn limit() -> Parameter {
    optional(
        "limit",
        ParameterIn::Query,
        Object::builder()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(MAX_PAGE_ITEMS))
            .default(Some(DEFAULT_PAGE_ITEMS.into())),
        "How many items at most.",
    )
}

fn cursor() -> Parameter {
    optional(
        "cursor",
        ParameterIn::Query,
        text().max_length(Some(1024)),
        "Where to go on: `next_cursor` of the page before, with the same filters.",
    )
}
