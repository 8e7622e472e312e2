use millrace_replay::OutsideError;

/// Whether the API server answered with this status.
pub(crate) fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// A call to the API server that did not work, to be tried again.
pub(crate) fn unavailable(what: &str, error: kube::Error) -> OutsideError {
    OutsideError::Unavailable {
        what: format!("{what} did not work"),
        source: error.into(),
    }
}
