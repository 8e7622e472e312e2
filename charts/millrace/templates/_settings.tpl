{{/*
What the programs are told. A role refuses a variable MILLRACE_… that it does not know, so each
component gets its own: what is no secret from a ConfigMap of its own, what is one by reference.
*/}}

{{/*
The variables of a component that are no secrets, as a YAML map of strings.
Takes (dict "root" $ "component" "command").
*/}}
{{- define "millrace.settings" -}}
{{- $root := .root }}
{{- $values := $root.Values }}
{{- $settings := $values.settings }}
{{- $name := include "millrace.fullname" $root }}
{{- $component := .component }}
{{- $role := has $component (list "command" "projector" "query" "controller") }}
{{- $out := dict }}
{{- $_ := set $out "MILLRACE_NAMESPACE" $settings.namespace }}
{{- $_ := set $out "MILLRACE_BANKING_LOG" $settings.bankingLog }}
{{- $_ := set $out "MILLRACE_PARTITIONS" (toString (int64 $settings.partitions)) }}
{{- $_ := set $out "MILLRACE_NATS_REPLICAS" (toString (int64 $values.nats.replicas)) }}
{{- with include "millrace.dynamodbEndpoint" $root }}
{{- $_ := set $out "DYNAMODB_ENDPOINT" . }}
{{- end }}
{{- with $values.aws.region }}
{{- $_ := set $out "AWS_REGION" . }}
{{- end }}
{{- if include "millrace.natsCredentials" $root }}
{{- $_ := set $out "NATS_CREDS" "/etc/millrace/nats/user.creds" }}
{{- end }}
{{- if $values.caBundle.configMap }}
{{- $_ := set $out "SSL_CERT_FILE" "/etc/millrace/ca/ca.crt" }}
{{- end }}
{{- if has $component (list "projector" "query" "verify") }}
{{- with include "millrace.receiptsUrl" $root }}
{{- $_ := set $out "MILLRACE_RECEIPTS_URL" . }}
{{- end }}
{{- with include "millrace.s3Endpoint" $root }}
{{- $_ := set $out "S3_ENDPOINT" . }}
{{- end }}
{{- end }}
{{- if ne $component "migrate" }}
{{- $owners := $values.settings.owners }}
{{- range list "ordering" "customers" "banking" }}
{{- if and (or (not $settings.contexts) (has . $settings.contexts)) (not (hasKey $owners .)) }}
{{- $owners = merge (dict . (printf "http://%s-command:8090" $name)) $owners }}
{{- end }}
{{- end }}
{{- $pairs := list }}
{{- range $context, $url := $owners }}
{{- $pairs = append $pairs (printf "%s=%s" $context $url) }}
{{- end }}
{{- with $pairs }}
{{- $_ := set $out "MILLRACE_OWNERS" (join "," .) }}
{{- end }}
{{- with $settings.contexts }}
{{- $_ := set $out "MILLRACE_CONTEXTS" (join "," .) }}
{{- end }}
{{- end }}
{{- if $role }}
{{- $own := get $values $component }}
{{- $_ := set $out "MILLRACE_ADMIN_LISTEN" "0.0.0.0:9090" }}
{{- $_ := set $out "MILLRACE_LOG" $settings.log }}
{{- $_ := set $out "MILLRACE_LOG_FORMAT" $settings.logFormat }}
{{- $_ := set $out "MILLRACE_DRAIN_MS" (toString (mul $settings.drainSeconds 1000)) }}
{{- $_ := set $out "MILLRACE_LEASE_TTL_MS" (toString (int64 $settings.leaseTtlMs)) }}
{{- $_ := set $out "MILLRACE_DATABASE_CONNECTIONS" (toString (int64 $settings.databaseConnections)) }}
{{- with $settings.otlpEndpoint }}
{{- $_ := set $out "OTEL_EXPORTER_OTLP_ENDPOINT" . }}
{{- $_ := set $out "MILLRACE_TRACE_RATIO" (toString $settings.traceRatio) }}
{{- end }}
{{- with $own.lameDuckSeconds }}
{{- $_ := set $out "MILLRACE_LAME_DUCK_MS" (toString (mul . 1000)) }}
{{- end }}
{{- end }}
{{- if has $component (list "command" "query") }}
{{- $http := (get $values $component).http }}
{{- $_ := set $out "MILLRACE_LISTEN" "0.0.0.0:8080" }}
{{- $_ := set $out "MILLRACE_MAX_CONNECTIONS" (toString (int64 $http.maxConnections)) }}
{{- $_ := set $out "MILLRACE_IDLE_TIMEOUT_MS" (toString (mul $http.idleTimeoutSeconds 1000)) }}
{{- $_ := set $out "MILLRACE_MAX_IN_FLIGHT" (toString (int64 $http.maxInFlight)) }}
{{- $_ := set $out "MILLRACE_REQUEST_DEADLINE_MS" (toString (mul $http.requestDeadlineSeconds 1000)) }}
{{- end }}
{{- if has $component (list "command" "projector") }}
{{- $_ := set $out "MILLRACE_MIGRATE" (toString $values.migrate.byRoles) }}
{{- end }}
{{- if eq $component "command" }}
{{- $_ := set $out "MILLRACE_INTERNAL_LISTEN" "0.0.0.0:8090" }}
{{- $_ := set $out "MILLRACE_CACHED_AGGREGATES" (toString (int64 $values.command.cachedAggregates)) }}
{{- $_ := set $out "MILLRACE_SNAPSHOT_EVERY" (toString (int64 $values.command.snapshotEvery)) }}
{{- else if eq $component "projector" }}
{{- $_ := set $out "MILLRACE_REBUILD_BY" (include "millrace.rebuildBy" $root) }}
{{- with $values.projector.projections }}
{{- $_ := set $out "MILLRACE_PROJECTIONS" (join "," .) }}
{{- end }}
{{- with include "millrace.topicArn" $root }}
{{- $_ := set $out "MILLRACE_NOTIFICATIONS_TOPIC_ARN" . }}
{{- end }}
{{- with include "millrace.snsEndpoint" $root }}
{{- $_ := set $out "SNS_ENDPOINT" . }}
{{- end }}
{{- else if eq $component "query" }}
{{- $_ := set $out "MILLRACE_QUERY_CONNECTIONS" (toString (int64 $values.query.connections)) }}
{{- if include "millrace.forwards" $root }}
{{- $_ := set $out "COMMAND_URL" (printf "http://%s-command:8080" $name) }}
{{- end }}
{{- else if eq $component "controller" }}
{{- $_ := set $out "MILLRACE_REBUILD_BY" (include "millrace.rebuildBy" $root) }}
{{- $_ := set $out "MILLRACE_CONTROLLER_CONCURRENCY" (toString (int64 $values.controller.concurrency)) }}
{{- if eq $values.controller.rebuildBy "Job" }}
{{- $_ := set $out "MILLRACE_JOB_POD_TEMPLATE" "/etc/millrace/rebuild/pod-template.json" }}
{{- $_ := set $out "MILLRACE_JOB_TTL_SECONDS" (toString (int64 $values.rebuild.ttlSeconds)) }}
{{- end }}
{{- end }}
{{- toYaml $out }}
{{- end }}

