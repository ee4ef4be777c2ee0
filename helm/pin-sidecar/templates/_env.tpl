{{- /* The environment of both containers. A name stands in it once: what the chart sets cannot be given a second time. */ -}}

{{- define "pin-sidecar.env" -}}
{{- $node := default dict .Values.node -}}
{{- $gateway := default dict .Values.gateway -}}
{{- $models := default dict .Values.models -}}
{{- $external := eq (include "pin-sidecar.topology" .) "external" -}}
- name: PIN_CLIENT_ID
  value: {{ .Values.clientId | quote }}
- name: PIN_API_SECRET_FILE
  value: {{ include "pin-sidecar.secretKey" . | printf "/run/secrets/pin-sidecar/%s" | quote }}
{{- if (.Values.admin).existingSecret }}
- name: PIN_ADMIN_TOKEN_FILE
  value: {{ include "pin-sidecar.adminKey" . | printf "/run/secrets/pin-sidecar-admin/%s" | quote }}
{{- end }}
{{- if include "pin-sidecar.hasBackendKey" . }}
- name: PIN_BACKEND_API_KEY_FILE
  value: {{ include "pin-sidecar.backendKeyKey" . | printf "/run/secrets/pin-sidecar-backend/%s" | quote }}
{{- end }}
- name: PIN_NODE_ALIAS
  {{- include "pin-sidecar.alias" . | trim | nindent 2 }}
- name: PIN_OLLAMA_URL
  value: {{ $external | ternary (.Values.ollama).url "http://127.0.0.1:11434" | quote }}
- name: PIN_CAPACITY
  value: {{ include "pin-sidecar.capacity" . | quote }}
- name: PIN_DRAIN_TIMEOUT
  value: {{ include "pin-sidecar.drainSeconds" . }}s
{{- $values := list
  (list "PIN_API_MODE" (include "pin-sidecar.isOpenai" . | empty | ternary "" "openai"))
  (list "PIN_SERVER_URL" $gateway.url)
  (list "PIN_ALLOW_PLAINTEXT" $gateway.allowPlaintext)
  (list "PIN_REGION" $node.region)
  (list "PIN_PRICE_PER_THOUSAND_TOKENS" $node.pricePerThousandTokens)
  (list "PIN_PAYOUT_ADDRESS" $node.payoutAddress)
  (list "PIN_INTERVIEW_MODEL" $node.interviewModel)
  (list "PIN_PULL_MODELS" (default list $models.pull | join ","))
  (list "PIN_PRELOAD_MODELS" (default list $models.preload | join ","))
  (list "PIN_ALLOW_MODELS" (default list $models.allow | join ","))
  (list "PIN_DENY_MODELS" (default list $models.deny | join ",")) }}
{{- range $name := default dict .Values.settings | keys | sortAlpha }}
{{- $values = append $values (list $name (get $.Values.settings $name)) }}
{{- end }}
{{- range $values }}
{{- $text := include "pin-sidecar.text" (last . | kindIs "invalid" | ternary "" (last .)) }}
{{- if and $text (ne (printf "%s=%s" (first .) $text) "PIN_ALLOW_PLAINTEXT=false") }}
- name: {{ first . }}
  value: {{ $text | quote }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "pin-sidecar.ollamaEnv" -}}
- name: OLLAMA_HOST
  value: {{ printf "%s:11434" (default "127.0.0.1" (.Values.ollama).host) | quote }}
# As many chats as the sidecar lets in at once: with fewer they would queue where nobody sees them.
- name: OLLAMA_NUM_PARALLEL
  value: {{ include "pin-sidecar.capacity" . | quote }}
{{- with (.Values.ollama).env }}
{{ toYaml . }}
{{- end }}
{{- end -}}
