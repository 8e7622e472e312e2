//! Work over several owners that this context brings to its end, one saga a file.

pub mod payment;
