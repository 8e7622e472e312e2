"""Renders the chart, and knows its way around what comes out."""

import functools
import json
import os
import pathlib
import re
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Another folder when a broken copy is judged (mutations.py).
CHART = pathlib.Path(os.environ.get("MILLRACE_CHART", ROOT / "charts" / "millrace"))
HELM = os.environ.get("HELM", "helm")
MATRIX = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
ROLES = ("command", "projector", "query", "controller")


class Refused(Exception):
    """Helm did not render."""


def helm(*arguments):
    ended = subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise Refused(ended.stderr)
    return ended.stdout


@functools.lru_cache(maxsize=None)
def render(values, *settings):
    """The objects of a file of the matrix, with settings as --set has them."""
    arguments = ["template", "shop", str(CHART), "--namespace", "shop", "--values", str(CHART / "ci" / f"{values}-values.yaml")]
    for setting in settings:
        arguments += ["--set", setting]
    return [each for each in yaml.safe_load_all(helm(*arguments)) if each]


def of_kind(objects, kind):
    return [each for each in objects if each["kind"] == kind]


def component(each):
    return each["metadata"].get("labels", {}).get("app.kubernetes.io/component", "")


def one(objects, kind, name):
    """The object of that kind whose name ends so; None when there is none."""
    found = [each for each in of_kind(objects, kind) if each["metadata"]["name"].endswith(name)]
    assert len(found) <= 1, f"several {kind} {name}"
    return found[0] if found else None


def pod_templates(objects):
    """Name of the owner, template of its pods: of all that make pods, those of the controller's Jobs too."""
    for each in objects:
        name, spec = each["metadata"]["name"], each.get("spec", {})
        if each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, spec["template"]
        elif each["kind"] == "CronJob":
            yield name, spec["jobTemplate"]["spec"]["template"]
        elif each["kind"] == "ConfigMap" and "pod-template.json" in each["data"]:
            template = json.loads(each["data"]["pod-template.json"])
            for container in template["spec"]["containers"]:
                # The controller's part.
                container.setdefault("image", "millrace/millrace:0")
            yield name, template


def environment(objects, template):
    """The variables that a pod is told, from its ConfigMaps and by itself."""
    container = template["spec"]["containers"][0]
    out = {}
    for source in container.get("envFrom", []):
        config = one(objects, "ConfigMap", source["configMapRef"]["name"])
        assert config, f"there is no ConfigMap {source}"
        out.update(config["data"])
    for variable in container.get("env", []):
        out[variable["name"]] = variable.get("value", variable.get("valueFrom"))
    return out


# What a program knows, read from its sources: which settings it has, and where those come from.
STRUCT = re.compile(r"pub struct (\w+) \{(.*?)\n\}", re.S)
FLATTENED = re.compile(r"#\[command\(flatten\)\]\s*(?:pub )?\w+: (\w+)")
VARIABLE = re.compile(r'env = "(\w+)"')


@functools.lru_cache(maxsize=None)
def variables(role):
    """The variables that a role knows."""
    sources = [*ROOT.glob("pkg/runtime/src/**/*.rs"), *ROOT.glob("pkg/roles/src/**/*.rs")]
    sources += ROOT.glob(f"cmd/{role}/src/**/*.rs")
    structs = {}
    for source in sources:
        for name, body in STRUCT.findall(source.read_text()):
            if name != "Settings" or f"cmd/{role}/" in str(source):
                structs[name] = body

    def known(name):
        body = structs[name]
        found = set(VARIABLE.findall(body))
        for part in FLATTENED.findall(body):
            found |= known(part)
        return found

    found = known("Settings")
    assert "MILLRACE_NAMESPACE" in found, f"the settings of {role} were not understood"
    return found | {"MILLRACE_CONFIG"}
