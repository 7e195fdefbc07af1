"""What presets and overrides make of a task: engines, the paper's tables, the CPU's settings; nothing is simulated."""

import pytest
from isaaclab_tasks.utils import resolve_task_config

from conftest import ROOT
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.experiments.models import list_experiments, load_experiment
from scaffoldlab.specs.models import load_task
from scaffoldlab.tasks import configs
from scaffoldlab.tasks.simulation import make_cfg, physics_name, with_default_presets

TASKS = ("move_apple", "open_drawer")
ALL_TASKS = sorted(path.parent.name for path in (ROOT / "tasks").glob("*/task.yaml"))
ALL_TASKS = [name for name in ALL_TASKS if not load_task(name).robot.arm]  # of the arm: test_arm.py
TABLE_5 = {
    "move_apple": 0.10, "move_bottle": 0.10, "place_bottle": 0.10, "slide_box": 0.10,
    "hammer": 0.08, "hammer_three_times": 0.08, "sponge": 0.08, "open_drawer": 0.15,
    "open_fridge": 0.20, "close_scissors": 0.03, "close_pliers": 0.05,
}  # fmt: skip
"""delta_init [m]; the tasks on the real robot have none there and take that of their twin in simulation."""
ENGINES = ("ovphysx", "newton_mjwarp", "isaacsim_physx")


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


def cfg_of(task, *overrides):
    return make_cfg(task, num_envs=4, device="cpu", seed=7, overrides=overrides)


def agent_of(task, library, *overrides):
    agent = resolve_task_config(load_task(task).task.env_id, f"{library}_cfg_entry_point", overrides=list(overrides))[1]
    return agent if isinstance(agent, dict) else agent.to_dict()


# --- engines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_is_chosen_by_its_name_and_has_the_time_steps_of_table_2(task, engine):
    cfg = cfg_of(task, f"physics={engine}")
    assert physics_name(cfg) == engine
    assert cfg.sim.dt == pytest.approx(1 / 120) and cfg.decimation == 2  # control at 60 Hz
    assert (cfg.scene.num_envs, cfg.sim.device, cfg.seed) == (4, "cpu", 7)


def test_default_engine_is_the_one_that_needs_neither_gpu_nor_isaac_sim(task):
    assert physics_name(cfg_of(task)) == "ovphysx"


@pytest.mark.parametrize(("engine", "wrist", "fingers"), [("ovphysx", 0, 0.003), ("newton_mjwarp", 0.1, 0.003)])
def test_drives_are_those_of_table_2_with_the_armature_that_each_engine_needs(task, engine, wrist, fingers):
    actuators = cfg_of(task, f"physics={engine}").scene.robot.actuators
    got = {
        name: (a.stiffness, a.damping, a.joint_effort_limit, a.armature, len(a.joint_names_expr))
        for name, a in actuators.items()
    }
    assert got == {"wrist": (2000, 100, 1000, wrist, 6), "fingers": (10, 0.3, 10, fingers, 16)}


def test_drop_of_contacts_is_watched_on_the_engine_that_drops_them(task):
    assert cfg_of(task, "physics=newton_mjwarp").events.contact_buffers is not None
    assert cfg_of(task, "physics=ovphysx").events.contact_buffers is None


# --- presets and overrides ------------------------------------------------------------------------------------------


def test_overrides_reach_terms_by_their_path(task):
    cfg = cfg_of(
        task,
        "env.rewards.keypoint_tracking.weight=2",
        "env.commands.plan.beta=10",
        "env.rewards.fingertip_contact.params.mode=force",
        "env.observations.policy.future_plan.params.offsets=[0,5,10]",
        "env.actions.hand.fingers=each",
    )
    assert cfg.rewards.keypoint_tracking.weight == 2 and cfg.commands.plan.beta == 10
    assert cfg.rewards.fingertip_contact.params["mode"] == "force" and cfg.actions.hand.fingers == "each"
    assert list(cfg.observations.policy.future_plan.params["offsets"]) == [0, 5, 10]


def test_each_configuration_is_a_fresh_one(task):
    cfg_of(task).commands.plan.beta = 99.0
    assert cfg_of(task).commands.plan.beta != 99.0
    assert cfg_of("move_apple").commands.plan.task == "move_apple"
    assert cfg_of("open_drawer").commands.plan.task == "open_drawer"


def test_configuration_is_data(task):
    """It can be printed as YAML, sent to another process, and built by Isaac Lab's own commands."""
    import pickle

    import yaml

    cfg = cfg_of(task)
    assert pickle.loads(pickle.dumps(cfg)).commands.plan.task == task
    assert yaml.safe_load(yaml.safe_dump(plain(cfg.to_dict())))["rewards"]["keypoint_tracking"]["weight"] == 1.0


