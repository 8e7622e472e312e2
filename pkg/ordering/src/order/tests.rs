use millrace_es::{Aggregate, DomainEvent};

use super::{fixtures as order, *};

mod formats;

/// Decides, and once more on what became of it: a command that was done says nothing new, or is
/// refused; it never happens twice.
fn decide_twice(
    order: &Order,
    command: &OrderCommand,
) -> (
    Result<Vec<OrderEvent>, OrderRefusal>,
    Result<Vec<OrderEvent>, OrderRefusal>,
) {
    let first = order.decide(command);
    let happened = first.clone().unwrap_or_default();
    let after = happened.iter().fold(order.clone(), Order::evolve);
    let second = after.decide(command);
    (first, second)
}

#[test]
fn an_order_is_created_once() {
    let (first, second) = decide_twice(&Order::default(), &order::create());
    let Ok([OrderEvent::Created(event)]) = first.as_deref() else {
        panic!("{first:?}");
    };
    assert_eq!(event.total_amount, Money::from_cents(49_950));
    assert_eq!(event.items_count, 1);
    assert_eq!(event.created_at, order::at(0));
    assert_eq!(second, Err(OrderRefusal::AlreadyExists));
}

/// Who keeps orders by the month they were bought in finds the month in every event.
#[test]
fn when_an_order_was_bought_is_in_every_event_of_it() {
    let bought = Some(order::at(7));
    let create = OrderCommand::Create(Box::new(CreateOrder {
        purchase_dt: bought,
        ..order::request()
    }));
    let events = order::events(&[
        create,
        order::become_(OrderStatus::Cancelled),
        order::delete(),
    ]);
    let found: Vec<_> = events
        .iter()
        .map(|event| match event {
            OrderEvent::Created(event) => event.purchase_dt,
            OrderEvent::StatusUpdated(event) => event.purchase_dt,
            OrderEvent::Deleted(event) => event.purchase_dt,
        })
        .collect();
    assert_eq!(found, [bought; 3]);
}

#[test]
fn the_id_of_a_deleted_order_stays_taken() {
    let refused = order::deleted().decide(&order::create());
    assert_eq!(refused, Err(OrderRefusal::AlreadyExists));
}

#[test]
fn every_pair_of_statuses_is_decided_as_the_contract_says() {
    use OrderStatus::{Cancelled, Confirmed, Delivered, Pending, Shipped};
    let steps = [
        (Pending, Confirmed),
        (Confirmed, Shipped),
        (Shipped, Delivered),
        (Pending, Cancelled),
        (Confirmed, Cancelled),
    ];
    for from in OrderStatus::ALL {
        for to in OrderStatus::ALL {
            let given = order::standing(from);
            let (first, second) = decide_twice(&given, &order::become_(to));
            if from == to {
                assert_eq!(first, Ok(vec![]), "{from} to {to}");
                assert_eq!(second, Ok(vec![]));
            } else if steps.contains(&(from, to)) {
                let Ok([OrderEvent::StatusUpdated(event)]) = first.as_deref() else {
                    panic!("{from} to {to}: {first:?}");
                };
                assert_eq!((event.from, event.to), (from, to));
                assert_eq!(event.user_id.as_str(), "shivam_99");
                assert_eq!(event.total_amount, Money::from_cents(49_950));
                assert_eq!(second, Ok(vec![]), "the second time it is already so");
            } else {
                assert_eq!(first, Err(OrderRefusal::Transition { from, to }));
                assert_eq!(second, first);
            }
        }
    }
}

#[test]
fn an_order_is_deleted_once_and_not_after_it_was_sent() {
    for status in OrderStatus::ALL {
        let (first, second) = decide_twice(&order::standing(status), &order::delete());
        if matches!(status, OrderStatus::Shipped | OrderStatus::Delivered) {
            assert_eq!(first, Err(OrderRefusal::NotDeletable { status }));
            assert_eq!(second, first);
        } else {
            let Ok([OrderEvent::Deleted(event)]) = first.as_deref() else {
                panic!("{status}: {first:?}");
            };
            assert_eq!(event.status, status);
            assert_eq!(second, Ok(vec![]), "the second time it is already so");
        }
    }
}

