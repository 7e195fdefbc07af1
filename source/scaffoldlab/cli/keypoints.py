"""``scaffoldlab keypoints``: a model names the keypoints of a task and points at them (Scaffolds, appendix H.1)."""

import argparse
from dataclasses import replace
from pathlib import Path

from scaffoldlab.cli.common import add_simulation, add_task, quiet, refuse_option, task_name
from scaffoldlab.cli.plan import PLANNER_OPTIONS, add_vlm, make_planner


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_task(parser)
    parser.add_argument("--activity", default=None, help="what the hand has to do; by default the task's own words")
    parser.add_argument("--planner", choices=["vlm", "replay"], default="vlm", help="who answers")
    parser.add_argument("--ledger", type=Path, default=None, help="file of recorded calls; by default in --out")
    parser.add_argument("--out", type=Path, default=Path("outputs/keypoints"), help="folder of picture and ledger")
    add_vlm(parser)
    add_simulation(parser)


def run(args: argparse.Namespace) -> None:
    """Asks about the first initial state, and prints the answer as the ``keypoints`` of a task file."""
    import yaml

    from scaffoldlab.planners.making import located_keypoints, make_request, scripted_library
    from scaffoldlab.plans.draw import draw_plan
    from scaffoldlab.plans.plan import Plan
    from scaffoldlab.specs.models import load_task

    for option, planners in PLANNER_OPTIONS.items():
        plans = f"plans by {', '.join(planners)}"
        refuse_option(args, option, f"{plans}; `scaffoldlab keypoints` does not take it. Leave it out.")
    composition = load_task(task_name(args.task))
    name = composition.task.name
    planner = make_planner(composition, args, args.ledger or args.out / f"{name}.ledger.jsonl")
    with quiet(args.out / f"{name}.log") as console:
        from scaffoldlab.tasks.rendering import render_initial_states

        states = scripted_library(composition, count=1, seed=args.seed)
        (image,) = render_initial_states(name, states, device=args.device, overrides=tuple(args.overrides))
        request = make_request(composition, seed=args.seed, index=0, image=image)
        request = replace(request, keypoint_names=planner.keypoint_names(args.activity or request.activity, image))
        located_e = planner.locate(request)
        keypoints = located_keypoints(composition, request, located_e)
        still = Plan(
            task=name,
            keypoints=keypoints,
            keypoints_e=located_e[None].repeat(2, 0),
            wrist_e=states.plans[0].wrist_e[:1].repeat(2, 0),
            initial_state=states.plans[0].initial_state,
            provenance={},
        )
        picture = args.out / f"{name}-keypoints.png"
        draw_plan(image, still, path=picture)
        console.print(f"picture: {picture}", highlight=False)
    entries = [{"name": k.name, "body": k.body, "point": [round(x, 4) for x in k.point_b]} for k in keypoints]
    print(yaml.safe_dump({"keypoints": entries}, sort_keys=False, default_flow_style=None), end="")
