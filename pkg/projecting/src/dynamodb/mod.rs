//! Views in DynamoDB.

mod view;

pub(crate) use view::{DynamoView, RowsOf};
