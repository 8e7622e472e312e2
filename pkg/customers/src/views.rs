//! The questions that are asked of users, a file each: the row that answers, the fold that keeps
//! it, its table, and the routes.

pub mod user_profiles;
