{{/*
One of the stores for trying it out: a service and a single replica on a volume that lasts as long as the
pod, or as the claim. Takes (dict "root" $ "part" "nats" "port" 4222 "container" "yaml" "user" 65532 "extra"
(list of paths that are written to besides)).
*/}}
{{- define "millrace.devStore" -}}
{{- $root := .root }}
{{- $own := get $root.Values.dev .part }}
{{- $component := printf "dev-%s" .part }}
{{- $scope := dict "root" $root "component" $component }}
{{- $name := printf "%s-%s" (include "millrace.fullname" $root) $component }}
{{- $keeps := and .data $root.Values.dev.persistence.enabled }}
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "millrace.labels" $scope | nindent 4 }}
spec:
  selector:
    {{- include "millrace.selectorLabels" $scope | nindent 4 }}
  ports:
    - { name: store, port: {{ .port }}, targetPort: store }
{{- if $keeps }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "millrace.labels" $scope | nindent 4 }}
  {{- if $root.Values.dev.persistence.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
spec:
  accessModes: [ReadWriteOnce]
  {{- with $root.Values.dev.persistence.storageClassName }}
  storageClassName: {{ . }}
  {{- end }}
  resources: { requests: { storage: {{ $own.size }} } }
{{- end }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "millrace.labels" $scope | nindent 4 }}
spec:
  replicas: 1
  serviceName: {{ $name }}
  revisionHistoryLimit: {{ $root.Values.revisionHistoryLimit }}
  selector:
    matchLabels:
      {{- include "millrace.selectorLabels" $scope | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "millrace.podLabels" $scope | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with include "millrace.pullSecrets" $root | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      terminationGracePeriodSeconds: 30
      securityContext:
        {{- include "millrace.podSecurity" (dict "user" (int64 .user)) | nindent 8 }}
      containers:
        - name: {{ .part }}
          {{- tpl .container $root | nindent 10 }}
          ports:
            - { name: store, containerPort: {{ .port }} }
          startupProbe:
            tcpSocket: { port: store }
            periodSeconds: 1
            failureThreshold: 120
          resources:
            {{- toYaml $own.resources | nindent 12 }}
          securityContext:
            {{- include "millrace.containerSecurity" . | nindent 12 }}
          volumeMounts:
            - { name: tmp, mountPath: /tmp }
            {{- range $i, $path := .extra }}
            - { name: run-{{ $i }}, mountPath: {{ $path }} }
            {{- end }}
            {{- if .data }}
            - { name: data, mountPath: {{ .data }} }
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: { sizeLimit: 64Mi }
        {{- range $i, $path := .extra }}
        - name: run-{{ $i }}
          emptyDir: { sizeLimit: 16Mi }
        {{- end }}
        {{- if $keeps }}
        - name: data
          persistentVolumeClaim: { claimName: {{ $name }} }
        {{- else if .data }}
        - name: data
          emptyDir: { sizeLimit: {{ $own.size }} }
        {{- end }}
{{- end }}