def plain(value):
    """Tuples as lists; anything else stays what it is."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("task", ALL_TASKS)
def test_paper_preset_is_the_papers(task):
    """T = 300 (5 s), clips of 0.1 m and 1 rad, 2048 envs, contact weight 1, beta 20, no penalties; delta of Table 5."""
    cfg = make_cfg(task, num_envs=4, device="cpu", overrides=("presets=paper",))
    plan = cfg.commands.plan
    assert (plan.steps, cfg.episode_length_s, plan.beta) == (300, 5.0, 20.0)
    assert plan.threshold == TABLE_5[task] and plan.reduction == "mean"
    hand = cfg.actions.hand
    assert (hand.position_limit, hand.rotation_limit, hand.gamma) == (0.1, 1.0, 0.9)
    weights = {n: t["weight"] for n, t in cfg.rewards.to_dict().items()}
    assert {n: w for n, w in weights.items() if w} == {"keypoint_tracking": 1, "fingertip_contact": 1}
    assert cfg.curriculum.threshold.params == {"steps": 48000, "final_fraction": 0.5}  # 2000 iterations of 24 steps
    resolved, _ = resolve_task_config(load_task(task).task.env_id, None, overrides=["presets=paper"])
    assert resolved.scene.num_envs == 2048


def test_domain_randomization_is_off_unless_asked_for(task):
    for cfg, on in ((cfg_of(task), False), (cfg_of(task, "presets=randomized"), True)):
        assert (cfg.events.joint_gains is not None) == on
        for name in ("joint_positions", "joint_velocities", "action_average"):
            noise = getattr(cfg.observations.policy, name).noise
            assert (noise is not None) == on and (noise is None or noise.std == 0.05)
        assert cfg.observations.policy.keypoints.noise is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("env.rewards.keypoint_trackin.weight=2", ["unknown field 'keypoint_trackin'", "'keypoint_tracking'?"]),
        ("env.commands.plan.betta=3", ["unknown field 'betta'", "Did you mean 'beta'?", "threshold"]),
        ("env.rewards.keypoint_tracking.weigth=2", ["Did you mean 'weight'?"]),
        ("physics=bullet", ["Unknown preset(s): bullet", "newton_mjwarp"]),
        ("presets=papper", ["Unknown preset(s): papper", "paper"]),
        ("weight=2", ["allowed: env.path=..., agent.path=..., physics=..."]),
        ("+env.commands.plan.new=2", ["allowed: env.path=..."]),
        ("env.commands.plan.beta", ["allowed: env.path=..."]),
    ],
)
def test_wrong_override_is_told_what_is_allowed(override, words):
    """Isaac Lab alone adds a field that does not exist, and goes on without a word."""
    with pytest.raises(ScaffoldError) as caught:
        cfg_of("move_apple", override)
    for word in (override, *words):
        assert word in str(caught.value)


def test_term_parameters_that_are_left_at_their_default_can_be_set():
    cfg = cfg_of("move_apple", "env.rewards.fingertip_contact.params.minimum_force=0.5")
    assert cfg.rewards.fingertip_contact.params["minimum_force"] == 0.5


def test_settings_of_a_task_for_a_cpu_are_those_of_its_preset_and_of_no_other():
    def of(*overrides):
        cfg, agent = cfg_of("close_scissors", *overrides), agent_of("close_scissors", "rsl_rl", *overrides)
        fingers = agent["actor"]["distribution_cfg"].get("finger_correlation")
        annealed = cfg.curriculum.threshold.params["final_fraction"]
        return cfg.commands.plan.threshold, cfg.rewards.fingertip_contact.weight, annealed, fingers

    assert of("presets=cpu") == of("presets=cpu,randomized") == (0.06, 0.1, 1.0, 0.9)
    assert of("presets=paper") == (0.03, 1.0, 0.5, None)
    assert of("presets=cpu", "env.commands.plan.threshold=0.04")[0] == 0.04
    assert cfg_of("move_apple", "presets=cpu").curriculum.threshold.params["final_fraction"] == 0.5


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "env.commands.plan.treshold",
            "cpu.settings: env.commands.plan.treshold: unknown field 'treshold'. Did you mean",
        ),
        ("agent.actor.std", "unknown field 'std'"),
        ("env.scene.num_envs.paper", "inside a preset"),
    ],
)
def test_settings_of_a_task_for_a_cpu_name_fields_that_exist(write_task, path, words):
    write_task("mine", lambda data: data.update(cpu={"settings": {path: 1.0}}))
    make = configs.env_mine if path.startswith("env") else configs.rsl_rl_mine
    with pytest.raises(ScaffoldError, match=words):
        make()


def test_paper_preset_lets_a_longer_episode_end(write_task):
    write_task("long", lambda data: data.update(episode_steps=400))
    cfg = configs.env_long()
    assert cfg.commands.plan.steps.paper == 400 and cfg.episode_length_s.paper == pytest.approx(400 / 60)


def test_fields_of_a_preset_can_be_set_beside_it():
    overrides = ("physics=newton_mjwarp", "env.sim.physics.solver_cfg.nconmax=7")
    assert cfg_of("move_apple", *overrides).sim.physics.solver_cfg.nconmax == 7


def test_a_machine_without_cuda_gets_the_cpu_preset_unless_one_is_named():
    assert with_default_presets(["physics=ovphysx"], "cpu") == ("physics=ovphysx", "presets=cpu")
    assert with_default_presets(["presets=paper"], "cpu") == ("presets=paper",)
    assert with_default_presets(["presets=paper,randomized"], "cpu") == ("presets=paper,randomized",)
    assert with_default_presets(["presets=randomized", "physics=ovphysx"], "cpu") == (
        "physics=ovphysx", "presets=cpu,randomized",
    )  # fmt: skip
    assert with_default_presets(["presets=randomized"], "cuda:0") == ("presets=randomized",)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("name", list_experiments())
def test_policies_are_tested_with_the_network_they_were_trained_with(name, device):
    def network(overrides):
        named = [o for o in with_default_presets(overrides, device) if o.startswith("presets=")]
        return {"cpu", "paper"} & {preset for o in named for preset in o.removeprefix("presets=").split(",")}

    for row in load_experiment(name).rows:
        assert network(row.overrides_in("training")) == network(row.overrides_in("test")), row.name


def test_randomization_takes_the_network_of_the_other_presets():
    (overrides,) = {tuple(row.overrides) for row in load_experiment("engines").rows if row.overrides}
    agent = agent_of("move_apple", "rsl_rl", *with_default_presets(overrides, "cpu"))
    assert agent["actor"]["hidden_dims"] == [128, 128]
    assert cfg_of("move_apple", *with_default_presets(overrides, "cpu")).events.joint_gains is not None


# --- agents ---------------------------------------------------------------------------------------------------------


def test_paper_preset_of_rsl_rl_is_table_1(task):
    agent = agent_of(task, "rsl_rl", "presets=paper")
    algorithm = agent["algorithm"]
    expected = {
        "clip_param": 0.2, "use_clipped_value_loss": True, "value_loss_coef": 1.0, "schedule": "adaptive",
        "learning_rate": 3e-4, "desired_kl": 0.01, "entropy_coef": 0.01, "gamma": 0.99, "lam": 0.95,
        "max_grad_norm": 1.0, "num_learning_epochs": 5, "num_mini_batches": 16,
        "normalize_advantage_per_mini_batch": True,
    }  # fmt: skip
    assert {name: algorithm[name] for name in expected} == expected
    assert (agent["num_steps_per_env"], agent["max_iterations"]) == (24, 2000)
    for network in (agent["actor"], agent["critic"]):
        assert (network["hidden_dims"], network["activation"], network["obs_normalization"]) == ([512] * 3, "elu", True)
    assert agent["actor"]["distribution_cfg"]["init_std"] == 1.0


def test_paper_presets_of_skrl_and_rl_games_say_the_same(task):
    skrl = agent_of(task, "skrl", "presets=paper")
    got, net = skrl["agent"], skrl["models"]["policy"]["network"][0]
    assert (got["learning_epochs"], got["mini_batches"], got["rollouts"]) == (5, 16, 24)
    assert (got["discount_factor"], got["lambda"], got["learning_rate"]) == (0.99, 0.95, 3e-4)
    assert (got["ratio_clip"], got["entropy_loss_scale"], got["grad_norm_clip"]) == (0.2, 0.01, 1.0)
    assert net["layers"] == [512] * 3 and skrl["trainer"]["timesteps"] == 2000 * 24
    games = agent_of(task, "rl_games", "presets=paper")["params"]
    got = games["config"]
    assert (got["mini_epochs"], got["minibatch_size"], got["horizon_length"]) == (5, 2048 * 24 // 16, 24)
    assert (got["gamma"], got["tau"], got["learning_rate"], got["e_clip"]) == (0.99, 0.95, 3e-4, 0.2)
    assert (got["entropy_coef"], got["grad_norm"], got["max_epochs"]) == (0.01, 1.0, 2000)
    assert games["network"]["mlp"]["units"] == [512] * 3


@pytest.mark.parametrize("library", ["rsl_rl", "skrl", "rl_games"])
def test_cpu_preset_is_the_same_in_every_library(task, library):
    agent = agent_of(task, library, "presets=cpu")
    numbers = {
        "rsl_rl": lambda a: (a["actor"]["hidden_dims"], a["algorithm"]["num_learning_epochs"],
                             a["algorithm"]["learning_rate"], a["algorithm"]["max_learning_rate"]),
        "skrl": lambda a: (a["models"]["policy"]["network"][0]["layers"], a["agent"]["learning_epochs"],
                           a["agent"]["learning_rate"], a["agent"]["learning_rate_scheduler_kwargs"]["max_lr"]),
        "rl_games": lambda a: (a["params"]["network"]["mlp"]["units"], a["params"]["config"]["mini_epochs"],
                               a["params"]["config"]["learning_rate"], a["params"]["config"]["max_lr"]),
    }  # fmt: skip
    assert numbers[library](agent) == ([128, 128], 3, 1e-3, 1e-3)
