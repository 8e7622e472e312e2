#!/usr/bin/env python3
"""Makes the Grafana dashboards of the chart from the description below.

    tests/chart/dashboards.py            write charts/millrace/files/dashboards/*.json
    tests/chart/dashboards.py --check    say whether they are what the description makes

A dashboard is rows of panels; a panel is a title, a unit, a sentence, and queries with what their
lines are called. $s stands for the series of the chosen namespace and release.
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "charts/millrace/files/dashboards"
SERIES = 'namespace="$namespace",release="$release"'
WIDTH, HEIGHT, COLUMNS = 8, 7, 3


def quantile(q, metric, by, more=""):
    """A quantile of a histogram over five minutes."""
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({metric}_bucket{{$s{more}}}[5m])))"


def rate(metric, by, more=""):
    """How much a counter grows in a second."""
    return f"sum by ({by}) (rate({metric}{{$s{more}}}[5m]))"


def most(metric, by, more=""):
    """The largest of a gauge that every process has."""
    return f"max by ({by}) ({metric}{{$s{more}}})"


def requests(component):
    """The panels that both HTTP services have."""
    this = f',component="{component}"'
    return [
        ("Requests", "reqps", "Answered requests a second.",
         [(rate("millrace_http_requests_total", "status", this), "{{status}}")]),
        ("Errors", "percentunit", "Share of requests answered with 5xx.",
         [(f'millrace:http_errors:ratio5m{{$s{this}}}', "5xx")]),
        ("Latency", "s", "Of all requests.",
         [(quantile(q, "millrace_http_request_seconds", "component", this), f"p{q * 100:g}") for q in (0.5, 0.9, 0.99)]),
        ("Requests by route", "reqps", "Answered requests a second.",
         [(rate("millrace_http_requests_total", "method, route", this), "{{method}} {{route}}")]),
        ("Slowest routes", "s", "99th percentile of the ten slowest.",
         [(f'topk(10, {quantile(0.99, "millrace_http_request_seconds", "method, route", this)})', "{{method}} {{route}}")]),
    ]


DASHBOARDS = {
    "write-side": ("Millrace: write side", [
        ("Commands", requests("command")),
        ("Event log", [
            ("Appended", "ops", "Events appended a second.",
             [("millrace:appended_events:rate5m{$s}", "{{context}}")]),
            ("Append, p99", "s", "How long a batch takes to be durable.",
             [(quantile(0.99, "millrace_append_seconds", "context"), "{{context}}")]),
            ("Events a batch", "short", "Grows with load: group commit.",
             [(f'{rate("millrace_append_batch_events_sum", "context")} / {rate("millrace_append_batch_events_count", "context")}', "{{context}}")]),
            ("Version conflicts", "ops", "Appends a second that came too late and are decided again.",
             [(rate("millrace_append_conflicts_total", "context"), "{{context}}")]),
            ("Head", "none", "The newest position.",
             [(most("millrace_log_head", "context"), "{{context}}")]),
            ("Halted", "bool", "1 where the log takes no appends: see MillraceLogHalted.",
             [(most("millrace_log_halted", "context"), "{{context}}")]),
        ]),
        ("Relay", [
            ("Published", "ops", "Events put into the stream a second.",
             [("millrace:relay_published:rate5m{$s}", "{{context}}")]),
            ("Stream behind log", "short", "Events that the log has and the stream does not.",
             [(most("millrace_relay_lag_events", "context"), "{{context}}")]),
            ("Relays at work", "none", "1 is right, 0 is nobody.",
             [("sum by (context) (millrace_relay_leader{$s})", "{{context}}")]),
            ("Repairs of streams", "short", "In an hour, by what was wrong.",
             [("sum by (context, kind) (increase(millrace_relay_repairs_total{$s}[1h]))", "{{context}} {{kind}}")]),
            ("Stream and log differ", "short", "Sequences that do not hold the event of their position, as of the last `millrace verify`.",
             [(most("millrace_verify_stream_differences", "context"), "{{context}}")]),
        ]),
        ("DynamoDB Streams", [
            ("Age", "s", "While records wait: how old the newest is that was read.",
             [(most("millrace_dynamodb_stream_age_seconds", "context"), "{{context}}")]),
            ("Lag", "short", "Events that the log has and the relay was not handed.",
             [(most("millrace_dynamodb_stream_lag_events", "context"), "{{context}}")]),
            ("Read from the log instead", "ops", "Events a second that no shard gave, by reason.",
             [(rate("millrace_dynamodb_stream_gap_events_total", "context, reason"), "{{context}} {{reason}}")]),
            ("Failed calls", "ops", "Throttled or failed, and repeated.",
             [(rate("millrace_dynamodb_stream_calls_failed_total", "context"), "{{context}}")]),
        ]),
    ]),
    "projections": ("Millrace: projections and effects", [
        ("Progress", [
            ("Behind, in time", "s", "Age of the oldest event that is not applied.",
             [("millrace:projection_lag_seconds:max{$s}", "{{projection}}")]),
            ("Behind, in positions", "short", "An upper bound of the events that are not applied; ends at 0.",
             [("millrace:projection_lag_events:sum{$s}", "{{projection}}")]),
            ("Applied", "ops", "Events a second.",
             [("millrace:projection_events:rate5m{$s}", "{{projection}}")]),
            ("Partitions at work", "short", "How many are owned: a multiple of settings.partitions is right.",
             [("sum by (projection) (millrace_projection_partitions{$s})", "{{projection}}")]),
            ("From append to readable, p99", "s", "What at_least waits for.",
             [(quantile(0.99, "millrace_write_to_readable_seconds", "projection"), "{{projection}}")]),
            ("Batch, p99", "s", "How long a batch takes to be committed.",
             [(quantile(0.99, "millrace_projection_batch_seconds", "projection"), "{{projection}}")]),
            ("Retries", "ops", "Batches a second that are tried again.",
             [(rate("millrace_projection_retries_total", "projection"), "{{projection}}")]),
        ]),
        ("What needs somebody", [
            ("Dead letters", "short", "Letters that wait for a decision.",
             [(most("millrace_dead_letters", "projection"), "{{projection}}")]),
            ("New dead letters", "short", "In an hour, by reason.",
             [("sum by (projection, reason) (increase(millrace_dead_letters_total{$s}[1h]))", "{{projection}} {{reason}}")]),
            ("Halts", "short", "In an hour: an event of a newer release, or a log behind a checkpoint.",
             [("sum by (projection, kind) (increase(millrace_projection_alerts_total{$s}[1h]))", "{{projection}} {{kind}}")]),
            ("Differ from the log", "short", "Keys, as of the last `millrace verify`.",
             [(most("millrace_verify_differences", "context, projection"), "{{context}} {{projection}}")]),
            ("Last verified", "s", "How long ago.",
             [(f'time() - {most("millrace_verify_last_timestamp_seconds", "context, projection")}', "{{context}} {{projection}}")]),
            ("Read from the log", "ops", "Times a second that a projection read the log, for what the stream no longer has.",
             [(rate("millrace_projection_log_reads_total", "projection"), "{{projection}}")]),
        ]),
        ("Effects and payments", [
            ("Effects", "ops", "Attempts a second, by outcome.",
             [(rate("millrace_effects_total", "reaction, outcome"), "{{reaction}} {{outcome}}")]),
            ("Effect, p99", "s", "How long an attempt takes.",
             [(quantile(0.99, "millrace_effect_seconds", "reaction"), "{{reaction}}")]),
            ("Cannot be performed", "bool", "1 while the endpoint does not take effects.",
             [(most("millrace_effects_unavailable", "reaction"), "{{reaction}}")]),
            ("Unfinished payments", "short", "Of all orders.",
             [(most("millrace_sagas_unfinished", "saga"), "{{saga}}")]),
            ("Oldest payment", "s", "For how long it has not got on.",
             [(most("millrace_saga_oldest_unfinished_seconds", "saga"), "{{saga}}")]),
            ("Steps of payments", "ops", "Pumps a second, by outcome.",
             [(rate("millrace_saga_pumps_total", "saga, outcome"), "{{saga}} {{outcome}}")]),
        ]),
    ]),
    "replays": ("Millrace: replays", [
        ("Replays", [
            ("Phases", "short", "How many Replays are in which phase.",
             [("max by (phase) (millrace_replays{$s}) > 0", "{{phase}}")]),
            ("Folded", "short", "Events that the Replays that go on have folded.",
             [("max(millrace_replay_events_folded{$s})", "folded")]),
            ("Behind", "short", "Positions to go, of the one that has most.",
             [("max(millrace_replay_positions_behind{$s})", "behind")]),
            ("Without progress", "s", "For how long a Replay that waits for nobody has not got on.",
             [("max(millrace_replay_still_seconds{$s})", "longest")]),
        ]),
        ("Work", [
            ("Loaded by projectors", "ops", "Events a second; Jobs are not scraped.",
             [(rate("millrace_rebuild_events_total", "projection"), "{{projection}}")]),
            ("Live views behind", "s", "What a rebuild costs the views that answer.",
             [("millrace:projection_lag_seconds:max{$s}", "{{projection}}")]),
            ("Held still for verification, p99", "s", "How long a live view was held still to compare it.",
             [(quantile(0.99, "millrace_verify_standstill_seconds", "projection"), "{{projection}}")]),
        ]),
        ("Controller", [
            ("Passes", "ops", "Looks at a Replay a second, by outcome.",
             [(rate("millrace_replay_passes_total", "outcome"), "{{outcome}}")]),
            ("Cannot be read", "short", "Replays that this release does not understand.",
             [("max(millrace_replays_undecodable{$s})", "Replays")]),
            ("Resource missing", "bool", "1 while the cluster does not know Replay.",
             [("max(millrace_replay_resource_missing{$s})", "missing")]),
        ]),
    ]),
    "queries": ("Millrace: queries", [
        ("Queries", requests("query")),
        ("Stores", [
            ("Time in the store, p99", "s", "With the time that at_least waited.",
             [(quantile(0.99, "millrace_query_seconds", "store, query"), "{{store}} {{query}}")]),
            ("Queries by store", "ops", "A second.",
             [(rate("millrace_query_seconds_count", "store"), "{{store}}")]),
        ]),
        ("Freshness", [
            ("Views that did not get there", "reqps", "Reads with at_least answered with 504.",
             [(rate("millrace_http_requests_total", "route", ',component="query",status="504"'), "{{route}}")]),
            ("Views behind", "s", "Age of the oldest event that is not applied.",
             [("millrace:projection_lag_seconds:max{$s}", "{{projection}}")]),
            ("From append to readable, median", "s", "Of events applied in the last five minutes.",
             [(quantile(0.5, "millrace_write_to_readable_seconds", "projection"), "{{projection}}")]),
        ]),
    ]),
}


def variable(name, label, query):
    """A variable that is chosen from a label's values."""
    return {
        "name": name, "label": label, "type": "query", "refresh": 2, "sort": 1,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name}, "definition": query,
    }


