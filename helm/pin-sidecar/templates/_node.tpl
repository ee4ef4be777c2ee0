{{- /* What follows from a few values and is needed in many places: each is decided here, once. What is true is "true",
       what is false is "". */ -}}

{{- define "pin-sidecar.topology" -}}
{{- default "bundled" .Values.topology -}}
{{- end -}}

{{- define "pin-sidecar.isOpenai" -}}
{{- if eq (default "ollama" .Values.apiMode) "openai" }}true{{ end -}}
{{- end -}}

{{- /* Whether the model server wants a key. */ -}}
{{- define "pin-sidecar.hasBackendKey" -}}
{{- if or (.Values.backendKey).existingSecret (.Values.backendKey).value }}true{{ end -}}
{{- end -}}

{{- define "pin-sidecar.kind" -}}
{{- default (eq (include "pin-sidecar.topology" .) "external" | ternary "Deployment" "StatefulSet") .Values.kind -}}
{{- end -}}

{{- define "pin-sidecar.replicas" -}}
{{- kindIs "invalid" .Values.replicas | ternary 1 .Values.replicas | int64 -}}
{{- end -}}

{{- define "pin-sidecar.capacity" -}}
{{- default 4 .Values.capacity | int64 -}}
{{- end -}}

{{- define "pin-sidecar.drainSeconds" -}}
{{- kindIs "invalid" .Values.drainTimeoutSeconds | ternary 25 .Values.drainTimeoutSeconds | int64 -}}
{{- end -}}

{{- /* A drain takes five seconds more at most; the other five are for containers to be told and to go. */ -}}
{{- define "pin-sidecar.graceSeconds" -}}
{{- $drain := include "pin-sidecar.drainSeconds" . | int -}}
{{- kindIs "invalid" .Values.terminationGracePeriodSeconds | ternary (add $drain 10) .Values.terminationGracePeriodSeconds | int64 -}}
{{- end -}}

{{- /* Whether each pod has an alias that a pod in its place will have, too. */ -}}
{{- define "pin-sidecar.aliasChanges" -}}
{{- $many := gt (include "pin-sidecar.replicas" . | int) 1 -}}
{{- if and (eq (include "pin-sidecar.kind" .) "Deployment") $many }}true{{ end -}}
{{- end -}}

{{- define "pin-sidecar.alias" -}}
{{- $kind := include "pin-sidecar.kind" . -}}
{{- $alias := (.Values.node).alias -}}
{{- if $alias }}
value: {{ $alias | quote }}
{{- else if eq $kind "DaemonSet" }}
valueFrom:
  fieldRef:
    apiVersion: v1
    fieldPath: spec.nodeName
{{- else if or (eq $kind "StatefulSet") (include "pin-sidecar.aliasChanges" .) }}
valueFrom:
  fieldRef:
    apiVersion: v1
    fieldPath: metadata.name
{{- else }}
value: {{ include "pin-sidecar.fullname" . | quote }}
{{- end }}
{{- end -}}

{{- define "pin-sidecar.gpus" -}}
{{- dig "gpu" "count" 0 (default dict .Values.ollama) -}}
{{- end -}}

{{- /* How models are kept: none (there is no Ollama of ours), empty, host, existing, template (a claim for each pod) or
       claim (one for all). */ -}}
{{- define "pin-sidecar.models" -}}
{{- $kept := default dict (.Values.ollama).persistence -}}
{{- if eq (include "pin-sidecar.topology" .) "external" }}none
{{- else if not (dig "enabled" true $kept) }}empty
{{- else if $kept.hostPath }}host
{{- else if $kept.existingClaim }}existing
{{- else if eq (include "pin-sidecar.kind" .) "StatefulSet" }}template
{{- else }}claim
{{- end -}}
{{- end -}}

{{- define "pin-sidecar.accessModes" -}}
{{- default (list "ReadWriteOnce") (dig "persistence" "accessModes" nil (default dict .Values.ollama)) | toYaml -}}
{{- end -}}

{{- /* A new pod may stand beside the old one only if neither name nor GPU nor volume is wanted by both. */ -}}
{{- define "pin-sidecar.mayOverlap" -}}
{{- $changes := include "pin-sidecar.aliasChanges" . -}}
{{- $external := eq (include "pin-sidecar.topology" .) "external" -}}
{{- $noGpu := or $external (eq (include "pin-sidecar.gpus" . | int) 0) -}}
{{- if and $changes $noGpu }}true{{ end -}}
{{- end -}}

{{- /* A port out of a URL: the scheme's own unless it is written. Takes the URL. */ -}}
{{- define "pin-sidecar.port" -}}
{{- $authority := regexReplaceAll "^[a-z]+://([^/@]*@)?" . "" | splitList "/" | first -}}
{{- $written := regexFind ":[0-9]+$" $authority | trimPrefix ":" -}}
{{- default (regexMatch "^(ws|http)://" . | ternary "80" "443") $written -}}
{{- end -}}

{{- /* A value as an environment variable holds it: Helm reads whole numbers as floats, which print as 1e+06. */ -}}
{{- define "pin-sidecar.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}
