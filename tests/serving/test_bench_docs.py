"""docs/serving.md: its commands have these options, its manifests hang together."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml
from typer.main import get_command

from lessonlib import cli

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")
COMMANDS = get_command(cli.build_app()[0]).commands  # type: ignore[attr-defined]
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


def commands() -> list[list[str]]:
    shell = "\n".join(text for kind, text in BLOCKS if not kind).replace("\\\n", " ")
    spoken = re.findall(r"`(lesson [^`…]+)`", PAGE)
    lines = [line for line in shell.splitlines() if line.startswith("lesson ")] + spoken
    return [shlex.split(line.split(" 2>>")[0]) for line in lines]


def options(name: str) -> set[str]:
    parameters = COMMANDS[name].params
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}


def test_every_command_and_option_exists():
    assert {words[1] for words in commands()} == {"serve", "bench", "export"}
    for words in commands():
        assert {word for word in words if word.startswith("--")} <= options(words[1]), words


def test_options_that_the_page_names_are_those_of_lesson_serve():
    table = PAGE[PAGE.index("| what | how |") : PAGE.index("## What can it bear?")]
    named = set(re.findall(r"`(--[a-z-]+)", table))
    assert len(named) > 12 and named <= options("serve")


def test_the_manifest_hangs_together():
    text = next(text for kind, text in BLOCKS if kind == "yaml" and "kind: Deployment" in text)
    deployment, service = yaml.safe_load_all(text)
    assert (deployment["kind"], service["kind"]) == ("Deployment", "Service")
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    args = container["args"]
    assert all(isinstance(arg, str) for arg in args)
    assert ports[service["spec"]["ports"][0]["targetPort"]] == int(args[args.index("--port") + 1])
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
    (models,) = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
    assert args[args.index("--model") + 1].startswith(models["mountPath"] + "/")


def test_ray_is_told_the_model_in_the_same_folder():
    text = next(text for kind, text in BLOCKS if kind == "yaml" and "ray.serve.llm" in text)
    (application,) = yaml.safe_load(text)["applications"]
    assert application["import_path"] == "ray.serve.llm:build_openai_app"
    (model,) = application["args"]["llm_configs"]
    assert model["model_loading_config"] == {"model_id": "pico", "model_source": "/models/pico-hf"}
    scaling = model["deployment_config"]["autoscaling_config"]
    assert 1 <= scaling["min_replicas"] <= scaling["max_replicas"]
