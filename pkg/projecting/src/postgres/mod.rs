//! Views in PostgreSQL.

mod view;

pub(crate) use view::{PgView, RowsOf, TallyOf};