{{- define "millrace.rebuildBy" -}}
{{- if and .Values.controller.enabled (eq .Values.controller.rebuildBy "Job") }}job{{ else }}projector{{ end }}
{{- end }}

{{- define "millrace.dynamodbEndpoint" -}}
{{- if .Values.dynamodb.endpoint }}{{ .Values.dynamodb.endpoint }}
{{- else if include "millrace.dev" (dict "root" . "part" "dynamodb") }}{{ printf "http://%s-dev-dynamodb:8000" (include "millrace.fullname" .) }}
{{- end }}
{{- end }}

{{- define "millrace.s3Endpoint" -}}
{{- if .Values.receipts.endpoint }}{{ .Values.receipts.endpoint }}
{{- else if include "millrace.dev" (dict "root" . "part" "s3") }}{{ printf "http://%s-dev-s3:9000" (include "millrace.fullname" .) }}
{{- end }}
{{- end }}

{{- define "millrace.receiptsUrl" -}}
{{- if .Values.receipts.url }}{{ .Values.receipts.url }}
{{- else if include "millrace.dev" (dict "root" . "part" "s3") }}{{ printf "s3://%s" .Values.dev.s3.bucket }}
{{- end }}
{{- end }}

{{- define "millrace.snsEndpoint" -}}
{{- if .Values.notifications.endpoint }}{{ .Values.notifications.endpoint }}
{{- else if include "millrace.dev" (dict "root" . "part" "sns") }}{{ printf "http://%s-dev-sns:9911" (include "millrace.fullname" .) }}
{{- end }}
{{- end }}