#[test]
fn nothing_happens_to_an_order_that_is_not_there_or_was_deleted() {
    let change = order::become_(OrderStatus::Confirmed);
    for (given, command, refusal) in [
        (Order::default(), &change, OrderRefusal::NotFound),
        (Order::default(), &order::delete(), OrderRefusal::NotFound),
        (order::deleted(), &change, OrderRefusal::Deleted),
    ] {
        let (first, second) = decide_twice(&given, command);
        assert_eq!(first, Err(refusal));
        assert_eq!(second, first);
    }
}

#[test]
fn a_deleted_order_keeps_what_is_known_about_it() {
    let order = order::deleted();
    assert!(order.is_deleted());
    let details = order.details().unwrap();
    assert_eq!(details.status, OrderStatus::Pending);
    assert_eq!(details.updated_at, order::at(2));
}

#[test]
fn a_state_comes_back_from_its_snapshot() {
    for state in [Order::default(), order::pending(), order::deleted()] {
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<Order>(&json).unwrap(), state);
    }
}

#[test]
fn a_total_is_above_nothing_and_at_most_what_the_column_takes() {
    let of = |cents| Total::of_amount(Money::from_cents(cents)).map(|total| total.amount());
    assert_eq!(of(1), Ok(Money::from_cents(1)));
    assert_eq!(of(9_999_999_999), Ok(MAX_TOTAL_AMOUNT));
    assert_eq!(of(0), Err(InvalidTotal::NotPositive));
    assert_eq!(of(-1), Err(InvalidTotal::NotPositive));
    assert_eq!(of(10_000_000_000), Err(InvalidTotal::TooLarge));
}

#[test]
fn items_and_total_agree() {
    let line = |quantity, cents| OrderItem {
        description: String::new(),
        quantity,
        unit_price: Money::from_cents(cents),
    };
    let items = Items::new(vec![line(3, 10), line(1, 5)]).unwrap();
    let agreed = Total::of_both(items.clone(), Money::from_cents(35)).unwrap();
    assert_eq!(agreed, Total::of_items(items.clone()));
    let items_sum = Money::from_cents(35);
    assert_eq!(
        Total::of_both(items, Money::from_cents(36)),
        Err(InvalidTotal::Disagrees { items: items_sum })
    );
    assert_eq!(Items::new(vec![]), Err(InvalidItems::Empty));
    let many = vec![line(1, 1); MAX_ITEMS + 1];
    assert_eq!(Items::new(many), Err(InvalidItems::TooMany));
    let free = Items::new(vec![line(1, 0)]);
    assert_eq!(free, Err(InvalidItems::Sum(InvalidTotal::NotPositive)));
    let dear = Items::new(vec![line(MAX_QUANTITY, 9_999_999_999); MAX_ITEMS]);
    assert_eq!(dear, Err(InvalidItems::Sum(InvalidTotal::TooLarge)));
}

#[test]
fn quantities_are_bounded() {
    assert!(Quantity::new(1).is_ok());
    assert!(Quantity::new(MAX_QUANTITY).is_ok());
    assert!(Quantity::new(0).is_err());
    assert!(Quantity::new(MAX_QUANTITY + 1).is_err());
}

#[test]
fn a_status_is_read_as_it_is_written() {
    for status in OrderStatus::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
        assert_eq!(
            serde_json::to_value(status).unwrap(),
            serde_json::json!(status.as_str())
        );
    }
    assert_eq!("pending".parse::<OrderStatus>(), Err(InvalidStatus));
}

#[test]
fn an_event_knows_its_order() {
    let events = order::standing(OrderStatus::Pending)
        .decide(&order::delete())
        .unwrap();
    assert_eq!(events[0].order_id().as_str(), "o-1");
    assert_eq!(events[0].event_type(), stored::ORDER_DELETED);
}
