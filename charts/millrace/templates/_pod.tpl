{{/*
What pods are made of. Every pod of the chart runs as no one, on a read-only root, without the token of
its service account unless it talks to the API server, and knows no addresses of other services but
those that it is told: variables like MILLRACE_COMMAND_SERVICE_HOST would be refused as settings.
*/}}

{{- define "millrace.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "millrace.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/*
The variables of a component that its ConfigMap does not have. Takes (dict "root" $ "component" "command"
"secret" "name").
*/}}
{{- define "millrace.env" -}}
{{- $root := .root }}
{{- $own := get $root.Values .component }}
{{- include "millrace.secretEnv" . }}
{{- if eq .component "controller" }}
- name: MILLRACE_POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
{{- if eq $root.Values.controller.rebuildBy "Job" }}
- { name: MILLRACE_JOB_IMAGE, value: {{ include "millrace.image" $root | quote }} }
- { name: MILLRACE_JOB_IMAGE_PULL_POLICY, value: {{ $root.Values.image.pullPolicy }} }
{{- end }}
{{- end }}
{{- with $root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- with $own.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
Where a component finds its files, and what they are. Take (dict "root" $ "component" "command").
*/}}
{{- define "millrace.volumeMounts" -}}
{{- $root := .root }}
{{- $own := get $root.Values .component }}
- { name: tmp, mountPath: /tmp }
{{- if include "millrace.natsCredentials" $root }}
- { name: nats-credentials, mountPath: /etc/millrace/nats, readOnly: true }
{{- end }}
{{- if $root.Values.caBundle.configMap }}
- { name: ca-bundle, mountPath: /etc/millrace/ca, readOnly: true }
{{- end }}
{{- if and (eq .component "controller") (eq $root.Values.controller.rebuildBy "Job") }}
- { name: rebuild, mountPath: /etc/millrace/rebuild, readOnly: true }
{{- end }}
{{- with $root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- with $own.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "millrace.volumes" -}}
{{- $root := .root }}
{{- $own := get $root.Values .component }}
- name: tmp
  emptyDir: { sizeLimit: 64Mi }
{{- with include "millrace.natsCredentials" $root }}
- name: nats-credentials
  secret:
    secretName: {{ . | quote }}
    items: [{ key: {{ $root.Values.nats.credentials.key | quote }}, path: user.creds }]
{{- end }}
{{- with $root.Values.caBundle.configMap }}
- name: ca-bundle
  configMap:
    name: {{ . | quote }}
    items: [{ key: {{ $root.Values.caBundle.key | quote }}, path: ca.crt }]
{{- end }}
{{- if and (eq .component "controller") (eq $root.Values.controller.rebuildBy "Job") }}
- name: rebuild
  configMap: { name: {{ include "millrace.fullname" $root }}-rebuild }
{{- end }}
{{- with $root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- with $own.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
Where pods of a component run, and how important they are. Takes (dict "root" $ "component" "command").
*/}}
{{- define "millrace.scheduling" -}}
{{- $root := .root }}
{{- $own := get $root.Values .component }}
{{- with default $root.Values.priorityClassName $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with default $root.Values.nodeSelector $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $root.Values.tolerations $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $root.Values.affinity $own.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Replicas apart from each other, as far as there is room: over zones, then over nodes. Those of one
release of the pods count together, so that a rolling upgrade does not end lopsided.
*/}}
{{- define "millrace.spread" -}}
{{- $own := get .root.Values .component }}
{{- if $own.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml $own.topologySpreadConstraints | nindent 2 }}
{{- else }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "millrace.selectorLabels" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}

