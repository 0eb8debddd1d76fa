"""Which test notices the absence of a safeguard that a few seeds do not miss."""

from __future__ import annotations

# Noticed by these tests; the cluster needs more seeds than a run has, or none can tell.
_DIVERGENCE = "tests/broker/replication/test_divergence.py"
_BELOW_MIN_ISR = "test_the_high_watermark_stands_still_below_min_isr"
_FAULTS = "tests/broker/log/test_faults.py"
_FAILED_SYNC = "test_after_a_failed_sync_nothing_more_is_stable_and_the_directory_is_offline"
_CONTROLLER = "tests/controller/control/test_controller.py"
_RECOVERY = "tests/controller/control/test_recovery.py"
_WRITERS = "tests/broker/replication/test_writers.py"
_EARLIER_LIFE = "test_what_an_earlier_life_of_a_broker_says_does_not_count"
_MINIMUM = "tests/controller/control/test_minimum.py"
_PRODUCER = "tests/client/producer/test_producer.py"
_COMPARES = "test_alter_partition_compares_and_sets"
BY_TESTS = {
    "acks=all needs min.insync.replicas": f"{_DIVERGENCE}::{_BELOW_MIN_ISR}",
    "the high watermark stands still below min.insync.replicas": (
        f"{_DIVERGENCE}::{_BELOW_MIN_ISR}"
    ),
    "a refused ISR is forgotten only where it was certainly not done": (
        f"{_DIVERGENCE}::test_an_expansion_in_doubt_counts_for_the_high_watermark[refused]"
    ),
    "flush.messages=1 syncs before it acknowledges": f"{_FAULTS}::{_FAILED_SYNC}",
    "nothing is acknowledged after a failed write": f"{_FAULTS}::{_FAILED_SYNC}",
    "a batch out of sequence is refused": (
        "tests/broker/log/test_cores.py::test_a_retry_of_one_of_the_last_five_batches_is_known"
    ),
    "an ISR change is a compare-and-set": f"{_CONTROLLER}::{_COMPARES}",
    "a fenced broker may not join the ISR (KIP-841)": f"{_CONTROLLER}::{_COMPARES}",
    "a raise of min.insync.replicas refuses ISR changes in flight": (
        f"{_MINIMUM}::test_a_minimum_that_was_lowered_and_raised_again_is_not_passed_over"
    ),
    "a lower min.insync.replicas ends who is eligible by the old one": (
        f"{_CONTROLLER}::test_a_lower_minimum_ends_the_eligibility_of_those_that_left[yes]"
    ),
    "a leader asks for nothing while its metadata are behind an answer": (
        f"{_MINIMUM}::test_a_move_to_more_replicas_raises_what_is_needed"
        "_and_its_answer_is_not_built_upon"
    ),
    "a broker takes a minimum before the ISR that comes with it": (
        "tests/broker/replication/test_minimum.py::"
        "test_a_raise_counts_for_the_isr_that_comes_with_it[yes]"
    ),
    "a controller gives leases only while it has one": (
        "tests/simulation/cluster/test_leases.py::"
        "test_a_controller_that_may_have_been_replaced_gives_no_lease"
    ),
    "a broker does not take up what it led before its restart": (
        "tests/simulation/cluster/test_scripted.py::"
        "test_a_restarted_leader_that_lost_its_end_does_not_lead_before_it_has_registered"
    ),
    "no lease beyond a proposed fence": (
        f"{_CONTROLLER}::test_no_lease_before_the_broker_knows_whom_its_fence_made_leader"
    ),
    "only ISR and ELR may lead": f"{_CONTROLLER}::test_lost_page_cache_leaves_isr_and_elr",
    "a new controller waits for the leases of the old one": (
        f"{_CONTROLLER}::test_take_over_drops_the_speculative_tip_and_grants_grace"
    ),
    "a host that lost its page cache leaves ISR and ELR": (
        f"{_CONTROLLER}::test_lost_page_cache_leaves_isr_and_elr"
    ),
    "a new, empty disk does not lead where another may hold what was acknowledged": (
        "tests/controller/control/test_last_known.py::"
        "test_a_new_disk_does_not_lead_where_another_kept_what_was_acknowledged"
    ),
    "the best log leads where nobody is trusted (KIP-966)": (
        f"{_RECOVERY}::test_the_longest_log_leads_and_not_the_last_known"
    ),
    "who may hold more than the last known is waited for": (
        f"{_RECOVERY}::test_who_left_cleanly_and_is_remembered_by_nobody_leads"
    ),
    "a log end counts in the life in which it was told": (
        f"{_RECOVERY}::test_an_answer_of_an_earlier_life_does_not_count"
    ),
    "a log tells its end only while nobody leads": (
        "tests/broker/replication/test_log_ends.py::"
        "test_a_log_tells_its_end_where_nobody_leads_in_the_epoch_that_is_asked_for"
    ),
    "what a loss of power took is not expected by the starts after it": (
        "tests/broker/log/test_recovery.py::"
        "test_what_a_loss_of_power_took_is_not_missed_by_the_starts_after_it"
    ),
    "a leader that was asked to hand over accepts no more": (
        f"{_WRITERS}::test_a_leader_that_was_asked_to_hand_over_accepts_no_more"
    ),
    "a broker that ends accepts no more writes": (
        f"{_WRITERS}::test_a_broker_that_ends_accepts_no_more_writes"
    ),
    "a request of an earlier registration is refused": f"{_CONTROLLER}::{_EARLIER_LIFE}",
    "a member of the ISR is the broker that fetched (KIP-903)": f"{_CONTROLLER}::{_EARLIER_LIFE}",
    "a lease runs from the sending of the heartbeat": (
        "tests/broker/test_heartbeat.py::test_a_lease_counts_from_the_sending"
    ),
    "epochs are cut with the log": (
        "tests/broker/log/test_cores.py::test_epochs_answer_as_kip_279_says"
    ),
    "a torn end is cut by its checksum": (
        "tests/broker/log/test_recovery.py::"
        "test_a_last_batch_that_is_not_valid_is_cut_only_if_a_crash_can_have_left_it[yes]"
    ),
    "a last batch that is all there and not valid is damage": (
        "tests/broker/log/test_recovery.py::test_zeros_in_the_place_of_the_last_batch_are_not_cut"
    ),
    "damage in the middle is not cut as if it were a torn end": (
        "tests/broker/log/test_recovery.py::"
        "test_a_damaged_log_leaves_the_others_alone_and_stays_refused"
    ),
    "a damaged record is refused by its reader": (
        "tests/client/record/test_damage.py::test_a_damaged_record_is_refused_by_its_reader"
    ),
    "a follower checks what it copies": (
        "tests/broker/log/test_recovery.py::test_a_follower_refuses_what_was_damaged_on_its_way"
    ),
    "a producer repeats a batch under its first sequence": (
        f"{_PRODUCER}::test_records_lost_by_an_unclean_election_do_not_stop_the_producer"
    ),
    "a new epoch of a producer begins at sequence 0": (
        "tests/client/producer/test_idempotence.py::"
        "test_a_new_epoch_begins_at_sequence_0_and_is_not_proven"
    ),
    "a leader answers where logs part": (
        f"{_DIVERGENCE}::test_a_consumer_learns_that_what_it_read_is_gone"
    ),
    "a follower truncates to where logs part, not to its high watermark (KIP-101)": (
        f"{_DIVERGENCE}::test_epochs_that_the_leader_never_saw_are_walked_back"
    ),
    "a truncation goes by both logs' epochs (KIP-279)": (
        f"{_DIVERGENCE}::test_a_follower_cuts_where_its_own_records_of_the_common_epoch_end"
    ),
    "consumers read below the high watermark": (
        f"{_DIVERGENCE}::test_a_follower_serves_what_is_committed_and_no_more"
    ),
    "older metadata changes no role": (
        "tests/broker/replication/test_partition.py::test_an_older_epoch_changes_nothing"
    ),
    "a stale leader epoch is fenced": (f"{_DIVERGENCE}::test_a_fetch_in_another_epoch_is_refused"),
}