{{- define "millrace.topicArn" -}}
{{- if .Values.notifications.topicArn }}{{ .Values.notifications.topicArn }}
{{- else if include "millrace.dev" (dict "root" . "part" "sns") }}{{ printf "arn:aws:sns:us-east-1:000000000000:%s" .Values.dev.sns.topic }}
{{- end }}
{{- end }}

{{- define "millrace.natsCredentials" -}}
{{- .Values.nats.credentials.existingSecret }}
{{- end }}

{{/*
The Secret of everything secret that has no reference of its own. Takes the root.
*/}}
{{- define "millrace.secretName" -}}
{{- default (include "millrace.fullname" .) .Values.existingSecret }}
{{- end }}

{{/*
The secrets there are: for each variable its value in the values, a reference to a key of another
Secret, who gets it, and whether a component can do without.
*/}}
{{- define "millrace.secrets" -}}
{{- $values := .Values }}
{{- $pg := $values.postgresql }}
{{- $everyone := list "command" "projector" "query" "controller" "rebuild" "verify" "migrate" }}
{{- $readers := list "projector" "query" "controller" "rebuild" "verify" "migrate" }}
{{- $out := dict }}
{{- $_ := set $out "DATABASE_URL" (dict "value" $pg.url "ref" $pg.urlSecret "for" $everyone "required" true) }}
{{- range list "customers" "ordering" "banking" }}
{{- $own := get $pg.contexts . }}
{{- $_ := set $out (printf "MILLRACE_%s_DATABASE_URL" (upper .)) (dict "value" $own.url "ref" $own.urlSecret "for" $everyone "required" false) }}
{{- end }}
{{- $billing := $pg.contexts.billing }}
{{- $_ := set $out "MILLRACE_BILLING_DATABASE_URL" (dict "value" $billing.url "ref" $billing.urlSecret "for" $readers "required" false) }}
{{- $_ := set $out "READ_DATABASE_URL" (dict "value" $pg.readUrl "ref" $pg.readUrlSecret "for" $readers "required" false) }}
{{- $_ := set $out "QUERY_DATABASE_URL" (dict "value" $pg.queryUrl "ref" $pg.queryUrlSecret "for" (list "query") "required" false) }}
{{- $_ := set $out "NATS_URL" (dict "value" (include "millrace.natsUrl" .) "ref" $values.nats.urlSecret "for" $everyone "required" true) }}
{{- $_ := set $out "AWS_ACCESS_KEY_ID" (dict "value" $values.aws.accessKeyId "ref" $values.aws.accessKeyIdSecret "for" $everyone "required" false) }}
{{- $_ := set $out "AWS_SECRET_ACCESS_KEY" (dict "value" $values.aws.secretAccessKey "ref" $values.aws.secretAccessKeySecret "for" $everyone "required" false) }}
{{- $s3 := list "projector" "query" "verify" }}
{{- $_ := set $out "S3_ACCESS_KEY_ID" (dict "value" $values.receipts.accessKeyId "ref" $values.receipts.accessKeyIdSecret "for" $s3 "required" false) }}
{{- $_ := set $out "S3_SECRET_ACCESS_KEY" (dict "value" $values.receipts.secretAccessKey "ref" $values.receipts.secretAccessKeySecret "for" $s3 "required" false) }}
{{- $_ := set $out "MILLRACE_INTERNAL_TOKEN" (dict "value" $values.settings.internalToken "ref" dict "for" (without $everyone "migrate") "required" true) }}
{{- $_ := set $out "MILLRACE_CURSOR_KEY" (dict "value" $values.settings.cursorKey "ref" dict "for" (list "query") "required" true) }}
{{- toYaml $out }}
{{- end }}

{{- define "millrace.natsUrl" -}}
{{- if .Values.nats.url }}{{ .Values.nats.url }}
{{- else if include "millrace.dev" (dict "root" . "part" "nats") }}{{ printf "nats://%s-dev-nats:4222" (include "millrace.fullname" .) }}
{{- end }}
{{- end }}

