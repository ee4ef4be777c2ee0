{{- /* Names and labels. What goes into selectors and pods is fewer labels than what goes onto objects: pods must not
       change because the chart's version does, and selectors and claim templates cannot be changed at all. A name that
       somebody gave is quoted wherever it stands: YAML takes 4090, on and null for something else than text. */ -}}

{{- define "pin-sidecar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimAll "-_." -}}
{{- end -}}

{{- /* 52, since a StatefulSet's pods carry its name and eleven characters more in a label, which holds 63. A release may have
       dots and begin with a digit, and another chart may have this one under any alias; a Service has lower-case letters,
       digits and dashes, and begins with a letter. */ -}}
{{- define "pin-sidecar.fullname" -}}
{{- $name := include "pin-sidecar.name" . -}}
{{- $both := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- $plain := regexReplaceAll "[^a-z0-9]" (default $both .Values.fullnameOverride | lower) "-" -}}
{{- regexMatch "^[a-z]" $plain | ternary $plain (printf "pin-%s" $plain) | trunc 52 | trimAll "-" -}}
{{- end -}}

{{- define "pin-sidecar.selector" -}}
app.kubernetes.io/name: {{ include "pin-sidecar.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: agent
{{- end -}}

{{- define "pin-sidecar.testSelector" -}}
app.kubernetes.io/name: {{ include "pin-sidecar.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: test
{{- end -}}

{{- define "pin-sidecar.about" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimAll "-_." | quote }}
{{- end -}}

{{- define "pin-sidecar.labels" -}}
{{ include "pin-sidecar.selector" . }}
{{ include "pin-sidecar.about" . }}
{{- end -}}

{{- /* The name of an object and its labels. Takes (dict "root" $ "labels" $more), and "suffix" or "name" where it is
       not called as the release is. */ -}}
{{- define "pin-sidecar.metadata" -}}
name: {{ default (printf "%s%s" (include "pin-sidecar.fullname" .root) (default "" .suffix)) .name | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "pin-sidecar.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "pin-sidecar.serviceAccount" -}}
{{- $account := default dict .Values.serviceAccount -}}
{{- $made := dig "create" true $account -}}
{{- default ($made | ternary (include "pin-sidecar.fullname" .) "default") $account.name -}}
{{- end -}}

{{- define "pin-sidecar.secret" -}}
{{- default (include "pin-sidecar.fullname" .) (.Values.secret).existingSecret -}}
{{- end -}}

{{- define "pin-sidecar.secretKey" -}}
{{- default "pin_api_secret" (.Values.secret).key -}}
{{- end -}}

{{- define "pin-sidecar.adminKey" -}}
{{- default "pin_admin_token" (.Values.admin).key -}}
{{- end -}}

{{- define "pin-sidecar.backendSecret" -}}
{{- default (printf "%s-backend" (include "pin-sidecar.fullname" .)) (.Values.backendKey).existingSecret -}}
{{- end -}}

{{- define "pin-sidecar.backendKeyKey" -}}
{{- default "pin_backend_api_key" (.Values.backendKey).key -}}
{{- end -}}

{{- /* Takes (dict "image" $image "name" "repository by default" "tag" "tag by default"). */ -}}
{{- define "pin-sidecar.image" -}}
{{- $image := default dict .image -}}
{{- default .name $image.repository -}}
{{- with $image.digest }}@{{ . }}{{ else }}:{{ default .tag $image.tag }}{{ end -}}
{{- end -}}

{{- /* The alerts know the sidecar by a job whose name contains `pin-sidecar`, whatever the release is called. */ -}}
{{- define "pin-sidecar.job" -}}
{{- $name := include "pin-sidecar.fullname" . -}}
{{- printf "%s/%s" .Release.Namespace (contains "pin-sidecar" $name | ternary $name (printf "pin-sidecar-%s" $name)) -}}
{{- end -}}
