//! Users and where they live.

use serde_json::json;

use super::{Dice, Life, Step, USERS};

const STREETS: [&str; 4] = ["Main St", "Mill Lane", "Orchard Road", "River Walk"];
const CITIES: [(&str, &str, &str); 3] = [
    ("Springfield", "IL", "62701"),
    ("Portland", "OR", "97201"),
    ("Burlington", "VT", "05401"),
];

/// Who there is, each with an address. A second run finds them there.
pub(super) fn lives() -> impl Iterator<Item = Life> {
    (1..).zip(USERS).map(|(number, user)| {
        let mut dice = Dice(number);
        let name = user[..1].to_uppercase() + &user[1..];
        let (city, state, zip) = CITIES[dice.below(CITIES.len())];
        let street = STREETS[dice.below(STREETS.len())];
        let registers = json!({
            "id": user, "name": format!("{name} Example"), "email": format!("{user}@example.com"),
        });
        let lives = json!({
            "user_id": user, "street": format!("{} {street}", 1 + dice.below(200)),
            "city": city, "state": state, "zip": zip,
        });
        Life {
            name: format!("example-user-{user}"),
            steps: vec![
                Step::post("/system-api/users", registers),
                Step::post("/system-api/accounts", lives),
            ],
        }
    })
}
