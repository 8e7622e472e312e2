{{/*
What an expression needs that is true when no process of a component is scraped: one term for each
role that is to be there. Takes (dict "selector" $ "roles" $).
*/}}
{{- define "millrace.monitoring.absentRoles" -}}
{{- $terms := list }}
{{- range $role := .roles }}
{{- $terms = append $terms (printf "label_replace(absent(up{%s,component=%q} == 1), \"component\", %q, \"\", \"\")" $.selector $role $role) }}
{{- end }}
{{- join "\nor\n" $terms }}
{{- end }}

{{/*
The groups of files/rules/millrace.yaml with all that stands in ${} put in, without the alerts that
are switched off, each with the address of its page. Takes the root.
*/}}
{{- define "millrace.monitoring.groups" -}}
{{- $rule := .Values.monitoring.prometheusRule }}
{{- $selector := printf "namespace=%q,release=%q" .Release.Namespace .Release.Name }}
{{- $text := .Files.Get "files/rules/millrace.yaml" | replace "${selector}" $selector | replace "${namespace}" .Release.Namespace | replace "${partitions}" (toString .Values.settings.partitions) }}
{{- range $name, $value := $rule.thresholds }}
{{- $placed := printf "${%s}" $name }}
{{- if not (contains $placed $text) }}
{{- fail (printf "monitoring.prometheusRule.thresholds.%s: no rule has a threshold of this name" $name) }}
{{- end }}
{{- /* Not 1e+06: a duration cannot be written so. */}}
{{- $number := float64 $value }}
{{- $text = $text | replace $placed (eq $number (floor $number) | ternary (printf "%.0f" $number) (toString $value)) }}
{{- end }}
{{- $roles := $rule.roles }}
{{- $disabled := $rule.disabled }}
{{- if not .Values.controller.enabled }}
{{- $roles = without $roles "controller" }}
{{- end }}
{{- if not .Values.verify.enabled }}
{{- $disabled = append $disabled "MillraceVerifyStale" }}
{{- end }}
{{- $absent := include "millrace.monitoring.absentRoles" (dict "selector" $selector "roles" $roles) }}
{{- $known := dict }}
{{- $groups := list }}
{{- range $group := (fromYaml $text).groups }}
{{- $rules := list }}
{{- range $one := $group.rules }}
{{- if eq $one.expr "${absentRoles}" }}
{{- $_ := set $one "expr" $absent }}
{{- end }}
{{- if contains "${" $one.expr }}
{{- fail (printf "monitoring.prometheusRule.thresholds: %s needs %s" (default $one.record $one.alert) (regexFind "\\$\\{[^}]*\\}" $one.expr)) }}
{{- end }}
{{- if $one.alert }}
{{- $_ := set $known $one.alert true }}
{{- $_ := set $one.annotations "runbook_url" (printf "%s/%s.md" (trimSuffix "/" $rule.runbookBaseUrl) $one.alert) }}
{{- $_ := set $one "labels" (merge (dict) $one.labels $rule.alertLabels) }}
{{- end }}
{{- if and (not (has $one.alert $disabled)) $one.expr }}
{{- $rules = append $rules $one }}
{{- end }}
{{- end }}
{{- if $rules }}
{{- $groups = append $groups (dict "name" $group.name "rules" $rules) }}
{{- end }}
{{- end }}
{{- range $name := $rule.disabled }}
{{- if not (hasKey $known $name) }}
{{- fail (printf "monitoring.prometheusRule.disabled: there is no alert %s" $name) }}
{{- end }}
{{- end }}
{{- toYaml (dict "groups" $groups) }}
{{- end }}
