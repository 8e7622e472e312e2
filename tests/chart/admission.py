"""Asks a real API server about everything that the chart and the overlays come to.

    python3 tests/chart/admission.py CRDS      with KUBECONFIG; CRDS is a folder of definitions

Every object of the matrix is applied by the server without being kept, in a namespace that enforces the
restricted Pod Security Standard, and every template of pods as a pod, since a Deployment is let in
whatever its pods are. A warning counts as a refusal. Then a release is really installed and upgraded, for
what only Helm and a server can show: what is made up stays, and the migration becomes a hook.
"""

import copy
import datetime
import json
import os
import subprocess
import sys
import time

import yaml

from chart import CHART, HELM, MATRIX, ROOT, component, of_kind, one, pod_templates, render

KUBECTL = os.environ.get("KUBECTL", "kubectl")
NAMESPACE = "shop"


def run(*command, text=None):
    ended = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if ended.returncode != 0 or "Warning:" in ended.stderr:
        sys.exit(f"{' '.join(command)}:\n{ended.stdout[-500:]}{ended.stderr}")
    return ended.stdout


def kubectl(*arguments, objects=None):
    text = yaml.safe_dump_all(objects) if objects is not None else None
    return run(KUBECTL, *arguments, text=text)


def judge(what, objects):
    """What is applied twice is judged twice: hooks and the like have names of their own."""
    pods = []
    for number, (name, template) in enumerate(pod_templates(objects)):
        template = copy.deepcopy(template)
        spec = template["spec"]
        # Nobody makes service accounts' tokens here; what a pod may do is not what is asked.
        spec.pop("serviceAccountName", None)
        spec.pop("priorityClassName", None)
        metadata = {**template["metadata"], "name": f"pod-{number}", "namespace": NAMESPACE}
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    apply = ("apply", "--server-side", "--dry-run=server", "--force-conflicts", "--filename", "-")
    kubectl(*apply, objects=[each for each in objects if each["kind"] != "Namespace"])
    kubectl("create", "--dry-run=server", "--filename", "-", objects=pods)
    print(f"{what}: {len(objects)} objects and {len(pods)} pods are let in", flush=True)


def refuses_what_is_not_restricted():
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root", "namespace": NAMESPACE}}
    pod["spec"] = {"containers": [{"name": "root", "image": "any"}]}
    ended = subprocess.run(
        [KUBECTL, "create", "--dry-run=server", "--filename", "-"], input=yaml.safe_dump(pod), capture_output=True, text=True, check=False
    )
    if "violates PodSecurity" not in ended.stderr:
        sys.exit(f"a pod that is not restricted was let in: {ended.stderr}")


def secret():
    return yaml.safe_load(kubectl("get", "secret", "shop-millrace", "--namespace", NAMESPACE, "--output", "yaml"))["data"]


def release():
    """A release with bundled stores, whose pods nobody runs here."""
    values = ["--namespace", NAMESPACE, "--values", str(CHART / "ci" / "dev-values.yaml")]
    run(HELM, "install", "shop", str(CHART), *values)
    made = secret()
    upgrade = [HELM, "upgrade", "shop", str(CHART), *values]
    run(*upgrade, "--set", "command.replicas=2", "--set", "ingress.enabled=true")
    assert secret() == made, "an upgrade changed what was made up"
    deployment = yaml.safe_load(kubectl("get", "deployment", "shop-millrace-query", "--namespace", NAMESPACE, "--output", "yaml"))
    before = deployment["spec"]["template"]

    migration = lambda: of_kind(rendered_by_the_server(*upgrade), "Job")[0]["metadata"]
    assert migration()["name"] == "shop-millrace-migrate-3", "stores that are not ready have no hook"
    patch = '{"status": {"replicas": 1, "readyReplicas": 1}}'
    store = ("statefulset", "shop-millrace-dev-postgresql", "--namespace", NAMESPACE)
    kubectl("patch", *store, "--subresource", "status", "--type", "merge", "--patch", patch)
    assert migration()["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade", "stores that are ready have a hook"
    objects = rendered_by_the_server(*upgrade, "--set", "ingress.enabled=true")
    hook = one(objects, "Secret", "-migrate-hook")
    assert hook["data"]["DATABASE_URL"] == made["DATABASE_URL"], "the hook has another password than the store"
    after = one(objects, "Deployment", "-query")["spec"]["template"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"], "an upgrade without a change restarts pods"

    upgrade_with_a_hook(upgrade)
    assert secret() == made, "an upgrade with a hook changed what was made up"
    run(HELM, "uninstall", "shop", "--namespace", NAMESPACE)
    kinds = "deployment,statefulset,service,configmap,secret,serviceaccount,role,rolebinding,networkpolicy,ingress,cronjob,job,pvc,pdb"
    left = kubectl("get", kinds, "--namespace", NAMESPACE, "--selector", "app.kubernetes.io/part-of=millrace", "--output", "name")
    assert not left, f"uninstalled, and left: {left}"
    kubectl("get", "crd", "replays.millrace.dev")
    print("a release was installed, upgraded and uninstalled", flush=True)


def upgrade_with_a_hook(upgrade):
    """Upgrades with the migration as a hook, whose Job is said to be done here, since nobody runs it."""
    job = ("job", "shop-millrace-migrate-hook", "--namespace", NAMESPACE)
    with subprocess.Popen([*upgrade, "--timeout", "60s"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as helm:
        while helm.poll() is None and not kubectl("get", *job, "--ignore-not-found", "--output", "name"):
            time.sleep(0.2)
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        ends = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("SuccessCriteriaMet", "Complete")]
        status = {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": ends}
        kubectl("patch", *job, "--subresource", "status", "--type", "merge", "--patch", json.dumps({"status": status}))
        told = helm.communicate()[0]
        assert helm.returncode == 0, told
    kinds = "job,configmap,secret,serviceaccount"
    left = kubectl("get", kinds, "--namespace", NAMESPACE, "--selector", "app.kubernetes.io/component=migrate", "--output", "name")
    assert not left, f"the migration is over, and left: {left}"


def rendered_by_the_server(*command):
    text = run(*command, "--dry-run=server", "--output", "yaml")
    told = yaml.safe_load(text)
    manifests = told["manifest"] + "".join(f"\n---\n{hook['manifest']}" for hook in told.get("hooks") or [])
    return [each for each in yaml.safe_load_all(manifests) if each]


def main():
    crds = sys.argv[1]
    for folder in sorted(os.listdir(crds)):
        kubectl("apply", "--server-side", "--filename", os.path.join(crds, folder))
    kubectl("apply", "--server-side", "--filename", str(ROOT / "k8s" / "crds" / "replays.yaml"))
    kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    for name in (NAMESPACE, "millrace"):
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        kubectl("apply", "--server-side", "--filename", "-", objects=[{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}])
    refuses_what_is_not_restricted()
    for values in MATRIX:
        judge(values, render(values))
    for overlay in ("base", "overlays/dev", "overlays/production"):
        objects = [each for each in yaml.safe_load_all(kubectl("kustomize", str(ROOT / "k8s" / overlay))) if each]
        judge(overlay, objects)
    kubectl("delete", "crd", "replays.millrace.dev")
    release()


main()
