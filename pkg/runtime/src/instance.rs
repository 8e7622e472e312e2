use millrace_kernel::EntityId;

/// The most letters of the machine's name that are kept.
const MAX_HOST_CHARS: usize = 24;

/// A name for this run of this process, for leases and connections: the machine's (in Kubernetes
/// the pod's) name and something that no other run has. 1 to 64 of `a-z 0-9 -`.
#[must_use]
pub fn instance_name() -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
        .unwrap_or_default();
    let id = EntityId::generate();
    format!("{}{}", prefix(&host), id.as_str().replace('-', ""))
}

fn prefix(host: &str) -> String {
    // The end tells pods apart.
    let kept: Vec<char> = host
        .trim()
        .to_ascii_lowercase()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    let kept: String = kept[kept.len().saturating_sub(MAX_HOST_CHARS)..]
        .iter()
        .collect();
    let kept = kept.trim_matches('-');
    if kept.is_empty() {
        String::new()
    } else {
        format!("{kept}-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_token_and_another_each_time() {
        let (one, two) = (instance_name(), instance_name());
        assert_ne!(one, two);
        assert!(one.len() <= 64 && one.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        assert_eq!(
            prefix("Projector-7d9f8b6c5d-abcde\n"),
            "ojector-7d9f8b6c5d-abcde-"
        );
        assert_eq!(prefix(""), "");
    }
}
