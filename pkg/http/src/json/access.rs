//! Steps through the members of objects, the items of arrays and the variants of enums, putting a
//! stand-in where a value is known to be wrong.

use std::borrow::Cow;

use serde::de::{
    self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
    value::StrDeserializer,
};

use super::{
    de::{Error, Known, NUL, Value},
    parse::Node,
    stand_in::StandIn,
};

/// One member of an object: a value, or a stand-in for one that is wrong or missing.
type Member<'n> = (&'n str, Option<&'n Node<'n>>);

pub(super) struct Members<'n> {
    members: std::slice::Iter<'n, (Cow<'n, str>, Node<'n>)>,
    /// Fields that are missing and were noted as such.
    absent: Vec<&'static str>,
    fields: Option<&'static [&'static str]>,
    current: Option<Member<'n>>,
    known: Option<Known<'n>>,
}

impl<'n> Members<'n> {
    pub fn new(
        members: &'n [(Cow<'n, str>, Node<'n>)],
        fields: Option<&'static [&'static str]>,
        known: Option<Known<'n>>,
    ) -> Result<Self, Error> {
        let mut absent = Vec::new();
        if let Some(fields) = fields {
            let noted = |name: &str| {
                let known = known.as_ref();
                known.is_some_and(|known| known.below(name).fault().is_some())
            };
            // Every type is strict, whether it says so or not.
            for (name, _) in members {
                if !fields.contains(&name.as_ref()) && !noted(name) {
                    return Err(de::Error::unknown_field(name, fields));
                }
            }
            let missing = |name: &&&'static str| {
                !members.iter().any(|(given, _)| given == **name) && noted(name)
            };
            if known.is_some() {
                absent = fields.iter().filter(missing).copied().collect();
            }
        }
        Ok(Self {
            members: members.iter(),
            absent,
            fields,
            current: None,
            known,
        })
    }
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let fields = self.fields;
        let is_field = |name: &str| fields.is_none_or(|fields| fields.contains(&name));
        let next = self
            .members
            .by_ref()
            .find(|(name, _)| is_field(name))
            .map(|(name, node)| (name.as_ref(), Some(node)))
            .or_else(|| self.absent.pop().map(|name| (name, None)));
        self.current = next;
        match next {
            None => Ok(None),
            Some((name, _)) if name.contains('\0') => Err(Error::new(NUL).at_key(name)),
            Some((name, _)) => seed
                .deserialize(StrDeserializer::new(name))
                .map(Some)
                .map_err(|error: Error| error.at_key(name)),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Some((name, node)) = self.current.take() else {
            return Err(Error::new("a value without a key"));
        };
        let known = self.known.as_ref().map(|known| known.below(name));
        let fault = known.as_ref().and_then(Known::fault);
        match (fault, node) {
            (Some(fault), _) => seed.deserialize(StandIn(fault.stand_in)),
            (None, Some(node)) => seed.deserialize(Value { node, known }),
            (None, None) => seed.deserialize(StandIn(0)),
        }
        .map_err(|error| error.at_key(name))
    }
}

pub(super) struct Items<'n> {
    items: &'n [Node<'n>],
    next: usize,
    known: Option<Known<'n>>,
}

impl<'n> Items<'n> {
    pub fn new(items: &'n [Node<'n>], known: Option<Known<'n>>) -> Self {
        Self {
            items,
            next: 0,
            known,
        }
    }
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let index = self.next;
        let Some(node) = self.items.get(index) else {
            return Ok(None);
        };
        self.next += 1;
        let known = self
            .known
            .as_ref()
            .map(|known| known.below(&index.to_string()));
        match known.as_ref().and_then(Known::fault) {
            Some(fault) => seed.deserialize(StandIn(fault.stand_in)),
            None => seed.deserialize(Value { node, known }),
        }
        .map(Some)
        .map_err(|error| error.at_index(index))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

/// An enum's variant that carries a value: an object with one member.
pub(super) struct Variant<'n> {
    pub name: &'n str,
    pub value: Value<'n>,
}

impl<'de, 'n> EnumAccess<'de> for Variant<'n> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let name = seed.deserialize(StrDeserializer::<Error>::new(self.name))?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Err(Error::new("must be a string"))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        let name = self.name;
        seed.deserialize(self.value)
            .map_err(|error| error.at_key(name))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        let name = self.name;
        self.value
            .array(visitor)
            .map_err(|error| error.at_key(name))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let name = self.name;
        self.value
            .object(Some(fields), visitor)
            .map_err(|error| error.at_key(name))
    }
}
