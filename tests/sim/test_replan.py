"""Planning again in the middle of an episode: who gets a new plan, what follows it, and that it helps."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from episodes import run, start, to_numpy
from PIL import Image

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation.evaluate import Evaluation
from scaffoldlab.evaluation.replan import Replanner, feedback
from scaffoldlab.evaluation.rollout import run_episodes, zero_action
from scaffoldlab.planners.base import Planner
from scaffoldlab.planners.making import make_library, plan_check, scripted_library
from scaffoldlab.planners.perturbed import Perturbation, PerturbedPlanner
from scaffoldlab.planners.replay import replay_planner
from scaffoldlab.planners.scripted import ScriptedPlanner
from scaffoldlab.planners.settings import VlmSettings
from scaffoldlab.planners.vlm import vlm_planner
from scaffoldlab.specs.models import load_task
from scaffoldlab.tasks.rendering import camera_of
from vlm_server import VlmServer, blob

NUM_ENVS = 16


@pytest.fixture
def env(simulation):
    return simulation.env("move_apple", num_envs=NUM_ENVS, overrides=("presets=paper",))  # T = 300: time to try again


@pytest.fixture
def oracle():
    return ScriptedPlanner(load_task("move_apple").task.oracle)


def close_at_the_apple():
    """A policy that follows the plan, closes the hand at the apple, and opens it when the apple is not in it."""
    closed = torch.zeros(NUM_ENVS, dtype=torch.bool)

    def policy(observations, plan):
        actions = zero_action(observations, plan)
        away = (plan.robot.wrist[:, :3] - plan.success.position("apple")).norm(dim=-1)
        closed.copy_((closed & (away < 0.12)) | (away < 0.055))
        actions[:, 6:] = closed.float()[:, None]
        return actions

    return policy


def test_open_hand_loses_the_apple_and_gets_a_plan_from_where_it_lies(env, oracle):
    plan, observations = start(env)
    replanner = Replanner(oracle, error=0.05, steps=10)
    replanner.begin(plan, NUM_ENVS // 2)
    for _ in range(250):
        with torch.inference_mode():
            observations, *_ = env.step(zero_action(observations, plan))
        before, targets = plan.distance.error.clone(), plan.future(torch.arange(60))[0]
        apple = plan.keypoints.clone()
        if replanner.step(plan):
            break
    at = plan.plan_id >= NUM_ENVS
    assert at.any() and not at[NUM_ENVS // 2 :].any() and replanner.count == int(at.sum())
    step = int(plan.step[0])
    assert (before[at] > 0.05).all() and plan.steps - step >= 60
    # From now on the plan begins where everything is, and ends where the oracle wants it.
    np.testing.assert_allclose(to_numpy(plan.distance.error[at]), 0, atol=1e-5)
    np.testing.assert_allclose(to_numpy(plan.keypoint_targets[at]), to_numpy(apple[at]), atol=1e-5)
    np.testing.assert_allclose(to_numpy(plan.wrist_targets[at, :3]), to_numpy(plan.robot.wrist[at, :3]), atol=1e-5)
    last_keypoints, last_wrist = (t[at][:, 0] for t in plan.future(torch.tensor([plan.steps])))
    np.testing.assert_allclose(to_numpy(last_wrist[:, :3]), [[0, -0.2, 0.952]] * int(at.sum()), atol=2e-3)
    np.testing.assert_allclose(to_numpy(last_keypoints[:, 0]), to_numpy(last_wrist[:, :3]), atol=2e-3)
    # Where it began, and the plans of the others, are as before.
    library = scripted_library(load_task("move_apple"), count=NUM_ENVS, seed=3)
    starts = np.array([p.keypoints_e[0] for p in library.plans])
    np.testing.assert_allclose(to_numpy(plan.initial_keypoints), starts, atol=1e-5)
    kept = plan.future(torch.arange(60))[0]
    np.testing.assert_array_equal(to_numpy(kept[~at]), to_numpy(targets[~at]))
    # It goes back to the apple, and a second plan is not made.
    nearest = torch.full((NUM_ENVS,), torch.inf)
    with torch.inference_mode():
        for _ in range(step, plan.steps - 1):
            observations, *_ = env.step(zero_action(observations, plan))
            assert not (replanner.step(plan) and (plan.plan_id >= NUM_ENVS + replanner.count).any())
            nearest = torch.minimum(nearest, (plan.robot.wrist[:, :3] - plan.success.position("apple")).norm(dim=-1))
    assert (nearest[at] < 0.06).all()
    assert replanner.count == NUM_ENVS // 2  # by now all of them once
    # A reset forgets the new plans.
    env.reset()
    assert (plan.plan_id == torch.arange(NUM_ENVS)).all()
    np.testing.assert_allclose(to_numpy(plan.keypoint_targets), starts, atol=1e-5)


def test_feedback_says_how_far_things_are_off(env):
    plan, observations = start(env)
    run(env, plan, observations, zero_action, until=140)
    text = feedback(plan, 3, 0.05, 20)
    off = float((plan.keypoints - plan.keypoint_targets)[3, 0].norm())
    assert "2.3 of 5.0 seconds are over" in text and f"the apple is {off:.2f} m from its planned position" in text
    assert "the cutting board is 0.00 m from" in text and "the hand is" in text


def test_planner_that_fails_leaves_the_old_plan(env):
    class Silent(Planner):
        name, needs_image = "silent", False

        def plan(self, request):
            assert "was not followed" in request.feedback and request.state is not None
            raise ScaffoldError("no reply")

    replanner = Replanner(Silent(), error=0.05, steps=10)
    library = scripted_library(load_task("move_apple"), count=4, seed=3)
    (episodes,) = run_episodes(env, library, {"zero action": zero_action}, replanner=replanner)
    assert replanner.count == 0 and replanner.failures == ["no reply"] * 4 and not episodes.success.any()


def test_planner_that_needs_pictures_is_not_begun_without_a_camera(env):
    class Seeing(Planner):
        name, needs_image = "seeing", True

    plan, _ = start(env)
    with pytest.raises(ScaffoldError, match="the seeing planner needs pictures of the present, and `pictures` is None"):
        Replanner(Seeing()).begin(plan, NUM_ENVS)


def test_oracle_that_plans_again_rescues_plans_that_were_wrong(env, oracle):
    """Keypoints that are some 5 cm off: the hand goes beside the apple."""
    composition = load_task("move_apple")
    model = PerturbedPlanner(composition, Perturbation.parse("pixel_px=40,wrong_object=0,axis_flip=0,no_dwell=0"))
    library = make_library(composition, model, count=NUM_ENVS, seed=5)
    replanner = Replanner(oracle, error=0.05, steps=10, least=40)
    (once,) = run_episodes(env, library, {"close": close_at_the_apple()})
    (again,) = run_episodes(env, library, {"close": close_at_the_apple()}, replanner=replanner)
    print(f"once {once.success_rate:.0%}, again {again.success_rate:.0%} with {replanner.count} new plans")
    assert replanner.count > 0 and again.success_rate > once.success_rate + 0.2


# --- a model --------------------------------------------------------------------------------------------------------

APPLE, PUSH = (150, 20, 25), (0.15, 0.0, 0.0)
"""Its colour in the picture, and what pushes it away [m]."""


def push_and_plan_again(env, replanner):
    """Pushes the apples after 5 steps; runs until there are new plans, which only the first two envs may have."""
    plan, observations = start(env)
    replanner.begin(plan, 2)
    with torch.inference_mode():
        for step in range(40):
            observations, *_ = env.step(zero_action(observations, plan))
            if step == 5:
                pose = env.scene["apple"].data.root_link_pose_w.torch.clone()
                pose[:, :3] += pose.new_tensor(PUSH)
                env.scene["apple"].write_root_pose_to_sim_index(root_pose=pose)
            if replanner.step(plan):
                return plan, env.observation_manager.compute()
    raise AssertionError(replanner.failures)


def sent_pictures(server):
    """The picture of every pointing prompt, shape (H, W, 3)."""
    urls = [
        part["image_url"]["url"]
        for seen in server.requests
        if seen.kind == "keypoints"
        for part in seen.body["messages"][0]["content"]
        if part["type"] == "image_url"
    ]
    return [np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")) for url in urls]


def test_model_sees_the_present_is_told_what_went_wrong_and_its_plan_is_followed(simulation, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    simulation.close()
    composition, library = load_task("move_apple"), scripted_library(load_task("move_apple"), count=3, seed=3)
    ledger, check = tmp_path / "replan.ledger.jsonl", plan_check(composition)
    evaluation = Evaluation(
        task="move_apple", checkpoint=Path(), plans=library, device="cpu", overrides=("presets=paper",), folder=tmp_path
    )
    with VlmServer(colours={"apple": APPLE, "cutting board": (190, 125, 65)}) as server:
        planner = vlm_planner(VlmSettings(base_url=server.url, model="gemini-loopback"), ledger=ledger, check=check)
        replanner = Replanner(planner, error=0.05, steps=10)
        with evaluation.pictured_env(replanner) as env:
            plan, observations = push_and_plan_again(env, replanner)
            # Only what is due is asked, and with what it needs.
            assert sorted(server.kinds()) == ["keypoints"] * 2 + ["trajectory"] * 2 and replanner.count == 2
            assert replanner.model == "gemini-loopback"
            prompts = [str(s.body["messages"][0]["content"]) for s in server.requests if s.kind == "trajectory"]
            assert all("the apple is 0.15 m from its planned position" in prompt for prompt in prompts)
            camera, apples = camera_of(composition.scene.camera), to_numpy(plan.success.position("apple"))
            before = camera.project(np.array([p.initial_state["apple"][:3] for p in library.plans]))
            now = camera.project(apples)
            assert (np.linalg.norm(now - before, axis=-1) > 60).all()  # of 800 px
            for picture in sent_pictures(server):
                seen = blob(picture, APPLE)
                assert np.linalg.norm(now[:2] - seen, axis=-1).min() < 30 < np.linalg.norm(before - seen, axis=-1).min()
            # The new plans begin where the apple lies now; the third env keeps its own.
            assert plan.plan_id.tolist() == [3, 4, 2]
            assert (np.linalg.norm(to_numpy(plan.keypoint_targets[:2, 0]) - apples[:2], axis=-1) < 0.05).all()
            made, _ = plan.future(torch.arange(200))
            nearest = torch.full((3,), torch.inf)
            with torch.inference_mode():
                for _ in range(200):
                    observations, *_ = env.step(zero_action(observations, plan))
                    away = (plan.robot.wrist[:, :3] - plan.success.position("apple")).norm(dim=-1)
                    nearest = torch.minimum(nearest, away)
            assert (nearest[:2] < 0.09).all() and nearest[2] > 0.14  # 2 cm above the skin; where the apple was
            # The same again offline.
            asked = len(server.requests)
            again = Replanner(replay_planner(ledger, check=check), error=0.05, steps=10)
            again.pictures = replanner.pictures
            plan, _ = push_and_plan_again(env, again)
            np.testing.assert_allclose(to_numpy(plan.future(torch.arange(200))[0][:2]), to_numpy(made[:2]), atol=0.01)
            assert len(server.requests) == asked and again.count == 2