def panel(number, at, title, unit, says, queries):
    """One graph."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number, "type": "timeseries", "title": title, "description": says, "datasource": source,
        "gridPos": {"x": at[0], "y": at[1], "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 8, "showPoints": "never"}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": "ABCDEFGH"[place], "datasource": source, "expr": expr.replace("$s", SERIES), "legendFormat": legend}
            for place, (expr, legend) in enumerate(queries)
        ],
    }


def dashboard(name, title, rows):
    """One dashboard, as Grafana imports it."""
    panels, y = [], 0
    for row, members in rows:
        panels.append({"id": len(panels) + 1, "type": "row", "title": row, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y += 1
        for place, member in enumerate(members):
            at = (place % COLUMNS * WIDTH, y + place // COLUMNS * HEIGHT)
            panels.append(panel(len(panels) + 1, at, *member))
        y += -(-len(members) // COLUMNS) * HEIGHT
    return {
        "uid": f"millrace-{name}", "title": title, "tags": ["millrace"], "schemaVersion": 41, "version": 1,
        "editable": True, "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "timezone": "utc",
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1},
            variable("namespace", "Namespace", "label_values(millrace_log_head, namespace)"),
            variable("release", "Release", 'label_values(millrace_log_head{namespace="$namespace"}, release)'),
        ]},
        "links": [{"title": "Millrace", "type": "dashboards", "tags": ["millrace"], "asDropdown": True, "includeVars": True, "keepTime": True}],
        "panels": panels,
    }


def main():
    check, stale = "--check" in sys.argv[1:], []
    made = {f"{name}.json": json.dumps(dashboard(name, *said), indent=1) + "\n" for name, said in DASHBOARDS.items()}
    there = {path.name for path in FOLDER.glob("*.json")}
    for name, text in made.items():
        path = FOLDER / name
        if not check:
            path.write_text(text)
        elif name not in there or path.read_text() != text:
            stale.append(name)
    stale += sorted(there - made.keys())
    if stale:
        sys.exit(f"dashboards: {', '.join(stale)}: not what tests/chart/dashboards.py describes; run it")


if __name__ == "__main__":
    main()