{{/*
What the chart makes up once and keeps, by key.
*/}}
{{- define "millrace.madeUp" -}}
MILLRACE_INTERNAL_TOKEN: 48
MILLRACE_CURSOR_KEY: 48
{{- if include "millrace.dev" (dict "root" . "part" "postgresql") }}
POSTGRES_PASSWORD: 32
{{- end }}
{{- if include "millrace.dev" (dict "root" . "part" "s3") }}
S3_ACCESS_KEY_ID: 20
S3_SECRET_ACCESS_KEY: 40
{{- end }}
{{- end }}

{{/*
The chart's Secret, as a YAML map of strings: what the values say, and what is made up. What was made
up before is taken from the Secret that is there, so that an upgrade changes none of it; only where
nothing can be asked for it (helm template, a dry run on the client) is it another each time.
To be called once in each rendering. Takes the root.
*/}}
{{- define "millrace.secretData" -}}
{{- $out := dict }}
{{- range $variable, $secret := fromYaml (include "millrace.secrets" .) }}
{{- if $secret.value }}
{{- $_ := set $out $variable $secret.value }}
{{- end }}
{{- end }}
{{- with .Values.dev.postgresql.password }}
{{- $_ := set $out "POSTGRES_PASSWORD" . }}
{{- end }}
{{- $there := lookup "v1" "Secret" .Release.Namespace (include "millrace.fullname" .) }}
{{- $kept := default dict (and $there $there.data) }}
{{- range $key, $length := fromYaml (include "millrace.madeUp" .) }}
{{- if hasKey $out $key }}
{{- else if hasKey $kept $key }}
{{- $_ := set $out $key (get $kept $key | b64dec) }}
{{- else }}
{{- $_ := set $out $key (randAlphaNum (int $length)) }}
{{- end }}
{{- end }}
{{- if and (include "millrace.dev" (dict "root" . "part" "postgresql")) (not (hasKey $out "DATABASE_URL")) }}
{{- $_ := set $out "DATABASE_URL" (printf "postgres://postgres:%s@%s-dev-postgresql:5432/millrace" $out.POSTGRES_PASSWORD (include "millrace.fullname" .)) }}
{{- end }}
{{- toYaml $out }}
{{- end }}

{{/*
A component's secret variables. "secret" is where those are that have no reference of their own.
Takes (dict "root" $ "component" "command" "secret" "name").
*/}}
{{- define "millrace.secretEnv" -}}
{{- $root := .root }}
{{- $component := .component }}
{{- $place := .secret }}
{{- $madeUp := dict }}
{{- if not $root.Values.existingSecret }}
{{- $madeUp = fromYaml (include "millrace.madeUp" $root) }}
{{- if include "millrace.dev" (dict "root" $root "part" "postgresql") }}
{{- $_ := set $madeUp "DATABASE_URL" 0 }}
{{- end }}
{{- end }}
{{- range $variable, $secret := fromYaml (include "millrace.secrets" $root) }}
{{- if has $component $secret.for }}
{{- if and $secret.ref $secret.ref.name }}
- name: {{ $variable }}
  valueFrom: { secretKeyRef: { name: {{ $secret.ref.name | quote }}, key: {{ default $variable $secret.ref.key | quote }} } }
{{- else if or $secret.value (hasKey $madeUp $variable) }}
- name: {{ $variable }}
  valueFrom: { secretKeyRef: { name: {{ $place | quote }}, key: {{ $variable }} } }
{{- else if $root.Values.existingSecret }}
- name: {{ $variable }}
  valueFrom: { secretKeyRef: { name: {{ $place | quote }}, key: {{ $variable }}{{ if not $secret.required }}, optional: true{{ end }} } }
{{- else if $secret.required }}
{{- fail (printf "nothing says %s: set %s" $variable (eq $variable "DATABASE_URL" | ternary "postgresql.url, postgresql.urlSecret or existingSecret, or dev.enabled to try it out" "nats.url, nats.urlSecret or existingSecret, or dev.enabled to try it out")) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
Of everything secret that the values say, a sum: pods are made anew when it changes. What is made up
never changes, and what is in other Secrets is not known here.
*/}}
{{- define "millrace.secretsChecksum" -}}
{{- include "millrace.secrets" . | sha256sum }}
{{- end }}
