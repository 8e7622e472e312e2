//! The questions that are answered, each in a file: the row, the fold, the table, the routes.

pub mod invoices;
