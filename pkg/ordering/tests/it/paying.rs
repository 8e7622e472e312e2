//! Orders that are paid from an account: the saga on a real log, under every fault at every step, and
//! what a client sees of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::StatusCode;
use millrace_es::Metadata;
use millrace_eventlog::{Answer, EventLog, Execute, Outcome, Repository, RepositoryOptions};
use millrace_kernel::{EntityId, Timestamp};
use millrace_ordering::{
    Payments,
    order::{AccountId, CreateOrder, Order, OrderCommand, OrderId, OrderStatus, Total, UserId},
    sagas::payment::{
        Payment, PaymentPort, PaymentStatus, begin_beside, payments, stored::PAYMENT_REQUESTED,
    },
};
use millrace_sagas::{
    Port, Schedule, Standing, Timer, TimerOptions,
    testing::{World, fault_at_every_step, many_pumps_at_once},
};
use millrace_testkit::{Reply, eventually};
use millrace_teststage::{PATIENCE, Tasks};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    model_bank::{ModelBank, Withdrawals},
    system::{Store, System, context},
};

/// What an order of these tests costs.
const PRICE: &str = "40.00";

/// What somebody does to the order while it is paid.
#[derive(Debug, Clone, Copy)]
enum Change {
    Nothing,
    Cancel,
    Delete,
}

/// One order with its bank; the log is shared.
struct Shop {
    log: Arc<dyn EventLog>,
    pool: PgPool,
    table: Payments,
    bank: Arc<ModelBank>,
    before: String,
    id: EntityId,
    change: Change,
}

fn nothing(_: Outcome<'_, Order>) -> Answer {
    Answer {
        status: 204,
        headers: Vec::new(),
        body: Vec::new().into(),
    }
}

fn execute(id: &EntityId, command: OrderCommand) -> Execute<'_, Order> {
    Execute {
        id,
        command,
        if_match: None,
        metadata: Metadata::default(),
        key: None,
        new: false,
    }
}

impl Shop {
    async fn open(store: &Store, balance: &str, how: Withdrawals, change: Change) -> Self {
        let shop = Self::of(store, balance, how, change);
        let beside = |outcome: Outcome<'_, Order>| match outcome {
            Outcome::Done { events, .. } => begin_beside(events, &Arc::default()),
            Outcome::Refused { .. } => Ok(Vec::new()),
        };
        shop.orders()
            .execute_beside(execute(&shop.id, shop.wanted()), beside, nothing)
            .await
            .unwrap();
        shop
    }

    fn of(store: &Store, balance: &str, how: Withdrawals, change: Change) -> Self {
        static ORDERS: AtomicU32 = AtomicU32::new(0);
        let id = format!("o-{}", ORDERS.fetch_add(1, Ordering::SeqCst));
        Self {
            log: store.log.clone(),
            pool: store.database.pool.clone(),
            table: Payments::new(store.database.pool.clone()),
            bank: Arc::new(ModelBank::holding(balance, how)),
            before: balance.to_owned(),
            id: EntityId::new(id).unwrap(),
            change,
        }
    }

    fn wanted(&self) -> OrderCommand {
        OrderCommand::Create(Box::new(CreateOrder {
            order_id: OrderId::new(self.id.clone()),
            user_id: UserId::new(EntityId::new("u-1").unwrap()),
            total: Total::of_amount(PRICE.parse().unwrap()).unwrap(),
            shipping_address: None,
            notes: None,
            payment_account_id: Some(AccountId::new(EntityId::new("acc-1").unwrap())),
            description: None,
            purchase_dt: None,
            at: Timestamp::now(),
        }))
    }

    fn orders(&self) -> Repository<Order> {
        Repository::new(Arc::clone(&self.log), RepositoryOptions::default())
    }

    async fn do_to_order(&self, command: OrderCommand) {
        let orders = self.orders();
        orders
            .execute(execute(&self.id, command), nothing)
            .await
            .unwrap();
    }
}

#[async_trait]
impl World<Payment> for Shop {
    fn id(&self) -> EntityId {
        self.id.clone()
    }

    fn sagas(&self) -> Arc<Repository<Payment>> {
        let log = Arc::clone(&self.log);
        Arc::new(Repository::new(log, RepositoryOptions::default()))
    }

    fn port(&self) -> Arc<dyn Port<Payment>> {
        let bank = Arc::clone(&self.bank);
        let orders = Arc::new(self.orders());
        Arc::new(PaymentPort::new(orders, self.sagas(), bank))
    }

