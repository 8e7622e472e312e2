use super::{fixtures as user, *};

mod formats;

/// Decides, and once more on what became of it.
fn decide_twice(
    user: &User,
    command: &UserCommand,
) -> (
    Result<Vec<UserEvent>, UserRefusal>,
    Result<Vec<UserEvent>, UserRefusal>,
) {
    let first = user.decide(command);
    let happened = first.clone().unwrap_or_default();
    let after = happened.iter().fold(user.clone(), User::evolve);
    (first, after.decide(command))
}

/// The names that an event gives back and takes, a minus before the former.
fn names(user: &User, event: &UserEvent) -> Vec<String> {
    let reservations = user.reservations(event).into_iter();
    reservations
        .map(|it| {
            assert_eq!((it.scope, it.holder.as_str()), ("user-email", "shivam_99"));
            let sign = if it.release { "-" } else { "" };
            format!("{sign}{}", it.value)
        })
        .collect()
}

#[test]
fn a_user_is_created_once() {
    let (first, second) = decide_twice(&User::default(), &user::create());
    let Ok([UserEvent::Created(event)]) = first.as_deref() else {
        panic!("{first:?}");
    };
    assert_eq!(
        (event.name.as_str(), event.email.as_str()),
        ("Shivam", "Shivam@demo.com")
    );
    assert_eq!(second, Err(UserRefusal::AlreadyExists));
}

#[test]
fn nothing_happens_to_a_user_who_is_not_there() {
    for command in [user::update(Some("A"), None), user::live_at(user::parts())] {
        let refused = User::default().decide(&command);
        assert_eq!(refused, Err(UserRefusal::NotFound));
    }
}

#[test]
fn an_update_says_both_and_is_done_once() {
    let known = user::after(&[user::create()]);
    for (name, email, now) in [
        (Some("Ann"), None, ("Ann", "Shivam@demo.com")),
        (None, Some("ann@demo.com"), ("Shivam", "ann@demo.com")),
        (Some("Ann"), Some("ann@demo.com"), ("Ann", "ann@demo.com")),
    ] {
        let (first, second) = decide_twice(&known, &user::update(name, email));
        let Ok([UserEvent::Updated(event)]) = first.as_deref() else {
            panic!("{first:?}");
        };
        assert_eq!((event.name.as_str(), event.email.as_str()), now);
        assert_eq!(second, Ok(vec![]));
    }
    assert_eq!(known.decide(&user::update(None, None)), Ok(vec![]));
}

#[test]
fn the_first_address_makes_the_account_and_another_changes_it() {
    let known = user::after(&[user::create()]);
    let (first, second) = decide_twice(&known, &user::live_at(user::parts()));
    assert!(matches!(
        first.as_deref(),
        Ok([UserEvent::AccountCreated(_)])
    ));
    assert_eq!(second, Ok(vec![]));

    let known = user::after(&[user::create(), user::live_at(user::parts())]);
    // The same place in one text is another address: it is kept as it was given.
    let same_place = user::text(&user::parts().to_string());
    let (first, second) = decide_twice(&known, &user::live_at(same_place.clone()));
    let Ok([UserEvent::AccountUpdated(event)]) = first.as_deref() else {
        panic!("{first:?}");
    };
    assert_eq!(event.address, same_place);
    assert_eq!(second, Ok(vec![]));
}

#[test]
fn an_email_address_is_taken_and_given_back_whatever_its_case() {
    let events = user::events(&[
        user::create(),
        user::update(None, Some("SHIVAM@Demo.com")),
        user::update(Some("Ann"), None),
        user::update(None, Some("Ann@demo.com")),
        user::live_at(user::parts()),
    ]);
    let mut known = User::default();
    let mut all = Vec::new();
    for event in &events {
        all.push(names(&known, event));
        known = known.evolve(event);
    }
    let expected: [&[&str]; 5] = [
        &["shivam@demo.com"],
        &[],
        &[],
        &["-shivam@demo.com", "ann@demo.com"],
        &[],
    ];
    assert_eq!(all, expected);
    let refusal = User::reserved(EMAIL_SCOPE, "ann@demo.com");
    assert!(matches!(refusal, Some(UserRefusal::EmailTaken { email }) if email == "ann@demo.com"));
}
