//! A role of Millrace as a process that a test can hurt: the same libraries and settings as the
//! shipped binaries, in one program so that only one has to be linked.

fn main() {}
