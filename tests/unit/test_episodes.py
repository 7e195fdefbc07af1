"""The numbers that follow from a set of episodes, against numbers computed by hand."""

import json

import numpy as np
import pytest

from scaffoldlab.evaluation.episodes import OUTCOMES, Episodes


def make_episodes(success, *, plan_id=None, error=None, keypoint_error=None):
    success = np.array(success, bool)
    return Episodes(
        policy="deterministic",
        success=success,
        success_end=success,
        error=np.zeros((len(success), 3)) if error is None else np.array(error),
        keypoint_error=np.zeros(len(success)) if keypoint_error is None else np.array(keypoint_error),
        threshold=0.10,
        plan_id=np.arange(len(success)) if plan_id is None else np.array(plan_id),
    )


@pytest.mark.parametrize(
    ("success", "plan_id", "rate", "stderr"),
    [
        ([1, 1, 1, 0], [0, 1, 2, 3], 0.75, 0.25),  # sqrt(3 * 0.25**2 + 0.75**2) / sqrt(3) = 1/2; / sqrt(4)
        ([1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 2, 2], 0.5, 0.5 / 3**0.5),  # rates of the states: 1, 1/2, 0
        ([1, 1, 1, 0, 0, 0], [0, 1, 2, 2, 1, 0], 0.5, 0.0),  # each state once; order does not matter
        ([1, 1, 1], [0, 1, 2], 1.0, 0.0),
    ],
    ids=["one trial", "trials of a state are averaged first", "states in any order", "no spread"],
)
def test_standard_error_is_over_initial_states(success, plan_id, rate, stderr):
    episodes = make_episodes(success, plan_id=plan_id)
    assert episodes.success_rate == pytest.approx(rate)
    assert episodes.success_stderr == pytest.approx(stderr)


def test_failure_is_explained_by_the_keypoint_first_then_by_the_tracking():
    lost, kept = [0.0, 0.11, 0.0], [0.0, 0.10, 0.0]  # at the threshold it is not lost yet
    episodes = make_episodes(
        [1, 0, 0, 0, 0],
        error=[lost, lost, kept, lost, kept],
        keypoint_error=[0.06, 0.06, 0.06, 0.05, 0.05],
    )
    names = [OUTCOMES[k] for k in episodes.outcome]
    assert names == ["success", "keypoint wrong", "keypoint wrong", "tracking lost", "tracked but failed"]


def test_summary_is_json_and_counts_every_episode_once():
    episodes = make_episodes([1, 0, 0, 0], error=[[0.0, 0.02], [0.0, 0.2], [0.0, 0.2], [0.0, 0.02]])
    summary = json.loads(json.dumps(episodes.summary()))
    assert summary["outcomes"] == {"success": 1, "keypoint wrong": 0, "tracking lost": 2, "tracked but failed": 1}
    assert summary["mean_tracking_error_m"] == pytest.approx(0.055)
    assert (summary["episodes"], summary["success_rate"], summary["success_at_end_rate"]) == (4, 0.25, 0.25)
