//! Real servers for tests, each test with its own database, stream prefix and table prefix, and
//! the means to hurt them.