    async fn is_due(&self) -> bool {
        let due = "SELECT due_at IS NOT NULL FROM ordering.payments WHERE order_id = $1";
        sqlx::query_scalar(due)
            .bind(self.id.as_str())
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn change(&self) {
        let at = Timestamp::now();
        match self.change {
            Change::Nothing => {}
            Change::Cancel => {
                let (to, reason) = (OrderStatus::Cancelled, None);
                self.do_to_order(OrderCommand::UpdateStatus { to, reason, at })
                    .await;
            }
            Change::Delete => self.do_to_order(OrderCommand::Delete { at }).await,
        }
    }

    /// Money is conserved, paid is confirmed and nothing else is, and the table says so.
    async fn check(&self, what: &str) {
        let (payment, version) = self.sagas().load(&self.id).await.unwrap();
        let (order, _) = self.orders().load(&self.id).await.unwrap();
        let status = payment.status().unwrap();
        let book = (self.bank.balance(), self.bank.moves());
        let kept = self.before.clone();
        let what = format!("{what}: {status}, {order:?}, {book:?}");
        let standing = order.details().unwrap().status;
        match status {
            PaymentStatus::Paid => {
                let left = self.before.parse::<millrace_kernel::Money>().unwrap();
                let left = left.checked_sub(PRICE.parse().unwrap()).unwrap();
                assert_eq!(book, (left.to_string(), 1), "{what}");
                assert!(order.is_wanted(), "{what}");
                assert_eq!(standing, OrderStatus::Confirmed, "{what}");
            }
            PaymentStatus::Refused | PaymentStatus::Voided => {
                assert_eq!(book, (kept, 0), "{what}");
                assert!(!order.is_wanted(), "{what}");
            }
            PaymentStatus::Refunded => {
                assert_eq!(book, (kept, 2), "{what}");
                assert!(!order.is_wanted(), "{what}");
            }
            PaymentStatus::Pending
            | PaymentStatus::Voiding
            | PaymentStatus::Refunding
            | PaymentStatus::RefundRefused => panic!("{what}: it hangs"),
        }
        let row = self.table.of(&OrderId::new(self.id.clone())).await.unwrap();
        let row = row.unwrap();
        assert_eq!((row.status, row.version), (status, version), "{what}");
    }
}

async fn at_every_step(balance: &str, how: Withdrawals) {
    let store = Store::start().await;
    for change in [Change::Nothing, Change::Cancel, Change::Delete] {
        fault_at_every_step(async || Shop::open(&store, balance, how, change).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_is_conserved_under_every_fault() {
    at_every_step("100.00", Withdrawals::Answered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_cancelled_under_every_fault() {
    at_every_step("39.99", Withdrawals::Answered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_withdrawn_in_silence_is_found_under_every_fault() {
    at_every_step("100.00", Withdrawals::MadeInSilence).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_withdrawn_is_voided_under_every_fault() {
    at_every_step("100.00", Withdrawals::Ignored).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pumps_pay_once() {
    let store = Store::start().await;
    for how in [Withdrawals::Answered, Withdrawals::MadeInSilence] {
        for _ in 0..5 {
            let open = async || Shop::open(&store, "100.00", how, Change::Nothing).await;
            many_pumps_at_once(6, open).await;
        }
    }
}

/// The timer of a system on a bank of its own.
struct Paying {
    timers: Tasks,
    system: System,
    bank: Arc<ModelBank>,
    table: Payments,
}

impl Paying {
    /// Two timers, as two projectors have them.
    async fn start(balance: &str, how: Withdrawals) -> Self {
        let mut paying = Self::without_timers(balance, how).await;
        let options = TimerOptions {
            poll_every: Duration::from_millis(50),
            first_pause: Duration::from_millis(20),
            max_pause: Duration::from_millis(200),
        };
        for _ in 0..2 {
            let timer = paying.timer(options);
            paying.timers.spawn(|stop| timer.run(stop));
        }
        paying
    }

    async fn without_timers(balance: &str, how: Withdrawals) -> Self {
        let system = System::start().await;
        let table = Payments::new(system.store.database.pool.clone());
        Self {
            timers: Tasks::default(),
            system,
            bank: Arc::new(ModelBank::holding(balance, how)),
            table,
        }
    }

    fn timer(&self, options: TimerOptions) -> Timer<Payment> {
        let log: Arc<dyn EventLog> = self.system.store.log.clone();
        let pump = payments(&log, self.bank.clone());
        Timer::new(pump, Arc::new(self.table.clone()), options)
    }

    async fn order(&self, id: &str) -> Reply {
        let body = json!({"id": id, "user_id": "u-1", "total_amount": PRICE,
            "payment_account_id": "acc-1"});
        let reply = self.system.post("/orders", body).await;
        reply.expect(StatusCode::CREATED)
    }

    async fn payment(&self, id: &str) -> Value {
        let reply = self.system.get(&format!("/orders/{id}/payment")).await;
        reply.expect(StatusCode::OK).body
    }

    async fn becomes(&self, id: &str, status: &str) -> Value {
        eventually(&format!("payment {status}"), PATIENCE, || async {
            let payment = self.payment(id).await;
            (payment["status"] == status).then_some(payment)
        })
        .await
    }

    async fn order_status(&self, id: &str) -> (String, bool) {
        let path = format!("/orders/{id}?consistency=strong");
        let order = self.system.get(&path).await.expect(StatusCode::OK).body;
        let status = order["status"].as_str().unwrap().to_owned();
        (status, order["is_deleted"].as_bool().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_pays_itself_and_is_refunded_when_it_is_cancelled_or_deleted() {
    let paying = Paying::start("100", Withdrawals::Answered).await;
    for (id, cancel) in [("o-1", true), ("o-2", false)] {
        paying.order(id).await;
        let paid = paying.becomes(id, "PAID").await;
        assert_eq!(paid["amount"], PRICE);
        assert_eq!(paid["account_id"], "acc-1");
        assert_eq!(paid["reason"], Value::Null);
        assert_eq!(
            paying.order_status(id).await,
            ("CONFIRMED".to_owned(), false)
        );
        assert_eq!(paying.bank.balance(), "60.00");
        if cancel {
            paying
                .system
                .become_(id, "CANCELLED")
                .await
                .expect(StatusCode::OK);
        } else {
            let deleted = paying.system.delete(&format!("/orders/{id}")).await;
            deleted.expect(StatusCode::NO_CONTENT);
        }
        paying.becomes(id, "REFUNDED").await;
        assert_eq!(paying.bank.balance(), "100.00");
    }
    let standing = paying.table.standing().await.unwrap();
    assert_eq!(standing, Standing::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_bank_is_silent_an_order_waits_and_nobody_confirms_it() {
    let paying = Paying::start("100", Withdrawals::Answered).await;
    paying.bank.set_down(true);
    paying.order("o-1").await;
    // In the append's transaction: there at once.
    let payment = paying.payment("o-1").await;
    assert_eq!(payment["status"], "PENDING");
    let refused = paying.system.become_("o-1", "CONFIRMED").await;
    assert_eq!(refused.problem(409).0, "payment-pending");
    let voiding = paying.becomes("o-1", "VOIDING").await;
    assert_eq!(paying.bank.balance(), "100.00");
    assert!(voiding["version"].as_u64().unwrap() > 5, "{voiding}");
    assert_eq!(paying.table.standing().await.unwrap().unfinished, 1);
    paying.bank.set_down(false);
    let voided = paying.becomes("o-1", "VOIDED").await;
    assert!(voided["reason"].as_str().unwrap().contains("in time"));
    assert_eq!(
        paying.order_status("o-1").await,
        ("CANCELLED".to_owned(), false)
    );
    assert_eq!(
        (paying.bank.balance().as_str(), paying.bank.moves()),
        ("100.00", 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_cancels_with_its_reason_and_an_order_without_payment_has_none() {
    let paying = Paying::start("5", Withdrawals::Answered).await;
    paying.order("o-1").await;
    let refused = paying.becomes("o-1", "REFUSED").await;
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("insufficient-funds"), "{reason}");
    assert_eq!(paying.order_status("o-1").await.0, "CANCELLED");
    let history = paying.system.get("/orders/o-1/events").await;
    let last = &history.expect(StatusCode::OK).body["items"][0];
    assert_eq!(last["type"], "order.status_updated", "{last}");

    let id = paying.system.order("u-1", "5").await;
    let none = paying.system.get(&format!("/orders/{id}/payment")).await;
    assert_eq!(none.problem(404).0, "not-found");
    let confirmed = paying.system.become_(&id, "CONFIRMED").await;
    confirmed.expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_given_back_is_said_to_be_owed() {
    let paying = Paying::start("100", Withdrawals::Answered).await;
    paying.order("o-1").await;
    paying.becomes("o-1", "PAID").await;
    paying.bank.close();
    let cancelled = paying.system.become_("o-1", "CANCELLED").await;
    cancelled.expect(StatusCode::OK);
    let owed = paying.becomes("o-1", "REFUND_REFUSED").await;
    assert!(owed["reason"].as_str().unwrap().contains("closed"));
    let left = async || paying.table.standing().await.unwrap();
    let standing = Standing {
        left_to_people: 1,
        ..Standing::default()
    };
    assert_eq!(left().await, standing);
    // As the operator's guide says.
    let settled = "UPDATE ordering.payments SET settled = 'given back in cash, Ann'
        WHERE order_id = 'o-1' AND status = 'REFUND_REFUSED'";
    let pool = &paying.system.store.database.pool;
    let settled = sqlx::query(settled).execute(pool).await.unwrap();
    assert_eq!(settled.rows_affected(), 1);
    assert_eq!(left().await, Standing::default());
}

/// A timer that looks by itself only once an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_is_looked_at_as_soon_as_it_is_published() {
    let mut paying = Paying::without_timers("100", Withdrawals::Answered).await;
    let options = TimerOptions {
        poll_every: Duration::from_secs(3600),
        ..TimerOptions::default()
    };
    let timer = paying.timer(options);
    let signals = paying.system.signals();
    let hints = signals.on_events(&context(), PAYMENT_REQUESTED).await;
    let hints = hints.unwrap();
    paying.timers.spawn(|stop| timer.run_woken_by(hints, stop));
    // The first may have been there before the timer's first look.
    for id in ["o-1", "o-2"] {
        paying.order(id).await;
        paying.becomes(id, "PAID").await;
    }
}
