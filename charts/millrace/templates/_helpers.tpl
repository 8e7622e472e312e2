{{/*
The chart's name. Component names are added to the full name, so it is kept short enough.
*/}}
{{- define "millrace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/*
What the name of every object begins with: the release's, with the chart's unless that is in it.
*/}}
{{- define "millrace.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "millrace.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The labels that select the pods of a component. Never changed: a Deployment's selector is immutable.
Takes (dict "root" $ "component" "command"); without a component those of all pods of the release.
*/}}
{{- define "millrace.selectorLabels" -}}
app.kubernetes.io/name: {{ include "millrace.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/*
The labels of every object. Takes (dict "root" $ "component" "command"), the component may be left out.
*/}}
{{- define "millrace.labels" -}}
{{ include "millrace.selectorLabels" . }}
app.kubernetes.io/part-of: millrace
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_") }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The labels of pods: those by which they are selected, and those that change with what runs in them. The
chart's version is not among them, so that a new chart around the same programs restarts none.
*/}}
{{- define "millrace.podLabels" -}}
{{ include "millrace.selectorLabels" . }}
app.kubernetes.io/part-of: millrace
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The image of all roles. Takes the root.
*/}}
{{- define "millrace.image" -}}
{{- $image := .Values.image }}
{{- $repository := $image.repository }}
{{- with $image.registry }}
{{- $repository = printf "%s/%s" . $repository }}
{{- end }}
{{- if $image.digest }}
{{- printf "%s@%s" $repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{/*
The service account of a component. Takes (dict "root" $ "component" "command").
*/}}
{{- define "millrace.serviceAccountName" -}}
{{- $account := (get .root.Values .component).serviceAccount }}
{{- if $account.name }}
{{- $account.name }}
{{- else if $account.create }}
{{- printf "%s-%s" (include "millrace.fullname" .root) .component }}
{{- else }}
{{- "default" }}
{{- end }}
{{- end }}

{{/*
Whether the query service hands writes on: only where an Ingress, which cannot tell methods apart, is
the way in. Takes the root; says "true" or nothing.
*/}}
{{- define "millrace.forwards" -}}
{{- if .Values.ingress.enabled }}true{{ end }}
{{- end }}

{{/*
The fewest replicas that a scaled component has. Takes its values.
*/}}
{{- define "millrace.minReplicas" -}}
{{- if eq .autoscaling.kind "None" }}{{ .replicas }}{{ else }}{{ .autoscaling.minReplicas }}{{ end }}
{{- end }}

{{/*
The most replicas that a scaled component has. Takes its values.
*/}}
{{- define "millrace.maxReplicas" -}}
{{- if eq .autoscaling.kind "None" }}{{ .replicas }}{{ else }}{{ .autoscaling.maxReplicas }}{{ end }}
{{- end }}

{{/*
Whether a part of dev is there. Takes (dict "root" $ "part" "nats"); says "true" or nothing.
*/}}
{{- define "millrace.dev" -}}
{{- if and .root.Values.dev.enabled (get .root.Values.dev .part).enabled }}true{{ end }}
{{- end }}

{{/*
The annotations of what belongs to the migration's hook, or nothing. Takes (dict "hook" true "weight" "-5").
*/}}
{{- define "millrace.hook" -}}
{{- if .hook -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
{{- end }}

{{/*
Where NOTES.txt reads and writes. Take the root.
*/}}
{{- define "millrace.notes.read" -}}
{{- if .Values.httpRoute.enabled }}http://{{ first (append .Values.httpRoute.hostnames "<gateway>") }}
{{- else if .Values.ingress.enabled }}http{{ if .Values.ingress.tls }}s{{ end }}://{{ first (append .Values.ingress.hosts "<ingress>") }}
{{- else }}http://localhost:8080{{ end }}
{{- end }}

{{- define "millrace.notes.write" -}}
{{- if or .Values.httpRoute.enabled .Values.ingress.enabled }}{{ include "millrace.notes.read" . }}
{{- else }}http://localhost:8081{{ end }}
{{- end }}
