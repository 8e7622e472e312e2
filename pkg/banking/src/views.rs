//! The questions that are asked of accounts, a file each: the row that answers, the fold that keeps
//! it, its table, and the routes. What is fast is answered from DynamoDB, what is complex from
//! PostgreSQL.

pub mod account_balance;
pub mod account_summaries;
pub mod accounts;
pub mod daily_balances;
pub mod transaction_history;
pub mod transactions;
