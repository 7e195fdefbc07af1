"""When a training stops: within its minutes, the evaluation at its end included."""

import pytest

from scaffoldlab.training import TrainingLimits, TrainingState, iterations_left

STEPS, EVALUATION = 6000, 50_000  # env steps


@pytest.mark.parametrize(
    ("iteration", "seconds", "left"),
    [
        (100, 300, 91),  # 300 s hold 600k steps, 50k of them for the evaluation
        (100, 570, 1),  # 60k: one iteration, then the evaluation
        (100, 573, 0),  # 54k: no iteration more, the evaluation still fits
        (100, 640, -22),
        (195, 10, 5),  # the iterations end first
        (200, 10, 0),
    ],
)
def test_iterations_left_leave_time_for_the_evaluation(iteration, seconds, left):
    state = TrainingState(iteration=iteration, curve=[{"steps_per_second": 100}, {"steps_per_second": 2000}])
    limits = TrainingLimits(iterations=200, seconds=600)
    assert iterations_left(limits, state, seconds, STEPS, EVALUATION) == left


def test_before_the_first_iteration_only_their_number_counts():
    limits = TrainingLimits(iterations=200, seconds=1)
    assert iterations_left(limits, TrainingState(), 0, STEPS, EVALUATION) == 200
