//! Users by the state they are in, for tests.

use millrace_kernel::EntityId;

use super::*;

pub fn at(second: u32) -> Timestamp {
    format!("2026-01-31T12:00:{second:02}.000001Z")
        .parse()
        .unwrap()
}

pub fn id() -> UserId {
    UserId::new(EntityId::new("shivam_99").unwrap())
}

pub fn create() -> UserCommand {
    UserCommand::Create(CreateUser {
        user_id: id(),
        name: UserName::new("Shivam").unwrap(),
        email: "Shivam@demo.com".parse().unwrap(),
        at: at(1),
    })
}

pub fn update(name: Option<&str>, email: Option<&str>) -> UserCommand {
    UserCommand::Update {
        name: name.map(|name| UserName::new(name).unwrap()),
        email: email.map(|email| email.parse().unwrap()),
        at: at(2),
    }
}

pub fn parts() -> Address {
    Address::Parts {
        street: "123 Main St".into(),
        city: "Cityville".into(),
        state: "ST".into(),
        zip: "12345".into(),
    }
}

pub fn text(address: &str) -> Address {
    Address::Text {
        address: address.into(),
    }
}

pub fn live_at(address: Address) -> UserCommand {
    UserCommand::SetAddress {
        address: UserAddress::new(address).unwrap(),
        at: at(3),
    }
}

/// What happens when a new user gets these commands, each of which he takes.
pub fn events(commands: &[UserCommand]) -> Vec<UserEvent> {
    let mut user = User::default();
    let mut events = Vec::new();
    for command in commands {
        let happened = user.decide(command).unwrap();
        user = happened.iter().fold(user, User::evolve);
        events.extend(happened);
    }
    events
}

/// The user after these commands.
pub fn after(commands: &[UserCommand]) -> User {
    events(commands).iter().fold(User::default(), User::evolve)
}
