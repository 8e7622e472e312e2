//! The suite of every backend as tests: each check on a store of its own.

/// Runs every check of the suite on what the expression gives, which is a future of a backend.
macro_rules! conformance {
    ($backend:expr) => {
        conformance! { $backend =>
            a_halted_log_takes_nothing_until_it_is_resumed,
            a_lost_tail_is_taken_back,
            a_new_epoch_begins_at_the_head,
            a_tail_that_does_not_continue_is_refused,
            a_storm_of_writers_and_cuts_loses_and_doubles_nothing,
            a_writer_cut_at_any_step_loses_and_doubles_nothing,
            a_decision_on_an_append_that_failed_is_refused,
            a_key_is_taken_once,
            a_name_is_held_once,
            a_newer_snapshot_stays,
            a_version_is_won_once,
            an_append_without_events_asserts,
            each_append_of_a_batch_has_its_own_verdict,
            impossible_appends_are_refused,
            processes_append_side_by_side,
            several_streams_move_together_or_not_at_all,
            what_is_beside_is_appended_once_under_a_key,
            what_is_beside_is_decided_again_with_its_aggregate,
            what_is_beside_rides_in_the_same_append,
        }
    };
    ($backend:expr => $($check:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            millrace_eventlog::conformance::$check(&$backend.await).await;
        })*

        #[test]
        fn every_check_is_run() {
            let mut run = [$(stringify!($check)),*];
            let mut all = millrace_eventlog::conformance::CHECKS;
            run.sort_unstable();
            all.sort_unstable();
            assert_eq!(run, all);
        }
    };
}

pub(crate) use conformance;
