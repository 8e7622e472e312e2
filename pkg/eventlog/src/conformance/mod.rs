//! What every backend of the event log has to do, as one suite that runs on any of them.
