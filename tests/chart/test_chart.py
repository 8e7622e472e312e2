"""What must hold of everything that the chart renders. Each was seen to fail: see mutations.py."""

import base64
import json
import re
import unittest

import yaml

from chart import (
    CHART, MATRIX, ROLES, ROOT, Refused, component, environment, of_kind, one, pod_templates, render, variables,
)

DEV = ("postgresql", "nats", "dynamodb", "s3", "sns")


class Everywhere(unittest.TestCase):
    """Rules that hold in every file of the matrix."""

    def each_pod(self, judge):
        for values in MATRIX:
            objects = render(values)
            for name, template in pod_templates(objects):
                with self.subTest(values=values, pods=name):
                    judge(objects, name, template)

    def test_every_container_is_restricted(self):
        def judge(_objects, _name, template):
            pod = template["spec"]["securityContext"]
            self.assertTrue(pod["runAsNonRoot"])
            self.assertGreater(pod["runAsUser"], 0)
            self.assertEqual(pod["seccompProfile"], {"type": "RuntimeDefault"})
            for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
                security = container["securityContext"]
                self.assertFalse(security["allowPrivilegeEscalation"])
                self.assertTrue(security["readOnlyRootFilesystem"])
                self.assertEqual(security["capabilities"], {"drop": ["ALL"]})

        self.each_pod(judge)

    def test_only_the_controller_has_a_token(self):
        def judge(_objects, name, template):
            wanted = name.endswith("-controller")
            self.assertIs(template["spec"]["automountServiceAccountToken"], wanted)

        self.each_pod(judge)
        for values in MATRIX:
            for account in of_kind(render(values), "ServiceAccount"):
                self.assertIs(account["automountServiceAccountToken"], False)

    def test_no_pod_is_told_of_services(self):
        def judge(_objects, _name, template):
            self.assertIs(template["spec"]["enableServiceLinks"], False)

        self.each_pod(judge)

    def test_every_container_says_what_it_needs(self):
        def judge(_objects, _name, template):
            for container in template["spec"]["containers"]:
                resources = container["resources"]
                self.assertLessEqual({"cpu", "memory"}, set(resources["requests"]))
                self.assertIn("memory", resources["limits"])

        self.each_pod(judge)

    def test_what_is_mounted_is_there_and_files_can_be_written_in_tmp_only(self):
        def judge(_objects, _name, template):
            volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
            for container in template["spec"]["containers"]:
                mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
                self.assertLessEqual(set(mounts.values()), set(volumes))
                self.assertIn("emptyDir", volumes[mounts["/tmp"]])

        self.each_pod(judge)

    def test_every_object_is_labelled_and_in_the_namespace(self):
        for values in MATRIX:
            for each in render(values):
                with self.subTest(values=values, kind=each["kind"], name=each["metadata"]["name"]):
                    if each["kind"] == "CustomResourceDefinition":
                        continue
                    self.assertEqual(each["metadata"].get("namespace"), "shop")
                    labels = each["metadata"]["labels"]
                    self.assertEqual(labels["app.kubernetes.io/instance"], "shop")
                    self.assertEqual(labels["app.kubernetes.io/part-of"], "millrace")
                    self.assertLessEqual(len(each["metadata"]["name"]), 63)

    def test_selectors_find_their_pods_and_only_those(self):
        for values in MATRIX:
            objects = render(values)
            pods = {name: template["metadata"]["labels"] for name, template in pod_templates(objects)}
            for each in of_kind(objects, "Service") + of_kind(objects, "PodDisruptionBudget"):
                selector = each["spec"]["selector"]
                selector = selector.get("matchLabels", selector)
                found = [name for name, labels in pods.items() if selector.items() <= labels.items()]
                with self.subTest(values=values, name=each["metadata"]["name"]):
                    self.assertEqual(found, [each["metadata"]["name"]])

    def test_accounts_and_config_that_pods_name_are_made_before_them(self):
        for values in MATRIX:
            objects = render(values)
            accounts = {each["metadata"]["name"]: each for each in of_kind(objects, "ServiceAccount")}
            for name, template in pod_templates(objects):
                with self.subTest(values=values, pods=name):
                    account = template["spec"].get("serviceAccountName")
                    if account and account not in ("default", "projector"):
                        self.assertIn(account, accounts)
                    environment(objects, template)

    def test_roles_are_told_nothing_that_they_refuse(self):
        def judge(objects, name, template):
            role = component(template)
            role = {"rebuild": "projector"}.get(role, role)
            if role not in ROLES:
                return
            told = environment(objects, template)
            ours = {variable for variable in told if variable.startswith("MILLRACE_")}
            self.assertLessEqual(ours, variables(role))
            self.assertIn("DATABASE_URL", told)
            self.assertIn("NATS_URL", told)

        self.each_pod(judge)

    def test_no_secret_stands_in_the_open(self):
        secret = re.compile("DATABASE_URL|NATS_URL|TOKEN|_KEY$|PASSWORD|SECRET")

        def judge(_objects, _name, template):
            for variable in template["spec"]["containers"][0].get("env", []):
                if secret.search(variable["name"]):
                    self.assertIn("secretKeyRef", variable.get("valueFrom", {}), variable["name"])

        self.each_pod(judge)
        for values in MATRIX:
            for config in of_kind(render(values), "ConfigMap"):
                self.assertEqual([key for key in config["data"] if secret.search(key)], [])


