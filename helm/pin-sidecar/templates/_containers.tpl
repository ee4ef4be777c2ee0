{{- /* Both containers, the same in every topology but for what makes a container a native sidecar and who tells whom of
       the end. */ -}}

{{- /* A probe: what is given in place of the chart's own, nothing where it is `false`. Takes (dict "name" "startupProbe"
       "given" $given "own" $own). */ -}}
{{- define "pin-sidecar.probe" -}}
{{- $probe := kindIs "invalid" .given | ternary .own .given -}}
{{- with $probe }}
{{ $.name }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "pin-sidecar.probes" -}}
{{- $given := default dict .Values.probes -}}
{{- $health := dict "path" "/healthz" "port" "http-metrics" -}}
{{- $ready := dict "path" "/readyz" "port" "http-metrics" -}}
{{- $startup := dict "httpGet" $health "periodSeconds" 1 "timeoutSeconds" 3 "failureThreshold" 60 -}}
{{- $liveness := dict "httpGet" $health "periodSeconds" 10 "timeoutSeconds" 5 "failureThreshold" 3 -}}
{{- $readiness := dict "httpGet" $ready "periodSeconds" 5 "timeoutSeconds" 3 "failureThreshold" 1 -}}
{{- if eq (include "pin-sidecar.topology" .) "sidecar" }}{{ $readiness = dict }}{{ end -}}
{{- include "pin-sidecar.probe" (dict "name" "startupProbe" "given" $given.startup "own" $startup) -}}
{{- include "pin-sidecar.probe" (dict "name" "livenessProbe" "given" $given.liveness "own" $liveness) -}}
{{- include "pin-sidecar.probe" (dict "name" "readinessProbe" "given" $given.readiness "own" $readiness) -}}
{{- end -}}

{{- define "pin-sidecar.ollamaProbes" -}}
{{- $given := dig "probes" dict (default dict .Values.ollama) | default dict -}}
{{- $list := dict "command" (list "ollama" "list") -}}
{{- $startup := dict "exec" $list "periodSeconds" 2 "timeoutSeconds" 10 "failureThreshold" 150 -}}
{{- $liveness := dict "exec" $list "periodSeconds" 30 "timeoutSeconds" 15 "failureThreshold" 6 -}}
{{- $readiness := dict "exec" $list "periodSeconds" 10 "timeoutSeconds" 10 "failureThreshold" 3 -}}
{{- if eq (include "pin-sidecar.topology" .) "bundled" }}{{ $readiness = dict }}{{ end -}}
{{- include "pin-sidecar.probe" (dict "name" "startupProbe" "given" $given.startup "own" $startup) -}}
{{- include "pin-sidecar.probe" (dict "name" "livenessProbe" "given" $given.liveness "own" $liveness) -}}
{{- include "pin-sidecar.probe" (dict "name" "readinessProbe" "given" $given.readiness "own" $readiness) -}}
{{- end -}}

{{- define "pin-sidecar.agentContainer" -}}
- name: pin-sidecar
  image: {{ include "pin-sidecar.image" (dict "image" .Values.image "name" "pin-sidecar" "tag" .Chart.AppVersion) | quote }}
  imagePullPolicy: {{ default "IfNotPresent" (.Values.image).pullPolicy }}
  {{- if eq (include "pin-sidecar.topology" .) "sidecar" }}
  # A native sidecar: there before Ollama, and still there after it has ended.
  restartPolicy: Always
  {{- end }}
  env:
    {{- include "pin-sidecar.env" . | nindent 4 }}
  ports:
    - name: http-metrics
      containerPort: 9464
      protocol: TCP
  {{- include "pin-sidecar.probes" . | trim | nindent 2 }}
  resources:
    {{- include "pin-sidecar.resources" . | nindent 4 }}
  {{- with .Values.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    # A directory and not a subPath, which would never be updated: the file is read again at every login.
    - name: secret
      mountPath: /run/secrets/pin-sidecar
      readOnly: true
    {{- if (.Values.admin).existingSecret }}
    - name: admin-token
      mountPath: /run/secrets/pin-sidecar-admin
      readOnly: true
    {{- end }}
    {{- if include "pin-sidecar.hasBackendKey" . }}
    - name: backend-key
      mountPath: /run/secrets/pin-sidecar-backend
      readOnly: true
    {{- end }}
    {{- with .Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "pin-sidecar.ollamaContainer" -}}
{{- $ollama := default dict .Values.ollama -}}
- name: ollama
  image: {{ include "pin-sidecar.image" (dict "image" $ollama.image "name" "ollama/ollama" "tag" "0.17.4") | quote }}
  imagePullPolicy: {{ dig "image" "pullPolicy" "IfNotPresent" $ollama }}
  {{- if eq (include "pin-sidecar.topology" .) "bundled" }}
  # A native sidecar: it ends after the main container has, so chats can be finished.
  restartPolicy: Always
  {{- else }}
  # Ollama does not drain. The sidecar does, before Ollama is told to end, and answers when it is done. A GET from the
  # node could not do it: the image has bash and no curl.
  lifecycle:
    preStop:
      exec:
        command:
          - bash
          - -c
          - >-
            exec 3<>/dev/tcp/127.0.0.1/9464 &&
            printf 'POST /drain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n' >&3 &&
            cat <&3 >/dev/null
  {{- end }}
  env:
    {{- include "pin-sidecar.ollamaEnv" . | nindent 4 }}
  {{- include "pin-sidecar.ollamaProbes" . | trim | nindent 2 }}
  {{- with include "pin-sidecar.ollamaResources" . | fromYaml }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $ollama.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - name: models
      mountPath: {{ dig "persistence" "mountPath" "/root/.ollama" $ollama | quote }}
{{- end -}}