{{/*
The labels and annotations of a component's pods.
*/}}
{{- define "millrace.podMetadata" -}}
{{- $root := .root }}
{{- $own := get $root.Values .component -}}
labels:
  {{- include "millrace.podLabels" . | nindent 2 }}
  {{- with $own.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  # Settings are read once, at the start: others make other pods.
  checksum/config: {{ include "millrace.settings" . | sha256sum }}
  checksum/secrets: {{ include "millrace.secretsChecksum" $root }}
  {{- if eq .component "controller" }}
  checksum/rebuild: {{ include "millrace.rebuildTemplate" $root | sha256sum }}
  {{- end }}
  {{- with merge (dict) (default dict $own.podAnnotations) $root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/*
A container of the program, but for its ports and probes. Takes (dict "root" $ "component" "command"
"arguments" (list "role" "command") "secret" "name" "config" "name"); without "config" its ConfigMap is
the component's.
*/}}
{{- define "millrace.container" -}}
{{- $root := .root }}
{{- $own := get $root.Values .component }}
name: {{ .component }}
image: {{ include "millrace.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
command: [/millrace]
args:
  {{- toYaml .arguments | nindent 2 }}
envFrom:
  - configMapRef: { name: {{ default (printf "%s-%s" (include "millrace.fullname" $root) .component) .config }} }
{{- with include "millrace.env" . | trim }}
env:
  {{- . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml $own.resources | nindent 2 }}
securityContext:
  {{- include "millrace.containerSecurity" . | nindent 2 }}
volumeMounts:
  {{- include "millrace.volumeMounts" . | trim | nindent 2 }}
{{- end }}

{{/*
A role's Deployment. Takes (dict "root" $ "component" "command").

The three probes ask three questions. Startup: is the admin port open? A role that is told wrong settings
ends by itself; one whose stores are away waits for them, and is given ten minutes before it is started
anew. Liveness: is it stuck, so that only a new process helps? A store that is away is no reason: a
restart brings none back. Readiness: can it serve, is everything there that it needs?

At the end a role first says that it is not ready, and serves on for its lame-duck time, until nobody
sends it anything new; a preStop hook would have to wait for the same, and there is no shell. Then what
runs is given the drain time. The grace period is both and a margin.
*/}}
{{- define "millrace.deployment" -}}
{{- $root := .root }}
{{- $component := .component }}
{{- $own := get $root.Values $component }}
{{- $name := printf "%s-%s" (include "millrace.fullname" $root) $component }}
{{- $scope := dict "root" $root "component" $component "arguments" (list "role" $component) "secret" (include "millrace.secretName" $root) }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "millrace.labels" $scope | nindent 4 }}
spec:
  {{- if eq $component "controller" }}
  replicas: 1
  # Two at once would do each other's work twice, and nothing worse: the switch itself is decided in the
  # read database.
  strategy: { type: Recreate }
  {{- else }}
  {{- if eq $own.autoscaling.kind "None" }}
  replicas: {{ $own.replicas }}
  {{- end }}
  strategy:
    type: RollingUpdate
    rollingUpdate: { maxSurge: 1, maxUnavailable: 0 }
  {{- end }}
  revisionHistoryLimit: {{ $root.Values.revisionHistoryLimit }}
  selector:
    matchLabels:
      {{- include "millrace.selectorLabels" $scope | nindent 6 }}
  template:
    metadata:
      {{- include "millrace.podMetadata" $scope | nindent 6 }}
    spec:
      serviceAccountName: {{ include "millrace.serviceAccountName" $scope }}
      automountServiceAccountToken: {{ eq $component "controller" }}
      enableServiceLinks: false
      {{- with include "millrace.pullSecrets" $root | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      terminationGracePeriodSeconds: {{ add (int64 (default 0 $own.lameDuckSeconds)) (int64 $root.Values.settings.drainSeconds) 10 }}
      securityContext:
        {{- include "millrace.podSecurity" (dict "user" 65532) | nindent 8 }}
      {{- with include "millrace.scheduling" $scope | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- if ne $component "controller" }}
      {{- include "millrace.spread" $scope | trim | nindent 6 }}
      {{- end }}
      containers:
        - {{ include "millrace.container" $scope | trim | nindent 10 | trim }}
          ports:
            {{- if has $component (list "command" "query") }}
            - { name: http, containerPort: 8080 }
            {{- end }}
            {{- if eq $component "command" }}
            - { name: internal, containerPort: 8090 }
            {{- end }}
            - { name: admin, containerPort: 9090 }
          startupProbe:
            httpGet: { path: /livez, port: admin }
            periodSeconds: 2
            failureThreshold: 300
          livenessProbe:
            httpGet: { path: /livez, port: admin }
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          readinessProbe:
            httpGet: { path: /readyz, port: admin }
            periodSeconds: 3
            timeoutSeconds: 3
            failureThreshold: 2
      volumes:
        {{- include "millrace.volumes" $scope | trim | nindent 8 }}
{{- end }}

{{- define "millrace.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
The template of the pods that load a rebuild's new generation: projectors that are told which. The
controller adds the image, and what says so. Takes the root.
*/}}
{{- define "millrace.rebuildTemplate" -}}
{{- $scope := dict "root" . "component" "rebuild" "secret" (include "millrace.secretName" .) }}
metadata:
  labels:
    {{- include "millrace.podLabels" $scope | nindent 4 }}
    {{- with .Values.rebuild.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with merge (dict) (default dict .Values.rebuild.podAnnotations) .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "millrace.serviceAccountName" $scope }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  restartPolicy: Never
  {{- with include "millrace.pullSecrets" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ add (int64 .Values.settings.drainSeconds) 10 }}
  securityContext:
    {{- include "millrace.podSecurity" (dict "user" 65532) | nindent 4 }}
  {{- with include "millrace.scheduling" $scope | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: rebuild
      command: [/millrace, role, projector]
      envFrom:
        - configMapRef: { name: {{ include "millrace.fullname" . }}-projector }
      env:
        {{- include "millrace.env" $scope | trim | nindent 8 }}
      resources:
        {{- toYaml .Values.rebuild.resources | nindent 8 }}
      securityContext:
        {{- include "millrace.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "millrace.volumeMounts" $scope | trim | nindent 8 }}
  volumes:
    {{- include "millrace.volumes" $scope | trim | nindent 4 }}
{{- end }}