class Roles(unittest.TestCase):
    def test_probes_ask_different_questions_and_nothing_is_killed_while_it_waits(self):
        for name in ROLES:
            container = one(render("minimal"), "Deployment", f"-{name}")["spec"]["template"]["spec"]["containers"][0]
            self.assertEqual(container["livenessProbe"]["httpGet"], {"path": "/livez", "port": "admin"})
            self.assertEqual(container["readinessProbe"]["httpGet"], {"path": "/readyz", "port": "admin"})
            startup = container["startupProbe"]
            self.assertEqual(startup["httpGet"]["path"], "/livez")
            self.assertGreaterEqual(startup["periodSeconds"] * startup["failureThreshold"], 300)

    def test_the_grace_period_is_longer_than_lame_duck_and_drain(self):
        for settings in ((), ("settings.drainSeconds=90", "command.lameDuckSeconds=45", "query.lameDuckSeconds=30")):
            objects = render("minimal", *settings)
            for name in ROLES:
                template = one(objects, "Deployment", f"-{name}")["spec"]["template"]
                told = environment(objects, template)
                busy = int(told["MILLRACE_DRAIN_MS"]) + int(told.get("MILLRACE_LAME_DUCK_MS", 0))
                self.assertGreaterEqual(template["spec"]["terminationGracePeriodSeconds"], busy / 1000 + 5)
        for name in ("command", "query"):
            template = one(render("minimal"), "Deployment", f"-{name}")["spec"]["template"]
            self.assertGreater(int(environment(render("minimal"), template)["MILLRACE_LAME_DUCK_MS"]), 0)

    def test_there_is_one_controller_at_a_time(self):
        spec = one(render("minimal"), "Deployment", "-controller")["spec"]
        self.assertEqual((spec["replicas"], spec["strategy"]["type"]), (1, "Recreate"))

    def test_a_rolling_upgrade_takes_none_away_before_there_is_another(self):
        for name in ("command", "projector", "query"):
            strategy = one(render("minimal"), "Deployment", f"-{name}")["spec"]["strategy"]
            self.assertEqual(strategy["rollingUpdate"]["maxUnavailable"], 0)

    def test_replicas_spread_and_other_constraints_replace_it(self):
        pod = one(render("minimal"), "Deployment", "-query")["spec"]["template"]["spec"]
        keys = [each["topologyKey"] for each in pod["topologySpreadConstraints"]]
        self.assertEqual(keys, ["topology.kubernetes.io/zone", "kubernetes.io/hostname"])

    def test_settings_that_change_make_other_pods_and_only_those_it_concerns(self):
        def sums(*settings):
            deployments = of_kind(render("minimal", *settings), "Deployment")
            return {
                component(each): each["spec"]["template"]["metadata"]["annotations"] for each in deployments
            }

        before = sums()
        self.assertEqual(before, sums("command.replicas=5"))
        changed = sums("query.connections=7")
        self.assertNotEqual(before["query"]["checksum/config"], changed["query"]["checksum/config"])
        self.assertEqual(before["command"], changed["command"])
        secret = sums("postgresql.url=postgres://other/db")
        for name in ROLES:
            self.assertNotEqual(before[name]["checksum/secrets"], secret[name]["checksum/secrets"])
        rebuild = sums("rebuild.priorityClassName=low")
        self.assertNotEqual(before["controller"], rebuild["controller"])

    def test_pods_do_not_depend_on_what_is_made_up(self):
        templates = [dict(pod_templates(render("dev", f"dev.sns.topic=orders{n}.fifo", "dev.sns.topic=orders.fifo"))) for n in (1, 2)]
        self.assertEqual(*templates)

    def test_the_controller_may_do_what_it_does_and_no_more(self):
        role = one(render("minimal"), "Role", "-controller")
        allowed = {resource for rule in role["rules"] for resource in rule["resources"]}
        self.assertEqual(allowed, {"replays", "replays/status", "replays/finalizers", "jobs", "events"})
        self.assertFalse(any("*" in rule[part] for rule in role["rules"] for part in rule))
        for values in MATRIX:
            self.assertEqual(of_kind(render(values), "ClusterRole"), [])
        alone = one(render("minimal", "controller.rebuildBy=Projector"), "Role", "-controller")
        self.assertNotIn("jobs", {resource for rule in alone["rules"] for resource in rule["resources"]})

    def test_rebuilds_run_with_the_settings_of_projectors(self):
        objects = render("external-everything")
        template = dict(pod_templates(objects))["shop-rebuild"]
        told = environment(objects, template)
        controller = one(objects, "Deployment", "-controller")["spec"]["template"]
        controllers = environment(objects, controller)
        self.assertEqual(controllers["MILLRACE_JOB_POD_TEMPLATE"], "/etc/millrace/rebuild/pod-template.json")
        self.assertTrue(controllers["MILLRACE_JOB_IMAGE"].startswith("registry.example/shop/millrace@sha256:"))
        self.assertEqual(told["NATS_CREDS"], "/etc/millrace/nats/user.creds")
        self.assertEqual(told["MILLRACE_REBUILD_BY"], "job")
        self.assertIn("MILLRACE_NOTIFICATIONS_TOPIC_ARN", told)
        self.assertEqual(template["metadata"]["labels"]["app.kubernetes.io/component"], "rebuild")
        self.assertEqual(template["metadata"]["labels"]["tier"], "bulk")
        self.assertNotIn("MILLRACE_CURSOR_KEY", told)

    def test_without_the_controller_projectors_rebuild(self):
        for settings in (("controller.enabled=false",), ("controller.rebuildBy=Projector",)):
            objects = render("minimal", *settings)
            template = one(objects, "Deployment", "-projector")["spec"]["template"]
            self.assertEqual(environment(objects, template)["MILLRACE_REBUILD_BY"], "projector")
            self.assertIsNone(one(objects, "ConfigMap", "-rebuild"))

    def test_verify_runs_as_projectors_do_and_can_be_left_out(self):
        objects = render("external-everything")
        template = dict(pod_templates(objects))["shop-verify"]
        told = environment(objects, template)
        projector = environment(objects, one(objects, "Deployment", "-projector")["spec"]["template"])
        for variable in ("DATABASE_URL", "READ_DATABASE_URL", "MILLRACE_BILLING_DATABASE_URL", "NATS_CREDS", "MILLRACE_NAMESPACE", "MILLRACE_OWNERS"):
            self.assertEqual(told.get(variable), projector[variable])
        container = template["spec"]["containers"][0]
        self.assertEqual(container["command"] + container["args"], ["/millrace", "verify", "--projection", "order-read-models"])
        self.assertEqual(of_kind(render("minimal", "verify.enabled=false"), "CronJob"), [])


