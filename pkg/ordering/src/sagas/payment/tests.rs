use millrace_testkit::{StoredFormats, payload_schema};

use super::{
    stored::{
        EVENT_TYPES, PAYMENT_CALLED_OFF, PAYMENT_PAID, PAYMENT_REFUNDED, PAYMENT_REFUSED,
        PAYMENT_REQUESTED, PAYMENT_UNANSWERED, PAYMENT_VOIDED, REFUND_REFUSED,
    },
    *,
};
use crate::order::{
    AccountId,
    fixtures::{at, id, request},
};

fn requested() -> PaymentRequested {
    let mut order = request();
    order.payment_account_id = Some(AccountId::new(id("acc-1")));
    let created = crate::order::Order::default()
        .decide(&crate::order::OrderCommand::Create(Box::new(order)))
        .unwrap();
    let [OrderEvent::Created(created)] = created.as_slice() else {
        panic!("{created:?}")
    };
    payment_of(created).unwrap()
}

fn no_answer() -> News {
    let reason = "timeout".to_owned();
    News::NoAnswer { reason }
}

fn withdrawn(wanted: bool) -> News {
    News::Withdrawn { wanted }
}

fn refused() -> News {
    let reason = "no funds".to_owned();
    News::Refused { reason }
}

fn refund_refused() -> News {
    let reason = "closed".to_owned();
    News::RefundRefused { reason }
}

fn tell(payment: &Payment, news: News) -> Vec<PaymentEvent> {
    let Ok(events) = payment.decide(&PaymentCommand { at: at(5), news });
    events
}

fn begun() -> Payment {
    Payment::default().evolve(&PaymentEvent::Requested(requested()))
}

/// A payment that has begun after this news, each of which says something to it.
fn after(news: &[News]) -> Payment {
    news.iter().fold(begun(), |payment, news| {
        let events = tell(&payment, news.clone());
        assert!(!events.is_empty(), "{payment:?} has no use for {news:?}");
        events.iter().fold(payment, |payment, event| {
            let payment = payment.evolve(event);
            // The table has nothing but the event.
            assert_eq!(payment.status(), Some(event.status()));
            payment
        })
    })
}

fn gives_up() -> Vec<News> {
    (0..MAX_UNANSWERED_WITHDRAWALS)
        .map(|_| no_answer())
        .collect()
}

#[test]
fn a_payment_goes_these_ways() {
    use PaymentStatus::{
        Paid, Pending, RefundRefused, Refunded, Refunding, Refused, Voided, Voiding,
    };
    use PaymentStep::{Refund, Void, Withdraw};
    let with = |mut news: Vec<News>, more: &[News]| {
        news.extend_from_slice(more);
        news
    };
    for (news, status, next) in [
        (vec![], Pending, Some(Withdraw)),
        (vec![no_answer()], Pending, Some(Withdraw)),
        (vec![withdrawn(true)], Paid, None),
        (vec![no_answer(), withdrawn(true)], Paid, None),
        (vec![withdrawn(false)], Refunding, Some(Refund)),
        (vec![refused()], Refused, None),
        (vec![News::Voided], Voided, None),
        (vec![News::CalledOff], Voiding, Some(Void)),
        (vec![News::CalledOff, News::Voided], Voided, None),
        (vec![News::CalledOff, refused()], Refused, None),
        (
            vec![News::CalledOff, withdrawn(true)],
            Refunding,
            Some(Refund),
        ),
        (gives_up(), Voiding, Some(Void)),
        (with(gives_up(), &[News::Voided]), Voided, None),
        (with(gives_up(), &[withdrawn(true)]), Paid, None),
        (
            with(gives_up(), &[News::CalledOff, withdrawn(true)]),
            Refunding,
            Some(Refund),
        ),
        (
            vec![withdrawn(true), News::CalledOff],
            Refunding,
            Some(Refund),
        ),
        (vec![withdrawn(false), News::Refunded], Refunded, None),
        (
            vec![withdrawn(false), refund_refused()],
            RefundRefused,
            None,
        ),
    ] {
        let payment = after(&news);
        assert_eq!(payment.status(), Some(status), "{news:?}");
        assert_eq!(payment.next(), next, "{news:?}");
        assert_eq!(status.is_unfinished(), next.is_some(), "{news:?}");
    }
}

#[test]
fn news_that_come_twice_or_too_late_change_nothing() {
    let paid = after(&[withdrawn(true)]);
    for news in [no_answer(), withdrawn(false), refused(), News::Voided] {
        assert_eq!(tell(&paid, news), []);
    }
    let all = [
        no_answer(),
        News::CalledOff,
        withdrawn(true),
        refused(),
        News::Voided,
        News::Refunded,
        refund_refused(),
    ];
    for ended in [
        after(&[refused()]),
        after(&[News::Voided]),
        after(&[withdrawn(false), News::Refunded]),
        after(&[withdrawn(false), refund_refused()]),
    ] {
        for news in &all {
            assert_eq!(tell(&ended, news.clone()), [], "{ended:?} {news:?}");
        }
    }
    for news in &all {
        assert_eq!(tell(&Payment::Absent, news.clone()), []);
    }
}

#[test]
fn the_same_order_is_always_paid_under_the_same_id() {
    let payment = requested();
    // Stored: another derivation would pay orders a second time.
    assert_eq!(
        payment.transaction_id.as_str(),
        "2b6927da-fd97-577f-81ba-083f903fc23a"
    );
    assert_ne!(payment.transaction_id, payment.refund_transaction_id);
}

fn formats() -> StoredFormats {
    StoredFormats {
        folder: concat!(env!("CARGO_MANIFEST_DIR"), "/payment"),
        versions: [
            ((PAYMENT_REQUESTED, 1), payload_schema::<PaymentRequested>()),
            (
                (PAYMENT_UNANSWERED, 1),
                payload_schema::<WithdrawalUnanswered>(),
            ),
            (
                (PAYMENT_CALLED_OFF, 1),
                payload_schema::<PaymentCalledOff>(),
            ),
            ((PAYMENT_PAID, 1), payload_schema::<PaymentPaid>()),
            ((PAYMENT_REFUSED, 1), payload_schema::<PaymentRefused>()),
            ((PAYMENT_VOIDED, 1), payload_schema::<PaymentVoided>()),
            ((PAYMENT_REFUNDED, 1), payload_schema::<PaymentRefunded>()),
            ((REFUND_REFUSED, 1), payload_schema::<RefundRefused>()),
        ]
        .into(),
        written: EVENT_TYPES.to_vec(),
        renamed: Vec::new(),
    }
}

#[test]
fn schemas_are_committed_and_change_compatibly() {
    formats().check_schemas();
}

#[test]
fn every_version_is_known_and_the_newest_is_written() {
    formats().check_versions();
}

#[test]
fn what_every_version_wrote_decodes() {
    formats().check_golden::<PaymentEvent>();
}

#[test]
fn what_a_newer_release_wrote_is_never_called_malformed() {
    formats().check_refusals::<PaymentEvent>();
}
