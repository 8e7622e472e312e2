use std::marker::PhantomData;

use crate::stores::{DynamoRows, TableDefinition};

/// A view in DynamoDB with its types erased.
pub(crate) trait DynamoView: Send + Sync {
    fn table(&self) -> TableDefinition;
}

pub(crate) struct RowsOf<P>(PhantomData<fn() -> P>);

impl<P> RowsOf<P> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<P: DynamoRows> DynamoView for RowsOf<P> {
    fn table(&self) -> TableDefinition {
        P::TABLE
    }
}
