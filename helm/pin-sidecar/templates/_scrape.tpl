{{- /* How Prometheus asks, the same for both kinds of monitor. Takes (dict "root" $ "monitor" $values). */ -}}
{{- define "pin-sidecar.endpoint" -}}
- port: http-metrics
  path: /metrics
  {{- with .monitor.interval }}
  interval: {{ . }}
  {{- end }}
  {{- with .monitor.scrapeTimeout }}
  scrapeTimeout: {{ . }}
  {{- end }}
  relabelings:
    # The alerts and the dashboard know the sidecar by this name.
    - action: replace
      targetLabel: job
      replacement: {{ include "pin-sidecar.job" .root | quote }}
    {{- with .monitor.relabelings }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .monitor.metricRelabelings }}
  metricRelabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
