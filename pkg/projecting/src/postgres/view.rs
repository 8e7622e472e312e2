use std::marker::PhantomData;

use crate::stores::{PgRows, PgTally};

/// A view in PostgreSQL with its types erased.
pub(crate) trait PgView: Send + Sync {
    fn tables(&self) -> &'static str;
    fn indexes(&self) -> &'static str;
}

pub(crate) struct RowsOf<P>(PhantomData<fn() -> P>);

impl<P> RowsOf<P> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<P: PgRows> PgView for RowsOf<P> {
    fn tables(&self) -> &'static str {
        P::TABLES
    }
    fn indexes(&self) -> &'static str {
        P::INDEXES
    }
}

pub(crate) struct TallyOf<P>(PhantomData<fn() -> P>);

impl<P> TallyOf<P> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<P: PgTally> PgView for TallyOf<P> {
    fn tables(&self) -> &'static str {
        P::TABLES
    }
    fn indexes(&self) -> &'static str {
        P::INDEXES
    }
}
