//! How the values look in JSON Schema and in the OpenAPI document.

#[cfg(feature = "json-schema")]
mod json_schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use crate::{EntityId, MAX_ID_BYTES, Money, Timestamp};

    macro_rules! value {
        ($type:ident, $($json:tt)+) => {
            impl JsonSchema for $type {
                fn inline_schema() -> bool {
                    true
                }
                fn schema_name() -> Cow<'static, str> {
                    stringify!($type).into()
                }
                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!($($json)+)
                }
            }
        };
    }

    value!(EntityId, {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_ID_BYTES,
        "pattern": super::ID_PATTERN,
    });
    value!(Money, { "type": "string", "pattern": super::MONEY_PATTERN });
    value!(Timestamp, { "type": "string", "format": "date-time" });
}

#[cfg(feature = "openapi")]
mod openapi {
    use utoipa::{
        PartialSchema, ToSchema,
        openapi::{
            Object, ObjectBuilder, OneOfBuilder, RefOr, Schema,
            schema::{KnownFormat, SchemaFormat, Type},
        },
    };

    use crate::{EntityId, MAX_ID_BYTES, Money, TimeBound, Timestamp};

    /// How a request may say an [`EntityId`]; a name for the document only.
    #[derive(Debug)]
    pub enum IdInput {}

    /// How a request may say a [`Money`]; a name for the document only.
    #[derive(Debug)]
    pub enum MoneyInput {}

    fn id() -> Object {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(MAX_ID_BYTES))
            .pattern(Some(super::ID_PATTERN))
            .description(Some("An identifier, always answered as text."))
            .examples(["shivam_99"])
            .build()
    }

    fn money() -> Object {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(super::MONEY_PATTERN))
            .description(Some("An exact amount with two decimals."))
            .examples(["499.50"])
            .build()
    }

    macro_rules! value {
        ($type:ty, $schema:expr) => {
            impl PartialSchema for $type {
                fn schema() -> RefOr<Schema> {
                    $schema.into()
                }
            }
            impl ToSchema for $type {}
        };
    }

    value!(EntityId, id());
    value!(Money, money());
    value!(
        Timestamp,
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("An instant in UTC, RFC 3339."))
            .examples(["2026-01-31T12:00:00.123456Z"])
            .build()
    );
    value!(
        TimeBound,
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "A time, RFC 3339, or a date for the instant at which it begins in UTC."
            ))
            .examples(["2026-01-31", "2026-01-31T12:00:00Z"])
            .build()
    );
    value!(
        IdInput,
        OneOfBuilder::new()
            .item(id())
            .item(
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(0))
            )
            .description(Some("An identifier: `1` and `\"1\"` are the same."))
    );
    value!(
        MoneyInput,
        OneOfBuilder::new()
            .item(
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some(super::MONEY_INPUT_PATTERN))
                    .examples(["499.50"])
            )
            .item(
                ObjectBuilder::new()
                    .schema_type(Type::Number)
                    .examples([499.5])
            )
            .description(Some(
                "An amount: a number or a decimal string, read exactly, at most two decimals."
            ))
    );
}

#[cfg(feature = "openapi")]
pub use openapi::{IdInput, MoneyInput};

/// [`crate::EntityId`] as a regular expression, its length aside.
const ID_PATTERN: &str = "^[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?$";

/// How an amount is written.
const MONEY_PATTERN: &str = "^-?[0-9]+\\.[0-9]{2}$";

/// How a request may write an amount as a string, its size aside.
#[cfg(feature = "openapi")]
const MONEY_INPUT_PATTERN: &str = "^(0|[1-9][0-9]*)(\\.[0-9]{1,2})?$";
