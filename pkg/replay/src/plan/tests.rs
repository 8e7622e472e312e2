//! The plan as a table: a replay, what is known of it, and the step that follows.

mod scenes;

use scenes::*;

use super::*;
use crate::resource::{DEFAULT_EVENTS_PER_SECOND, VerifyMode};
use crate::status::{RedriveStatus, VerificationStatus};
use crate::world::{RedriveState, RedriveView, WorkView};

/// What a table compares: the name of the step, and the little that tells steps of a kind apart.
fn named(step: &Step) -> String {
    match step {
        Step::Wait { phase, .. } => format!("wait {}", phase.as_str()),
        Step::Run(task) => format!("run {task:?}"),
        Step::Take(task, _) => format!("take {task:?}"),
        Step::Work { hold } => format!("work hold={hold}"),
        Step::SetPace(pace) => format!("pace suspended={}", pace.suspended),
        Step::Queue { position, .. } => format!("queue {position}"),
        Step::CountFailure { for_good, .. } => format!("count for_good={for_good}"),
        Step::End(Ending::Succeeded { reason, .. }) => format!("end {reason}"),
        Step::End(Ending::Failed { reason, .. }) => format!("fail {reason}"),
        Step::End(Ending::Cancelled) => "end Cancelled".to_owned(),
        step => format!("{step:?}")
            .split([' ', '('])
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}

/// Each row: a case, what was asked, what is known, what was found, and the step that follows.
macro_rules! table {
    ($($case:literal: $spec:expr, $status:expr, $world:expr => $expected:literal;)+) => {
        $(assert_eq!(named(&next(&$spec, &$status, &$world)), $expected, $case);)+
    };
}

#[test]
fn a_rebuild_goes_from_its_beginning_to_its_end() {
    let fresh = ReplayStatus::default;
    let unheld = World {
        held: false,
        ..world()
    };
    let finishing = World {
        task: TaskView::Running(Task::Finish),
        ..loaded()
    };
    let finished = World {
        task: TaskView::Ended(Task::Finish, TaskEnd::Finished),
        ..candidate(9)
    };
    let verifying = World {
        task: TaskView::Running(Task::Verify),
        ..candidate(0)
    };
    let compared = World {
        task: TaskView::Ended(
            Task::Verify,
            TaskEnd::Verified(VerificationStatus::default()),
        ),
        ..candidate(0)
    };
    let late_workers = World {
        work: WorkView::Running,
        ..candidate(0)
    };
    let unverified = with(|s| s.rebuild.as_mut().unwrap().verify.mode = VerifyMode::None);
    table! {
        "new": rebuild(), fresh(), unheld => "Hold";
        "held": rebuild(), fresh(), world() => "Outline";
        "valid": rebuild(), validated(), world() => "RaiseFlag";
        "about to": rebuild(), raised(), world() => "Start";
        "started": rebuild(), started(), world() => "Begin";
        "begun": rebuild(), started(), loading(WorkView::Absent) => "work hold=false";
        "worked on": rebuild(), started(), loading(WorkView::Running) => "wait Loading";
        "by itself": rebuild(), started(), loading(WorkView::ByItself) => "wait Loading";
        "loaded": rebuild(), started(), loaded() => "run Finish";
        "finishing": rebuild(), started(), finishing => "wait Finishing";
        "finished": rebuild(), started(), finished => "take Finish";
        "workers linger": rebuild(), started(), late_workers => "StopWork";
        "behind": rebuild(), started(), candidate(1_001) => "wait CatchingUp";
        "current": rebuild(), started(), candidate(1_000) => "CaughtUp";
        "to be compared": rebuild(), caught_up(), candidate(0) => "run Verify";
        "not to be compared": unverified, caught_up(), candidate(0) => "AnnounceCutover";
        "comparing": rebuild(), caught_up(), verifying => "wait Verifying";
        "compared": rebuild(), caught_up(), compared => "take Verify";
        "verified": rebuild(), verified(0), candidate(0) => "AnnounceCutover";
        "behind again": rebuild(), verified(0), candidate(1_001) => "wait CatchingUp";
        "announced": rebuild(), cutting_over(1), candidate(0) => "Switch";
        "announced, behind": rebuild(), cutting_over(1), candidate(9_999) => "Switch";
        "switched, unwritten": rebuild(), cutting_over(1), filling(Stage::Active) => "Switch";
        "switched": rebuild(), switched_status(), filling(Stage::Active) => "end Succeeded";
        "switched away": rebuild(), cutting_over(1), filling(Stage::Retained) => "end Succeeded";
    }
}

#[test]
fn a_manual_switch_waits_for_approval() {
    table! {
        "not yet": manual(false), verified(0), candidate(0) => "wait AwaitingApproval";
        "approved": manual(true), verified(0), candidate(0) => "AnnounceCutover";
        "approved early": manual(true), caught_up(), candidate(0) => "run Verify";
    }
}

#[test]
fn a_cancelled_rebuild_drops_what_it_made_and_ends() {
    let busy = World {
        task: TaskView::Running(Task::Verify),
        ..candidate(0)
    };
    table! {
        "before its turn": cancelled(), validated(), world() => "end Cancelled";
        "in the queue": cancelled(), validated(), rival(true, true) => "end Cancelled";
        "before it began": cancelled(), started(), world() => "end Cancelled";
        "worked on": cancelled(), started(), loading(WorkView::Running) => "StopWork";
        "held": cancelled(), started(), loading(WorkView::Held) => "StopWork";
        "work ended": cancelled(), started(), loading(WorkView::Complete) => "StopWork";
        "without work": cancelled(), started(), loading(WorkView::Absent) => "Discard";
        "by itself": cancelled(), started(), loading(WorkView::ByItself) => "Discard";
        "loaded": cancelled(), started(), loaded() => "Discard";
        "current": cancelled(), caught_up(), candidate(0) => "Discard";
        "comparing": cancelled(), caught_up(), busy => "StopTask";
        "verified": cancelled(), verified(0), candidate(0) => "Discard";
        "dropped": cancelled(), verified(0), world() => "end Cancelled";
    }
}

#[test]
fn nothing_cancels_a_switch_that_has_begun() {
    let due = with(|spec| {
        spec.cancel = true;
        spec.suspend = true;
        spec.active_deadline_seconds = Some(1);
    });
    table! {
        "announced": due.clone(), cutting_over(1), candidate(0) => "Switch";
        "being deleted": due.clone(), cutting_over(1), deleting(candidate(0)) => "Switch";
        "happened": due.clone(), cutting_over(999), filling(Stage::Active) => "Switch";
        "written": due, switched_status(), filling(Stage::Active) => "end Succeeded";
    }
}

#[test]
fn a_switch_that_does_not_happen_in_time_is_given_up() {
    table! {
        "in time": rebuild(), cutting_over(299), candidate(9) => "Switch";
        "too late": rebuild(), cutting_over(300), candidate(9) => "Discard";
        "too late and dropped": rebuild(), cutting_over(300), world() => "fail CutoverTimeout";
        "too late, but it happened": rebuild(), cutting_over(300), filling(Stage::Active) => "Switch";
    }
}

#[test]
fn a_suspended_rebuild_stands_still_wherever_it_is() {
    let held = suspended_view(loading(WorkView::Held));
    let comparing = World {
        task: TaskView::Running(Task::Verify),
        ..candidate(0)
    };
    table! {
        "before its turn": suspended(), validated(), world() => "wait Suspended";
        "before it began": suspended(), started(), world() => "wait Suspended";
        "worked on": suspended(), started(), loading(WorkView::Running) => "pace suspended=true";
        "slowed": suspended(), started(), suspended_view(loading(WorkView::Running)) => "work hold=true";
        "held": suspended(), started(), held.clone() => "wait Suspended";
        "nobody works": suspended(), started(), suspended_view(loading(WorkView::Absent)) => "wait Suspended";
        "by itself": suspended(), started(), suspended_view(loading(WorkView::ByItself)) => "wait Suspended";
        "loaded": suspended(), started(), suspended_view(loaded()) => "wait Suspended";
        "current": suspended(), started(), candidate(0) => "wait Suspended";
        "comparing": suspended(), caught_up(), comparing => "StopTask";
        "verified": suspended(), verified(0), candidate(0) => "wait Suspended";
        "resumed": rebuild(), started(), held => "pace suspended=false";
        "resumed, held": rebuild(), started(), loading(WorkView::Held) => "work hold=false";
    }
}

#[test]
fn a_throttle_changes_while_it_runs() {
    let mut world = loading(WorkView::Running);
    let throttled = with(|spec| {
        spec.throttle.get_or_insert_default().max_events_per_second = Some(10);
    });
    let step = next(&throttled, &started(), &world);
    let wanted = Pace {
        max_events_per_second: Some(10),
        suspended: false,
    };
    assert_eq!(step, Step::SetPace(wanted));
    // Who says nothing leaves others theirs; who says 0 takes what there is.
    let most = |spec: &ReplaySpec| rebuild_pace(spec).max_events_per_second;
    assert_eq!(most(&rebuild()), Some(DEFAULT_EVENTS_PER_SECOND));
    let free = with(|spec| spec.throttle.get_or_insert_default().max_events_per_second = Some(0));
    assert_eq!(most(&free), None);
    world.rebuild.as_mut().unwrap().pace = wanted;
    assert_eq!(named(&next(&throttled, &started(), &world)), "wait Loading");
}

#[test]
fn work_that_fails_is_counted_and_ends_the_replay_at_the_limit() {
    let failed = loading(WorkView::Failed {
        message: "no".to_owned(),
    });
    let attempts = |attempts| ReplayStatus {
        attempts,
        ..started()
    };
    table! {
        "gave up": rebuild(), started(), failed.clone() => "count for_good=true";
        "ended early": rebuild(), started(), loading(WorkView::Complete) => "count for_good=false";
        "at the limit": rebuild(), attempts(6), loading(WorkView::Running) => "wait Loading";
        "beyond, with work": rebuild(), attempts(7), failed => "StopWork";
        "beyond, with rows": rebuild(), attempts(7), loading(WorkView::Absent) => "Discard";
        "beyond": rebuild(), attempts(7), world() => "fail BackoffLimitExceeded";
    }
}

#[test]
fn a_deadline_counts_from_the_start_or_from_the_last_resume() {
    let due = |seconds| with(|spec| spec.active_deadline_seconds = Some(seconds));
    let mut held = due(100);
    held.suspend = true;
    let mut resumed = started();
    resumed
        .conditions
        .push(condition(SUSPENDED, "False", "Resumed", 30));
    let held_work = suspended_view(loading(WorkView::Held));
    table! {
        "in time": due(101), started(), loading(WorkView::Running) => "wait Loading";
        "late, with work": due(100), started(), loading(WorkView::Running) => "StopWork";
        "late, with rows": due(100), started(), candidate(0) => "Discard";
        "late": due(100), started(), world() => "fail DeadlineExceeded";
        "suspended": held, started(), held_work => "wait Suspended";
        "resumed lately": due(31), resumed.clone(), loading(WorkView::Running) => "wait Loading";
        "resumed long ago": due(30), resumed, world() => "fail DeadlineExceeded";
        "not started": due(1), validated(), world() => "RaiseFlag";
    }
}

#[test]
fn too_many_differences_stop_the_switch() {
    let lenient = with(|spec| spec.rebuild.as_mut().unwrap().verify.max_mismatches = 3);
    table! {
        "with rows": rebuild(), verified(1), candidate(0) => "Discard";
        "dropped": rebuild(), verified(1), world() => "fail VerificationFailed";
        "within": lenient.clone(), verified(3), candidate(0) => "AnnounceCutover";
        "beyond": lenient, verified(4), candidate(0) => "Discard";
    }
}

#[test]
fn one_replay_works_on_a_projection_and_the_others_wait() {
    let failing = with(|spec| spec.on_conflict = OnConflict::Fail);
    let begun = World {
        rivals: rival(true, true).rivals,
        ..loading(WorkView::Running)
    };
    let mut two = rival(true, true);
    two.rivals.push(Rival {
        name: "third".to_owned(),
        before: true,
        raised: false,
    });
    table! {
        "an older one waits": rebuild(), validated(), rival(true, false) => "queue 1";
        "a younger one is first": rebuild(), validated(), rival(false, true) => "queue 1";
        "two": rebuild(), validated(), two => "queue 2";
        "a younger one waits": rebuild(), validated(), rival(false, false) => "RaiseFlag";
        "both raised, younger": rebuild(), raised(), rival(true, true) => "queue 1";
        "both raised, older": rebuild(), raised(), rival(false, true) => "queue 0";
        "raised, an older one waits": rebuild(), raised(), rival(true, false) => "Start";
        "raised, then suspended": suspended(), raised(), world() => "wait Suspended";
        "taken": rebuild(), started(), rival(true, true) => "Begin";
        "begun": rebuild(), started(), begun => "wait Loading";
        "fails": failing.clone(), validated(), rival(true, false) => "fail Conflict";
        "fails late": failing.clone(), raised(), rival(false, true) => "fail Conflict";
        "fails no more": failing.clone(), started(), rival(true, true) => "Begin";
        "does not fail": failing, validated(), rival(false, false) => "RaiseFlag";
    }
}

#[test]
fn what_cannot_be_done_fails_and_what_is_only_asked_ends() {
    let dry = with(|spec| spec.dry_run = true);
    let mut dry_cancelled = dry.clone();
    dry_cancelled.cancel = true;
    let mut refused = started();
    refused.conditions = vec![condition(VALIDATED, "False", "UnknownProjection", 1)];
    let mut bare = rebuild();
    bare.rebuild = None;
    let unheld = || World {
        held: false,
        ..world()
    };
    table! {
        "no body": bare, ReplayStatus::default(), world() => "fail InvalidSpec";
        "refused": rebuild(), refused.clone(), world() => "fail UnknownProjection";
        "refused, with rows": rebuild(), refused.clone(), candidate(0) => "Discard";
        "dry, new": dry.clone(), ReplayStatus::default(), unheld() => "Outline";
        "dry, beside others": dry.clone(), validated(), rival(true, true) => "end Planned";
        "dry, done": dry.clone(), validated(), unheld() => "end Planned";
        "dry, refused": dry, refused, unheld() => "fail UnknownProjection";
        "dry, cancelled": dry_cancelled, ReplayStatus::default(), unheld() => "end Cancelled";
    }
}

#[test]
fn a_deleted_replay_leaves_nothing_behind() {
    let run = World {
        redrive: Some(RedriveView {
            counts: RedriveStatus::default(),
            state: RedriveState::Running,
        }),
        ..world()
    };
    let redrive = ReplaySpec::redrive("orders");
    table! {
        "new": rebuild(), ReplayStatus::default(), deleting(world()) => "Release";
        "queued": rebuild(), validated(), deleting(rival(true, true)) => "Release";
        "worked on": rebuild(), started(), deleting(loading(WorkView::Running)) => "StopWork";
        "with rows": rebuild(), verified(0), deleting(candidate(0)) => "Discard";
        "dropped": rebuild(), verified(0), deleting(world()) => "Release";
        "redriving": redrive, started(), deleting(run) => "CancelRedrive";
        "done": rebuild(), ended("Succeeded"), deleting(filling(Stage::Active)) => "DropPrevious";
        "failed": rebuild(), ended("Failed"), deleting(world()) => "Release";
    }
}

#[test]
fn what_ended_drops_the_previous_generation_and_goes_in_time() {
    let ttl = |seconds| with(|spec| spec.ttl_seconds_after_finished = Some(seconds));
    let retained = |until| {
        let mut status = ended("Succeeded");
        let generations = status.generations.as_mut().unwrap();
        generations.previous_retained_until = Some(at(until));
        status
    };
    let dropped = || {
        let mut status = ended("Succeeded");
        status.generations.as_mut().unwrap().previous = None;
        status
    };
    let active = || filling(Stage::Active);
    table! {
        "kept": rebuild(), retained(-1), active() => "wait Succeeded";
        "kept, ttl over": ttl(1), retained(-1), active() => "wait Succeeded";
        "its time has come": rebuild(), retained(0), active() => "DropPrevious";
        "dropped": rebuild(), dropped(), active() => "wait Succeeded";
        "ttl": ttl(11), dropped(), active() => "wait Succeeded";
        "ttl over": ttl(10), dropped(), active() => "Remove";
        "failed, ttl over": ttl(1), ended("Failed"), world() => "wait Failed";
        "cancelled, ttl over": ttl(1), ended("Cancelled"), world() => "wait Cancelled";
        "failed, but left rows": rebuild(), ended("Failed"), candidate(0) => "Discard";
    }
}

#[test]
fn a_wait_ends_when_something_is_due() {
    let mut status = ended("Succeeded");
    status.generations.as_mut().unwrap().previous_retained_until = Some(at(-20));
    let step = next(&rebuild(), &status, &filling(Stage::Active));
    let expected = Step::Wait {
        phase: Phase::Succeeded,
        at_most: Duration::from_secs(20),
    };
    assert_eq!(step, expected);
}

#[test]
fn a_redrive_takes_letters_until_none_is_left() {
    let spec = ReplaySpec::redrive("orders");
    let mut held = spec.clone();
    held.suspend = true;
    let mut cancelled = spec.clone();
    cancelled.cancel = true;
    let run = |state| World {
        redrive: Some(RedriveView {
            counts: RedriveStatus::default(),
            state,
        }),
        ..world()
    };
    table! {
        "valid": spec.clone(), validated(), world() => "RaiseFlag";
        "started": spec.clone(), started(), world() => "BeginRedrive";
        "queued": spec.clone(), validated(), rival(true, true) => "queue 1";
        "running": spec.clone(), started(), run(RedriveState::Running) => "AdvanceRedrive";
        "suspended": held, started(), run(RedriveState::Running) => "wait Suspended";
        "cancelled": cancelled, started(), run(RedriveState::Running) => "CancelRedrive";
        "was cancelled": spec.clone(), started(), run(RedriveState::Cancelled) => "end Cancelled";
        "stopped": spec.clone(), started(), run(RedriveState::Stopped) => "fail LetterFailed";
        "done": spec, started(), run(RedriveState::Done) => "end Succeeded";
    }
}

#[test]
fn a_rollback_announces_and_switches() {
    let spec = ReplaySpec::rollback("orders", "g1");
    let live = |name: &str| World {
        live: Some(name.to_owned()),
        ..world()
    };
    let queued = World {
        rivals: rival(true, true).rivals,
        ..live("g2")
    };
    let mut held = spec.clone();
    held.suspend = true;
    table! {
        "valid": spec.clone(), raised(), live("g2") => "Start";
        "queued": spec.clone(), validated(), queued => "queue 1";
        "suspended": held, started(), live("g2") => "wait Suspended";
        "started": spec.clone(), started(), live("g2") => "AnnounceCutover";
        "announced": spec.clone(), cutting_over(1), live("g2") => "RollBack";
        "happened, unwritten": spec.clone(), cutting_over(1), live("g1") => "RollBack";
        "written": spec.clone(), switched_status(), live("g1") => "end Succeeded";
        "nothing to do": spec.clone(), validated(), live("g1") => "end AlreadyActive";
        "too late": spec, cutting_over(300), live("g2") => "fail CutoverTimeout";
    }
}
