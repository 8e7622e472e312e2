"""Breaks a copy of the chart in one place after the other, and expects the test of that rule to fail.

    python3 tests/chart/mutations.py [words of the names of those to try]
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CHART = HERE.parents[1] / "charts" / "millrace"

# The test that is to fail, the file, what stands there, and what stands there then.
MUTATIONS = [
    ("Everywhere.test_every_container_is_restricted", "templates/_pod.tpl", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
    ("Everywhere.test_every_container_is_restricted", "templates/_pod.tpl", "runAsNonRoot: true", "runAsNonRoot: false"),
    ("Everywhere.test_every_container_is_restricted", "templates/_pod.tpl", "capabilities: { drop: [ALL] }", "capabilities: { drop: [NET_RAW] }"),
    ("Everywhere.test_only_the_controller_has_a_token", "templates/_pod.tpl", '{{ eq $component "controller" }}', "true"),
    ("Everywhere.test_only_the_controller_has_a_token", "templates/migrate.yaml", "      automountServiceAccountToken: false", "      automountServiceAccountToken: true"),
    ("Everywhere.test_no_pod_is_told_of_services", "templates/dev/_store.tpl", "enableServiceLinks: false", "enableServiceLinks: true"),
    ("Everywhere.test_every_container_says_what_it_needs", "values.yaml", "requests: { cpu: 20m, memory: 32Mi }", "requests: { cpu: 20m }"),
    ("Everywhere.test_what_is_mounted_is_there_and_files_can_be_written_in_tmp_only", "templates/_pod.tpl", "- name: ca-bundle\n", "- name: ca\n"),
    ("Everywhere.test_every_object_is_labelled_and_in_the_namespace", "templates/networkpolicies.yaml", "  name: {{ $name }}-to-dns\n  namespace: {{ .Release.Namespace }}\n", "  name: {{ $name }}-to-dns\n"),
    ("Everywhere.test_selectors_find_their_pods_and_only_those", "templates/roles/services.yaml", 'include "millrace.selectorLabels" $scope', 'include "millrace.selectorLabels" (dict "root" $)'),
    ("Everywhere.test_accounts_and_config_that_pods_name_are_made_before_them", "templates/roles/serviceaccounts.yaml", "{{- if and $own.serviceAccount.create", '{{- if and (ne $component "rebuild") $own.serviceAccount.create'),
    ("Everywhere.test_roles_are_told_nothing_that_they_refuse", "templates/_settings.tpl", '"for" (list "query") "required" true', '"for" $everyone "required" true'),
    ("Everywhere.test_no_secret_stands_in_the_open", "templates/_settings.tpl", '{{- $_ := set $out "MILLRACE_NAMESPACE" $settings.namespace }}', '{{- $_ := set $out "MILLRACE_NAMESPACE" $settings.namespace }}{{- $_ := set $out "DATABASE_URL" "postgres://x" }}'),
    ("Roles.test_probes_ask_different_questions_and_nothing_is_killed_while_it_waits", "templates/_pod.tpl", "{ path: /readyz, port: admin }", "{ path: /livez, port: admin }"),
    ("Roles.test_the_grace_period_is_longer_than_lame_duck_and_drain", "templates/_pod.tpl", "{{ add (int64 (default 0 $own.lameDuckSeconds)) (int64 $root.Values.settings.drainSeconds) 10 }}", "30"),
    ("Roles.test_there_is_one_controller_at_a_time", "templates/_pod.tpl", "strategy: { type: Recreate }", "strategy: { type: RollingUpdate }"),
    ("Roles.test_a_rolling_upgrade_takes_none_away_before_there_is_another", "templates/_pod.tpl", "maxUnavailable: 0", "maxUnavailable: 1"),
    ("Roles.test_replicas_spread_and_other_constraints_replace_it", "templates/_pod.tpl", '"topology.kubernetes.io/zone" "kubernetes.io/hostname"', '"kubernetes.io/hostname"'),
    ("Roles.test_settings_that_change_make_other_pods_and_only_those_it_concerns", "templates/_pod.tpl", '{{ include "millrace.secretsChecksum" $root }}', '"none"'),
    ("Roles.test_settings_that_change_make_other_pods_and_only_those_it_concerns", "templates/_pod.tpl", '{{ include "millrace.rebuildTemplate" $root | sha256sum }}', '"none"'),
    ("Roles.test_pods_do_not_depend_on_what_is_made_up", "templates/_settings.tpl", '{{- include "millrace.secrets" . | sha256sum }}', '{{- include "millrace.secretData" . | sha256sum }}'),
    ("Roles.test_the_controller_may_do_what_it_does_and_no_more", "templates/roles/rbac.yaml", "resources: [jobs]", 'resources: [jobs, secrets]'),
    ("Roles.test_rebuilds_run_with_the_settings_of_projectors", "templates/_pod.tpl", "}}-projector }\n", "}}-controller }\n"),
    ("Roles.test_without_the_controller_projectors_rebuild", "templates/_settings.tpl", '{{- if and .Values.controller.enabled (eq .Values.controller.rebuildBy "Job") }}job', '{{- if eq .Values.controller.rebuildBy "Job" }}job'),
    ("Roles.test_verify_runs_as_projectors_do_and_can_be_left_out", "templates/_settings.tpl", '{{- $readers := list "projector" "query" "controller" "rebuild" "verify" "migrate" }}', '{{- $readers := list "projector" "query" "controller" "rebuild" "migrate" }}'),
    ("Scaling.test_a_deployment_that_is_scaled_says_no_number", "templates/_pod.tpl", '{{- if eq $own.autoscaling.kind "None" }}', "{{- if true }}"),
    ("Scaling.test_what_scales_names_its_deployment", "templates/roles/scaling.yaml", "kind: Deployment, name: {{ $name }} }\n  # Never", "kind: Deployment, name: {{ $name }}s }\n  # Never"),
    ("Scaling.test_more_projectors_than_partitions_are_refused", "templates/validate.yaml", "{{- if gt $most (int .Values.settings.partitions) }}", "{{- if gt $most 255 }}"),
    ("Scaling.test_a_budget_is_made_above_one_replica_only", "templates/roles/scaling.yaml", '(gt (int (include "millrace.minReplicas" $own)) 1)', "true"),
    ("Scaling.test_keda_needs_to_know_whom_it_asks", "templates/roles/scaling.yaml", '{{ required (printf "%s.autoscaling.keda.serverAddress is not set: name the Prometheus that KEDA asks" $component) $scaling.keda.serverAddress | quote }}', "{{ $scaling.keda.serverAddress | quote }}"),
    ("Edge.test_query_hands_writes_on_behind_a_plain_ingress_only", "templates/_helpers.tpl", "{{- if .Values.ingress.enabled }}true{{ end }}", "true"),
    ("Edge.test_query_hands_writes_on_behind_a_plain_ingress_only", "templates/_helpers.tpl", "{{- if .Values.ingress.enabled }}true{{ end }}", ""),
    ("Edge.test_an_ingress_leads_everything_to_query", "templates/ingress.yaml", "}}-query, port: { name: http }", "}}-command, port: { name: http }"),
    ("Edge.test_a_route_leads_writes_to_command_and_all_else_to_query", "templates/httproute.yaml", '"PUT" "PATCH"', '"PATCH"'),
    ("Edge.test_every_way_in_ends_at_a_public_port", "templates/roles/services.yaml", "name: internal, port: 8090", "name: admin, port: 9090"),
    ("Policies.test_everything_is_denied_and_each_pod_has_what_it_needs", "templates/networkpolicies.yaml", "policyTypes: [Ingress, Egress]", "policyTypes: [Ingress]"),
    ("Policies.test_everything_is_denied_and_each_pod_has_what_it_needs", "templates/networkpolicies.yaml", '"rebuild" "verify" "migrate" }}', '"verify" "migrate" }}'),
    ("Policies.test_bundled_stores_are_reached_by_name_and_others_by_port", "templates/networkpolicies.yaml", '"s3" 9000', '"s3" 9001'),
    ("Policies.test_the_edge_reaches_the_public_ports_only", "templates/networkpolicies.yaml", "    - ports: [{ port: admin }]\n      from:\n        {{- toYaml $policy.monitoring | nindent 8 }}", "    - ports: [{ port: admin }]"),
    ("Secrets.test_a_reference_wins_and_nothing_of_it_is_in_the_charts_secret", "templates/_settings.tpl", "key: {{ default $variable $secret.ref.key | quote }}", "key: {{ $variable | quote }}"),
    ("Secrets.test_with_a_secret_of_ones_own_none_is_made", "templates/roles/secret.yaml", "{{- if not .Values.existingSecret }}", "{{- if true }}"),
    ("Secrets.test_something_must_say_where_the_stores_are", "templates/_settings.tpl", "{{- else if $secret.required }}", "{{- else if false }}"),
    ("Secrets.test_what_is_made_up_is_long_and_only_there_when_nothing_says_it", "templates/_settings.tpl", "MILLRACE_CURSOR_KEY: 48", "MILLRACE_CURSOR_KEY: 24"),
    ("Migration.test_with_stores_that_are_there_it_is_a_hook_with_all_that_it_needs", "templates/migrate.yaml", '{{- $secret = $name }}', ""),
    ("Migration.test_with_stores_that_are_there_it_is_a_hook_with_all_that_it_needs", "templates/_helpers.tpl", "pre-install,pre-upgrade", "post-install,pre-upgrade"),
    ("Migration.test_with_stores_of_the_release_it_is_a_job_beside_them", "templates/migrate.yaml", '{{- $mode = "Job" }}', ""),
    ("Migration.test_it_can_be_left_out", "templates/migrate.yaml", '{{- if ne $mode "None" }}', "{{- if true }}"),
    ("Migration.test_it_makes_what_the_roles_expect", "templates/_settings.tpl", '(toString (int64 $settings.partitions))', '(eq $component "migrate" | ternary "8" (toString (int64 $settings.partitions)))'),
    ("Dev.test_nothing_of_it_is_there_unless_it_is_asked_for", "templates/_helpers.tpl", "{{- if and .root.Values.dev.enabled (get", "{{- if and true (get"),
    ("Dev.test_each_store_is_one_replica_with_a_service", "templates/dev/_store.tpl", "replicas: 1", "replicas: 2"),
    ("Dev.test_roles_are_told_where_it_is", "templates/_settings.tpl", "dev-dynamodb:8000", "dev-dynamodb:8001"),
    ("Dev.test_data_is_on_claims_when_it_is_to_last", "templates/dev/_store.tpl", "{{- $keeps := and .data", "{{- $keeps := and false"),
    ("Dev.test_its_password_can_be_given_where_nothing_can_be_kept", "templates/_settings.tpl", '{{- $_ := set $out "POSTGRES_PASSWORD" . }}', ""),
    ("Dev.test_one_server_has_no_three_copies", "templates/validate.yaml", "(gt (int .Values.nats.replicas) 1)", "(gt (int .Values.nats.replicas) 3)"),
    ("Definition.test_it_is_that_of_the_repository", "files/crds/replays.yaml", "- rpl", "- rpy"),
    ("Definition.test_it_is_that_of_the_repository", "templates/crds.yaml", "helm.sh/resource-policy: keep", "helm.sh/resource-policy: delete"),
    ("Schema.test_what_is_misspelt_or_makes_no_sense_is_refused", "values.schema.json", '"maximum": 256', '"maximum": 512'),
    ("Schema.test_every_value_is_known_to_it", "values.schema.json", '"additionalProperties": false', '"additionalProperties": true'),
]


def failed(test, chart):
    """Whether the test says so: a chart that cannot be rendered any more shows nothing."""
    environment = {**os.environ, "MILLRACE_CHART": str(chart), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "unittest", f"test_chart.{test}"]
    ended = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
    return "\nFAIL: " in ended.stderr


def main():
    words = sys.argv[1:]
    survived = []
    for test, file, old, new in MUTATIONS:
        if words and not any(word in test for word in words):
            continue
        with tempfile.TemporaryDirectory() as folder:
            chart = pathlib.Path(folder) / "millrace"
            shutil.copytree(CHART, chart)
            text = (chart / file).read_text()
            if old not in text:
                sys.exit(f"{file} has no {old!r}: correct mutations.py")
            (chart / file).write_text(text.replace(old, new))
            outcome = "fails, as it should" if failed(test, chart) else "PASSES"
            print(f"{test}: {outcome}", flush=True)
            if outcome == "PASSES":
                survived.append((test, file, new))
    for each in survived:
        print("not noticed:", *each)
    sys.exit(bool(survived))


main()