class Scaling(unittest.TestCase):
    def test_a_deployment_that_is_scaled_says_no_number(self):
        for values, names in (("production", ("command", "query")), ("keda", ("command", "projector", "query"))):
            for name in names:
                self.assertNotIn("replicas", one(render(values), "Deployment", f"-{name}")["spec"])
        self.assertEqual(one(render("production"), "Deployment", "-projector")["spec"]["replicas"], 4)

    def test_what_scales_names_its_deployment(self):
        for values, kind in (("production", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")):
            found = of_kind(render(values), kind)
            self.assertTrue(found)
            for each in found:
                self.assertTrue(one(render(values), "Deployment", each["spec"]["scaleTargetRef"]["name"]))
        metrics = one(render("production"), "HorizontalPodAutoscaler", "-query")["spec"]["metrics"]
        self.assertEqual([metric["type"] for metric in metrics], ["Resource", "Pods"])
        trigger = one(render("keda"), "ScaledObject", "-projector")["spec"]["triggers"][0]
        self.assertIn('millrace_projection_lag_events{namespace="shop"', trigger["metadata"]["query"])

    def test_more_projectors_than_partitions_are_refused(self):
        for setting in ("autoscaling.maxReplicas=17", "autoscaling.maxReplicas=200"):
            with self.assertRaisesRegex(Refused, "16 partitions"):
                render("keda", f"projector.{setting}")
        with self.assertRaisesRegex(Refused, "16 partitions"):
            render("minimal", "projector.replicas=17")
        render("keda", "projector.autoscaling.maxReplicas=17", "settings.partitions=17")

    def test_a_budget_is_made_above_one_replica_only(self):
        self.assertEqual(of_kind(render("dev"), "PodDisruptionBudget"), [])
        self.assertIsNone(one(render("keda"), "PodDisruptionBudget", "-command"))
        self.assertTrue(one(render("keda"), "PodDisruptionBudget", "-query"))
        self.assertTrue(one(render("minimal"), "PodDisruptionBudget", "-projector"))

    def test_keda_needs_to_know_whom_it_asks(self):
        with self.assertRaisesRegex(Refused, "serverAddress"):
            render("minimal", "query.autoscaling.kind=KEDA")


class Edge(unittest.TestCase):
    def command_url(self, objects):
        return environment(objects, one(objects, "Deployment", "-query")["spec"]["template"]).get("COMMAND_URL")

    def test_query_hands_writes_on_behind_a_plain_ingress_only(self):
        for values in MATRIX:
            objects = render(values)
            wanted = "http://shop-millrace-command:8080" if of_kind(objects, "Ingress") else None
            with self.subTest(values=values):
                self.assertEqual(self.command_url(objects), wanted)
        self.assertIsNone(self.command_url(render("httproute")))

    def test_an_ingress_leads_everything_to_query(self):
        rules = of_kind(render("ingress"), "Ingress")[0]["spec"]["rules"]
        path = rules[0]["http"]["paths"][0]
        self.assertEqual((path["path"], path["pathType"]), ("/", "Prefix"))
        self.assertEqual(path["backend"]["service"], {"name": "shop-millrace-query", "port": {"name": "http"}})
        spec = of_kind(render("production"), "Ingress")[0]["spec"]
        self.assertEqual(spec["rules"][0]["host"], "orders.example.com")
        self.assertEqual(spec["tls"][0]["secretName"], "orders-tls")

    def test_a_route_leads_writes_to_command_and_all_else_to_query(self):
        rules = of_kind(render("httproute"), "HTTPRoute")[0]["spec"]["rules"]
        to = {}
        for rule in rules:
            for match in rule["matches"]:
                self.assertEqual(match["path"], {"type": "PathPrefix", "value": "/"})
                to[match.get("method", "other")] = rule["backendRefs"][0]["name"]
        command, query = "shop-millrace-command", "shop-millrace-query"
        self.assertEqual(to, {"POST": command, "PUT": command, "PATCH": command, "DELETE": command, "other": query})

    def test_every_way_in_ends_at_a_public_port(self):
        for values in MATRIX:
            for service in of_kind(render(values), "Service"):
                names = [port["name"] for port in service["spec"]["ports"]]
                self.assertNotIn("admin", names)
        with self.assertRaisesRegex(Refused, "parentRefs"):
            render("minimal", "httpRoute.enabled=true")


class Policies(unittest.TestCase):
    def test_everything_is_denied_and_each_pod_has_what_it_needs(self):
        for values in MATRIX:
            objects = render(values)
            policies = {each["metadata"]["name"].removeprefix("shop-").removeprefix("millrace-"): each["spec"] for each in of_kind(objects, "NetworkPolicy")}
            if values == "subset":
                self.assertEqual(policies, {})
                continue
            deny = policies["default-deny"]
            self.assertEqual(sorted(deny["policyTypes"]), ["Egress", "Ingress"])
            self.assertNotIn("ingress", deny)
            self.assertNotIn("egress", deny)
            for name, template in pod_templates(objects):
                labels = template["metadata"]["labels"]
                allowed = [one for one, spec in policies.items() if selects(spec["podSelector"], labels)]
                with self.subTest(values=values, pods=name):
                    self.assertIn("default-deny", allowed)
                    self.assertIn("to-dns", allowed)
                    kind = component(template)
                    self.assertEqual("to-stores" in allowed, not kind.startswith("dev-"))
                    self.assertEqual("to-command" in allowed, kind in ("projector", "query", "controller", "rebuild", "verify"))
                    self.assertEqual("controller-to-api-server" in allowed, kind == "controller")
                    if kind.startswith("dev-"):
                        self.assertIn(kind, allowed)

    def test_bundled_stores_are_reached_by_name_and_others_by_port(self):
        flows = one(render("dev"), "NetworkPolicy", "-to-stores")["spec"]["egress"]
        ports = sorted(flow["ports"][0]["port"] for flow in flows if "to" in flow)
        self.assertEqual(ports, [4222, 5432, 8000, 9000, 9911])
        flows = one(render("minimal"), "NetworkPolicy", "-to-stores")["spec"]["egress"]
        self.assertEqual(sorted(flow["ports"][0]["port"] for flow in flows), [443, 4222, 5432])

    def test_the_edge_reaches_the_public_ports_only(self):
        for name in ("command", "query"):
            spec = one(render("production"), "NetworkPolicy", f"millrace-{name}")["spec"]
            edge = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}
            ports = [rule["ports"][0]["port"] for rule in spec["ingress"] if edge in rule.get("from", [])]
            self.assertEqual(ports, ["http"])
            for rule in spec["ingress"]:
                self.assertTrue(rule.get("from"), f"{name} lets everybody in to {rule['ports']}")


def selects(selector, labels):
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    return all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", []))


class Secrets(unittest.TestCase):
    def test_a_reference_wins_and_nothing_of_it_is_in_the_charts_secret(self):
        objects = render("external-everything")
        told = environment(objects, one(objects, "Deployment", "-query")["spec"]["template"])
        self.assertEqual(told["DATABASE_URL"]["secretKeyRef"], {"name": "pg-log", "key": "uri"})
        self.assertEqual(told["QUERY_DATABASE_URL"]["secretKeyRef"], {"name": "pg-replica", "key": "uri"})
        self.assertEqual(told["MILLRACE_ORDERING_DATABASE_URL"]["secretKeyRef"]["name"], "shop")
        self.assertNotIn("DATABASE_URL", one(objects, "Secret", "shop")["data"])
        command = environment(objects, one(objects, "Deployment", "-command")["spec"]["template"])
        for variable in ("QUERY_DATABASE_URL", "READ_DATABASE_URL", "MILLRACE_BILLING_DATABASE_URL", "S3_ACCESS_KEY_ID"):
            self.assertNotIn(variable, command)

    def test_with_a_secret_of_ones_own_none_is_made(self):
        objects = render("production")
        self.assertEqual(of_kind(objects, "Secret"), [])
        told = environment(objects, one(objects, "Deployment", "-command")["spec"]["template"])
        self.assertEqual(told["DATABASE_URL"]["secretKeyRef"], {"name": "millrace-stores", "key": "DATABASE_URL"})
        self.assertTrue(told["AWS_ACCESS_KEY_ID"]["secretKeyRef"]["optional"])
        with self.assertRaisesRegex(Refused, "put it into that Secret"):
            render("production", "postgresql.url=postgres://x/y")

    def test_something_must_say_where_the_stores_are(self):
        for missing in ("postgresql.url=", "nats.url="):
            with self.assertRaisesRegex(Refused, "nothing says"):
                render("minimal", missing)

    def test_what_is_made_up_is_long_and_only_there_when_nothing_says_it(self):
        data = one(render("dev"), "Secret", "millrace")["data"]
        self.assertEqual(
            set(data),
            {"DATABASE_URL", "NATS_URL", "MILLRACE_INTERNAL_TOKEN", "MILLRACE_CURSOR_KEY", "POSTGRES_PASSWORD", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"},
        )
        # Of the lengths, base64 has four thirds.
        self.assertGreaterEqual(min(len(data[key]) for key in ("MILLRACE_INTERNAL_TOKEN", "MILLRACE_CURSOR_KEY")), 64)
        given = one(render("external-everything"), "Secret", "shop")["data"]
        self.assertEqual(given["MILLRACE_CURSOR_KEY"], "YS1rZXktb2YtYXQtbGVhc3QtdGhpcnR5LXR3by1ieXRlcw==")


class Migration(unittest.TestCase):
    def objects(self, values, *settings):
        return [each for each in render(values, *settings) if component(each) == "migrate"]

    def test_with_stores_that_are_there_it_is_a_hook_with_all_that_it_needs(self):
        objects = self.objects("minimal")
        self.assertEqual(sorted(each["kind"] for each in objects), ["ConfigMap", "Job", "Secret", "ServiceAccount"])
        weights = {}
        for each in objects:
            annotations = each["metadata"]["annotations"]
            self.assertEqual(annotations["helm.sh/hook"], "pre-install,pre-upgrade")
            self.assertEqual(annotations["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded")
            weights[each["kind"]] = int(annotations["helm.sh/hook-weight"])
            # Another than that of the release, which is not there yet.
            self.assertEqual(each["metadata"]["name"], "shop-millrace-migrate-hook")
        self.assertEqual(max(weights, key=weights.get), "Job")
        template = one(objects, "Job", "-hook")["spec"]["template"]
        told = environment(objects, template)
        self.assertEqual(told["DATABASE_URL"]["secretKeyRef"]["name"], "shop-millrace-migrate-hook")
        self.assertEqual(set(one(objects, "Secret", "-hook")["data"]), {"DATABASE_URL", "NATS_URL"})
        self.assertEqual(template["spec"]["serviceAccountName"], "shop-millrace-migrate-hook")

    def test_with_stores_of_the_release_it_is_a_job_beside_them(self):
        objects = self.objects("dev")
        for each in objects:
            self.assertNotIn("annotations", each["metadata"])
        self.assertEqual(of_kind(objects, "Job")[0]["metadata"]["name"], "shop-millrace-migrate-1")
        told = environment(objects, of_kind(objects, "Job")[0]["spec"]["template"])
        self.assertEqual(told["DATABASE_URL"]["secretKeyRef"]["name"], "shop-millrace")

    def test_it_can_be_left_out(self):
        self.assertEqual(self.objects("minimal", "migrate.mode=None"), [])

    def test_it_makes_what_the_roles_expect(self):
        for values in MATRIX:
            objects = render(values)
            jobs = [each for each in of_kind(objects, "Job") if component(each) == "migrate"]
            if not jobs:
                continue
            told = environment(objects, jobs[0]["spec"]["template"])
            command = environment(objects, one(objects, "Deployment", "-command")["spec"]["template"])
            for variable in ("MILLRACE_PARTITIONS", "MILLRACE_NAMESPACE", "MILLRACE_NATS_REPLICAS", "MILLRACE_BANKING_LOG"):
                self.assertEqual(told[variable], command[variable])


class Dev(unittest.TestCase):
    def test_nothing_of_it_is_there_unless_it_is_asked_for(self):
        self.assertEqual([each for each in render("minimal") if component(each).startswith("dev-")], [])
        for part in DEV:
            objects = render("dev", f"dev.{part}.enabled=false", "postgresql.url=postgres://x/y", "nats.url=nats://x")
            self.assertEqual([each for each in objects if component(each) == f"dev-{part}"], [])

    def test_each_store_is_one_replica_with_a_service(self):
        objects = render("dev")
        for part in DEV:
            self.assertEqual(one(objects, "StatefulSet", f"-dev-{part}")["spec"]["replicas"], 1)
            self.assertTrue(one(objects, "Service", f"-dev-{part}"))

    def test_roles_are_told_where_it_is(self):
        objects = render("dev")
        told = environment(objects, one(objects, "Deployment", "-projector")["spec"]["template"])
        self.assertEqual(told["DYNAMODB_ENDPOINT"], "http://shop-millrace-dev-dynamodb:8000")
        self.assertEqual(told["S3_ENDPOINT"], "http://shop-millrace-dev-s3:9000")
        self.assertEqual(told["MILLRACE_RECEIPTS_URL"], "s3://receipts")
        self.assertEqual(told["SNS_ENDPOINT"], "http://shop-millrace-dev-sns:9911")
        self.assertEqual(told["MILLRACE_NOTIFICATIONS_TOPIC_ARN"], "arn:aws:sns:us-east-1:000000000000:orders.fifo")

    def test_data_is_on_claims_when_it_is_to_last(self):
        self.assertEqual(of_kind(render("dev"), "PersistentVolumeClaim"), [])
        objects = render("dev-persistent")
        claims = of_kind(objects, "PersistentVolumeClaim")
        self.assertEqual(len(claims), 4)
        for each in claims + [one(objects, "Secret", "millrace")]:
            self.assertEqual(each["metadata"]["annotations"]["helm.sh/resource-policy"], "keep")
        pod = one(objects, "StatefulSet", "-dev-postgresql")["spec"]["template"]["spec"]
        volume = next(each for each in pod["volumes"] if each["name"] == "data")
        self.assertEqual(volume["persistentVolumeClaim"]["claimName"], "shop-millrace-dev-postgresql")

    def test_its_password_can_be_given_where_nothing_can_be_kept(self):
        data = one(render("dev", "dev.postgresql.password=given"), "Secret", "millrace")["data"]
        self.assertEqual(base64.b64decode(data["POSTGRES_PASSWORD"]), b"given")
        url = base64.b64decode(data["DATABASE_URL"]).decode()
        self.assertEqual(url, "postgres://postgres:given@shop-millrace-dev-postgresql:5432/millrace")

    def test_one_server_has_no_three_copies(self):
        with self.assertRaisesRegex(Refused, "one server"):
            render("dev", "nats.replicas=3")


class Definition(unittest.TestCase):
    def test_it_is_that_of_the_repository(self):
        source = yaml.safe_load((ROOT / "k8s" / "crds" / "replays.yaml").read_text())
        self.assertEqual((CHART / "files/crds/replays.yaml").read_text(), (ROOT / "k8s/crds/replays.yaml").read_text())
        made = of_kind(render("minimal"), "CustomResourceDefinition")[0]
        self.assertEqual(made["metadata"].pop("annotations"), {"helm.sh/resource-policy": "keep"})
        self.assertEqual(made, source)
        self.assertEqual(of_kind(render("minimal", "crds.keep=false"), "CustomResourceDefinition"), [source])
        self.assertEqual(of_kind(render("minimal", "crds.install=false"), "CustomResourceDefinition"), [])


class Schema(unittest.TestCase):
    def test_what_is_misspelt_or_makes_no_sense_is_refused(self):
        for wrong in (
            "nats.replica=3", "command.replica=2", "comand.replicas=2", "image.pullPolicy=Sometimes", "settings.partitions=0",
            "settings.partitions=257", "settings.contexts={orders}", "settings.cursorKey=short", "command.resources.limit.cpu=1",
            "query.autoscaling.kind=hpa", "postgresql.url=mysql://x", "httpRoute.timeouts.request=65", "crds.keep=yes",
        ):
            with self.subTest(wrong=wrong), self.assertRaisesRegex(Refused, "schema|specifications"):
                render("minimal", wrong)

    def test_every_value_is_known_to_it(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        open_ones = []

        def walk(rule, path):
            rule = schema["definitions"][rule["$ref"].split("/")[-1]] if "$ref" in rule else rule
            if "properties" in rule and rule.get("additionalProperties") is not False:
                open_ones.append(path)
            for name, below in rule.get("properties", {}).items():
                walk(below, f"{path}.{name}")

        walk(schema, "")
        self.assertEqual(open_ones, [], "additionalProperties: false is missing")
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        self.assertLessEqual(set(values), set(schema["properties"]))


if __name__ == "__main__":
    unittest.main()
