//! Small things that every view in PostgreSQL needs.

/// Says that a column does not hold what its view writes there.
pub fn bad_column<E>(column: &'static str) -> impl FnOnce(E) -> sqlx::Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: source.into(),
    }
}

/// The pattern of `LIKE` and `ILIKE` for texts that contain this one, taken as it stands.
#[must_use]
pub fn containing(part: &str) -> String {
    let mut pattern = String::with_capacity(part.len() + 2);
    pattern.push('%');
    for c in part.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pattern_means_is_taken_as_it_stands() {
        assert_eq!(containing(r"50%_a\b"), r"%50\%\_a\\b%");
    }
}
