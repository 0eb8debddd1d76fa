"""How hostile one history is. Each seed draws its own mix, for a mean mix hides rare faults."""

from __future__ import annotations

import random
from collections.abc import Iterable

# Each fault, the values that a seed chooses from, and first the one that means "none of it".
CHOICES: dict[str, tuple[float, ...]] = {
    # Of a message.
    "lost": (0.0, 0.02, 0.1, 0.3),
    "doubled": (0.0, 0.1),
    "slow_message": (0.0, 0.05, 0.2),
    "slow_message_max": (0.03, 0.6, 0.6, 1.5),  # seconds
    "slow_sync_max": (0.01, 0.01, 0.1, 0.5, 2.0),  # seconds, on up to two servers
    # In each interval of a disturbance.
    "crash": (0.0, 0.01, 0.05),
    "power": (0.0, 0.0, 0.01, 0.03),  # several servers at once
    "down_max": (0.05, 0.5, 3.0),  # seconds
    "cut": (0.0, 0.03, 0.1),
    # At the moments that hurt most.
    "leader_crash": (0.0, 0.02, 0.1),  # while its sync is under way
    "cut_new_leader": (0.0, 0.0, 0.3, 0.7),
    "part_leaders": (0.0, 0.0, 0.5),  # a deposed leader hears nothing of its successor
    "slow_leader": (0.0, 0.0, 0.7),  # the new leader's disk is the slow one
    "bounce_voters": (0.0, 0.0, 0.7),  # followers restart as one of them begins to campaign
    "strike": (0.0, 0.0, 0.1, 0.3),  # when the first server applies an entry
    "peer_lost": (0.0, 0.5, 1.0),  # a crash is noticed at once
    "race_read": (0.0, 0.5),  # a deposed leader reads when its successor commits
    # What the cluster is used for.
    "propose": (0.05, 0.2, 0.6),
    "eager": (0.0, 0.5),  # a new leader has proposals and changes of membership at once
    "read": (0.0, 0.2),
    "membership": (0.0, 0.0, 0.1, 0.4),
    "transfer": (0.0, 0.0, 0.02, 0.1),
    "compact_after": (50, 12, 2),
    "append_bytes_max": (1000, 3, 1),
}


FIRST_VOTERS = ((1, 2, 3), (1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4, 5))
FAULTS = tuple(CHOICES)[: tuple(CHOICES).index("race_read") + 1]  # what follows is use
CUTS = ("nothing", "leader", "server", "longest", "links", "link", "leader's link")

# Known ways to break a Raft that lacks one rule. A seed may begin from one of them.
STORIES: dict[str, dict[str, float]] = {
    # Entries of an older term reach a majority, their leader dies, an older log wins (5.4.2).
    "figure 8": {"cut_new_leader": 0.7, "eager": 1.0, "append_bytes_max": 1, "strike": 0.5},
    # A voter forgets in a restart that it hears a leader, whose lease runs.
    "forgetful voter": {"bounce_voters": 0.7, "cut": 0.03, "propose": 0.05},
    # Who hands over does not hear when it is over, and is asked to read.
    "deposed reader": {"transfer": 0.1, "part_leaders": 0.5, "race_read": 1.0, "cut": 0.01},
    # A hand-over is obeyed long after the leader has given it up.
    "late hand-over": {"transfer": 0.03, "slow_message": 0.3, "slow_message_max": 1.5},
    # A leader commits faster than its disk, and dies.
    "slow leader": {"slow_leader": 0.7, "slow_sync_max": 0.5, "strike": 0.3, "cut": 0.01,
                    "lost": 0.1, "propose": 0.2},
    # Changes of an even membership by leaders that do not know of each other's.
    "rival memberships": {"membership": 0.4, "eager": 1.0, "cut_new_leader": 0.3, "strike": 0.2,
                          "cut": 0.01},
}  # fmt: skip


class Faults:
    """One draw; ``without`` names faults that are taken out again, to shrink a failing seed."""

    lost: float
    doubled: float
    slow_message: float
    slow_message_max: float
    slow_sync_max: float
    crash: float
    power: float
    down_max: float
    cut: float
    leader_crash: float
    cut_new_leader: float
    part_leaders: float
    slow_leader: float
    bounce_voters: float
    strike: float
    peer_lost: float
    race_read: float
    propose: float
    eager: float
    read: float
    membership: float
    transfer: float
    compact_after: float
    append_bytes_max: float

    def __init__(
        self, r: random.Random, without: Iterable[str] = (), story: str | None = None
    ) -> None:
        for name, values in CHOICES.items():
            setattr(self, name, r.choice(values))
        drawn = r.choice((*STORIES, *([""] * len(STORIES))))
        self.story = drawn if story is None else story
        if self.story:  # with a few of the drawn faults beside its own
            others = [name for name in FAULTS if r.random() < 0.8]
            for name in others:
                setattr(self, name, CHOICES[name][0])
            for name, value in STORIES[self.story].items():
                setattr(self, name, value)
        for name in without:
            setattr(self, name, CHOICES[name][0])
        self.cuts = r.sample(CUTS, r.randint(1, len(CUTS)))
        self.voters = r.choice(FIRST_VOTERS)
        if self.story == "forgetful voter":
            self.cuts, self.voters = ["leader's link"], (1, 2, 3)
        if self.story == "rival memberships":
            self.voters = (1, 2, 3, 4)
