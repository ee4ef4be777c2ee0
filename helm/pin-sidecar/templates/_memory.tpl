{{- /* The memory that the sidecar may need, by the formula of docs/memory-and-limits.md: what it holds is bounded by
       settings, so the limit follows from them. A sixth more is for what the system keeps in sockets. */ -}}

{{- /* A size in KiB. Takes (dict "settings" $settings "name" "PIN_…" "default" "16MiB"). */ -}}
{{- define "pin-sidecar.kib" -}}
{{- $given := dig .name "" .settings -}}
{{- if eq (toString $given) "" }}{{ $given = .default }}{{ end -}}
{{- $written := include "pin-sidecar.text" $given -}}
{{- $number := regexFind "^[0-9]+" $written | int64 -}}
{{- $unit := regexReplaceAll "^[0-9]+" $written "" -}}
{{- $bytes := dict "" 1 "B" 1 "KiB" 1024 "MiB" 1048576 "GiB" 1073741824 "KB" 1000 "MB" 1000000 "GB" 1000000000 -}}
{{- div (mul $number (get $bytes $unit)) 1024 -}}
{{- end -}}

{{- define "pin-sidecar.memoryLimit" -}}
{{- $settings := default dict .Values.settings -}}
{{- $frame := include "pin-sidecar.kib" (dict "settings" $settings "name" "PIN_MAX_FRAME_BYTES" "default" "16MiB") | int64 -}}
{{- $result := include "pin-sidecar.kib" (dict "settings" $settings "name" "PIN_MAX_RESULT_BYTES" "default" "8MiB") | int64 -}}
{{- $outbox := include "pin-sidecar.kib" (dict "settings" $settings "name" "PIN_OUTBOX_BYTES" "default" "32MiB") | int64 -}}
{{- $queue := include "pin-sidecar.kib" (dict "settings" $settings "name" "PIN_QUEUE_BYTES" "default" "16MiB") | int64 -}}
{{- $chats := mul (include "pin-sidecar.capacity" . | int64) (add $frame (mul 3 $result)) -}}
{{- $bound := add 10240 (div (mul 5 $outbox) 4) $queue (mul 3 $frame) $chats -}}
{{- $mib := div (mul $bound 7) (mul 6 1024) -}}
{{- printf "%dMi" (mul 16 (add 1 (div $mib 16)) | int64) -}}
{{- end -}}

{{- /* The sidecar's resources: what is given, and the memory limit if none is. */ -}}
{{- define "pin-sidecar.resources" -}}
{{- $given := deepCopy (default dict .Values.resources) -}}
{{- $limits := dict "limits" (dict "memory" (include "pin-sidecar.memoryLimit" .)) -}}
{{- merge $given $limits | toYaml -}}
{{- end -}}

{{- /* Ollama's resources: what is given, and the GPUs. */ -}}
{{- define "pin-sidecar.ollamaResources" -}}
{{- $ollama := default dict .Values.ollama -}}
{{- $given := deepCopy (default dict $ollama.resources) -}}
{{- with include "pin-sidecar.gpus" . | int -}}
{{- $resource := dig "gpu" "resource" "nvidia.com/gpu" $ollama -}}
{{- $given = merge $given (dict "limits" (dict $resource .)) -}}
{{- end -}}
{{- toYaml $given -}}
{{- end -}}
