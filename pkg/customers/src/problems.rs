//! What the refusals of a user mean to a client.

use millrace_http::{Problem, ProblemType};

use crate::user::{UserId, UserRefusal};

/// The id is in use.
pub static USER_EXISTS: ProblemType =
    ProblemType::new("user-exists", "The user exists already", 409);
/// The e-mail address is in use.
pub static EMAIL_TAKEN: ProblemType =
    ProblemType::new("email-taken", "The e-mail address is in use", 409);

/// All of the above.
pub static ALL: [&ProblemType; 2] = [&USER_EXISTS, &EMAIL_TAKEN];

/// The answer to a command that a user refused.
pub(crate) fn refused(id: &UserId, refusal: &UserRefusal) -> Problem {
    match refusal {
        UserRefusal::NotFound => not_found(id),
        UserRefusal::AlreadyExists => Problem::new(&USER_EXISTS, format!("user {id}: {refusal}")),
        UserRefusal::EmailTaken { email } => Problem::new(
            &EMAIL_TAKEN,
            "Another user has this e-mail address, in this or another case; give another one",
        )
        .with("email", email.as_str()),
    }
}

/// 404 for a user.
pub(crate) fn not_found(id: &UserId) -> Problem {
    Problem::not_found(format_args!("user {id}"))
}
