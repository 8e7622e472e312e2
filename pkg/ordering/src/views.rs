//! The questions that are asked of orders, a file each: the row that answers, the fold that keeps
//! it, its table, and the routes.

pub mod order_read_models;
pub mod order_statistics;
pub mod orders_by_user;
