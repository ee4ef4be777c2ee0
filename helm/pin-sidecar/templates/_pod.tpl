{{- /* The pod, the same for all three kinds. It changes only with what it needs, since a change is a restart: so no
       version of the chart in it. */ -}}

{{- define "pin-sidecar.pod" -}}
{{- $topology := include "pin-sidecar.topology" . -}}
metadata:
  labels:
    {{- include "pin-sidecar.selector" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    {{- include "pin-sidecar.podAnnotations" . | nindent 4 }}
spec:
  {{- if eq $topology "bundled" }}
  initContainers:
    {{- include "pin-sidecar.ollamaContainer" . | nindent 4 }}
  containers:
    {{- include "pin-sidecar.agentContainer" . | nindent 4 }}
  {{- else if eq $topology "sidecar" }}
  initContainers:
    {{- include "pin-sidecar.agentContainer" . | nindent 4 }}
  containers:
    {{- include "pin-sidecar.ollamaContainer" . | nindent 4 }}
  {{- else }}
  containers:
    {{- include "pin-sidecar.agentContainer" . | nindent 4 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ include "pin-sidecar.graceSeconds" . }}
  serviceAccountName: {{ include "pin-sidecar.serviceAccount" . | quote }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- include "pin-sidecar.podValues" . }}
  volumes:
    {{- include "pin-sidecar.volumes" . | nindent 4 }}
{{- end -}}

{{- /* What is given goes before what is not. A Secret of the chart's own changes the pods when it changes; another is read
       again by itself. */ -}}
{{- define "pin-sidecar.podAnnotations" -}}
{{- $own := dict "kubectl.kubernetes.io/default-container" "pin-sidecar" -}}
{{- if not (.Values.secret).existingSecret -}}
{{- $_ := list (include "pin-sidecar.secretKey" .) (.Values.secret).value | toJson | sha256sum | set $own "checksum/secret" -}}
{{- end -}}
{{- with (.Values.backendKey).value -}}
{{- $_ := list (include "pin-sidecar.backendKeyKey" $) . | toJson | sha256sum | set $own "checksum/backend-key" -}}
{{- end -}}
{{- merge dict (default dict .Values.podAnnotations) $own | toYaml -}}
{{- end -}}

{{- /* What is passed on as it is given. */ -}}
{{- define "pin-sidecar.podValues" -}}
{{- $given := dict "securityContext" (include "pin-sidecar.podSecurityContext" . | fromYaml) "dnsConfig" .Values.dnsConfig -}}
{{- range list "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" "runtimeClassName" }}
{{- $_ := set $given . (get $.Values .) }}
{{- end }}
{{- range $name, $value := $given }}
{{- with $value }}
  {{ $name }}:{{ kindIs "string" . | ternary (toString . | quote | printf " %s") (toYaml . | nindent 4) }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Beside somebody else's Ollama no group of ours: its files would be given to it. */ -}}
{{- define "pin-sidecar.podSecurityContext" -}}
{{- $given := default dict .Values.podSecurityContext -}}
{{- if eq (include "pin-sidecar.topology" .) "sidecar" }}{{ $given = omit $given "fsGroup" "fsGroupChangePolicy" }}{{ end -}}
{{- toYaml $given -}}
{{- end -}}

{{- define "pin-sidecar.volumes" -}}
{{- $kept := default dict (.Values.ollama).persistence -}}
{{- $models := include "pin-sidecar.models" . -}}
{{- $group := (include "pin-sidecar.podSecurityContext" . | fromYaml).fsGroup -}}
{{- $mode := not $group | ternary 292 288 -}}
- name: secret
  secret:
    secretName: {{ include "pin-sidecar.secret" . | quote }}
    # 0440, or 0444 where the pod has no group to read it by; in decimal, since not every parser knows a leading 0.
    defaultMode: {{ $mode }}
    items:
      - key: {{ include "pin-sidecar.secretKey" . | quote }}
        path: {{ include "pin-sidecar.secretKey" . | quote }}
{{- with (.Values.admin).existingSecret }}
- name: admin-token
  secret:
    secretName: {{ . | quote }}
    defaultMode: {{ $mode }}
    items:
      - key: {{ include "pin-sidecar.adminKey" $ | quote }}
        path: {{ include "pin-sidecar.adminKey" $ | quote }}
{{- end }}
{{- if include "pin-sidecar.hasBackendKey" . }}
- name: backend-key
  secret:
    secretName: {{ include "pin-sidecar.backendSecret" . | quote }}
    defaultMode: {{ $mode }}
    items:
      - key: {{ include "pin-sidecar.backendKeyKey" . | quote }}
        path: {{ include "pin-sidecar.backendKeyKey" . | quote }}
{{- end }}
{{- if eq $models "empty" }}
- name: models
  emptyDir: {}
{{- else if eq $models "host" }}
- name: models
  hostPath:
    path: {{ $kept.hostPath | quote }}
    type: DirectoryOrCreate
{{- else if has $models (list "existing" "claim") }}
- name: models
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-models" (include "pin-sidecar.fullname" .)) $kept.existingClaim | quote }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* What a claim for models asks for. */ -}}
{{- define "pin-sidecar.claim" -}}
{{- $kept := default dict (.Values.ollama).persistence -}}
accessModes:
  {{- include "pin-sidecar.accessModes" . | nindent 2 }}
{{- with $kept.storageClass }}
storageClassName: {{ eq . "-" | ternary "" . | quote }}
{{- end }}
resources:
  requests:
    storage: {{ default "50Gi" $kept.size }}
{{- end -}}
