{{- /* What one value alone does not tell, and the schema therefore cannot: each mistake is a sentence that names the
       values and says what to do. All are told at once. */ -}}

{{- define "pin-sidecar.check" -}}
{{- $mistakes := concat
  (include "pin-sidecar.checkSecret" . | fromJsonArray)
  (include "pin-sidecar.checkAdmin" . | fromJsonArray)
  (include "pin-sidecar.checkTimes" . | fromJsonArray)
  (include "pin-sidecar.checkNode" . | fromJsonArray)
  (include "pin-sidecar.checkGateway" . | fromJsonArray)
  (include "pin-sidecar.checkOllama" . | fromJsonArray)
  (include "pin-sidecar.checkOpenai" . | fromJsonArray)
  (include "pin-sidecar.checkBackendKey" . | fromJsonArray)
  (include "pin-sidecar.checkModels" . | fromJsonArray)
  (include "pin-sidecar.checkObservers" . | fromJsonArray)
  (include "pin-sidecar.checkEnv" (dict "value" "extraEnv" "env" (include "pin-sidecar.env" . | fromYamlArray)) | fromJsonArray)
  (include "pin-sidecar.checkEnv" (dict "value" "ollama.env" "env" (include "pin-sidecar.ollamaEnv" . | fromYamlArray)) | fromJsonArray) -}}
{{- if $mistakes }}{{ join "\n  " (prepend $mistakes "") | fail }}{{ end -}}
{{- end -}}

{{- /* A file of the chart as it is. Takes (dict "root" $ "path" $path "holds" "a field of it"): a file that was lost on the way
       is empty to Helm, one that is a link elsewhere may have come as the link's text, and one of which a part is missing is no
       JSON or YAML. */ -}}
{{- define "pin-sidecar.file" -}}
{{- $text := .root.Files.Get .path -}}
{{- $read := hasSuffix ".json" .path | ternary (fromJson $text) (fromYaml $text) -}}
{{- if or (hasKey $read "Error") (not (get $read .holds)) -}}
{{- printf "%s of this chart is missing or not whole: what fetched the chart left it behind; take all of helm/pin-sidecar" .path | fail -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{- define "pin-sidecar.checkSecret" -}}
{{- $secret := default dict .Values.secret -}}
{{- $mistakes := list -}}
{{- if and $secret.existingSecret $secret.value -}}
{{- $mistakes = append $mistakes "secret.existingSecret and secret.value are both given; keep one of them" -}}
{{- else if not (or $secret.existingSecret $secret.value) -}}
{{- $mistakes = append $mistakes "secret.existingSecret is not given: name the Secret that has the API secret (or give the API secret itself as secret.value)" -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- define "pin-sidecar.checkAdmin" -}}
{{- $names := list -}}
{{- range include "pin-sidecar.env" . | fromYamlArray }}{{ $names = append $names .name }}{{ end -}}
{{- $mistakes := list -}}
{{- if and (has "PIN_ADMIN_HOSTS" $names) (not (or (has "PIN_ADMIN_TOKEN_FILE" $names) (has "PIN_ADMIN_TOKEN" $names))) -}}
{{- $mistakes = append $mistakes "settings.PIN_ADMIN_HOSTS needs a token: name the Secret that has it in admin.existingSecret" -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- define "pin-sidecar.checkTimes" -}}
{{- $drain := include "pin-sidecar.drainSeconds" . | int -}}
{{- $grace := include "pin-sidecar.graceSeconds" . | int -}}
{{- $mistakes := list -}}
{{- if lt $grace (add $drain 5 | int) -}}
{{- $mistakes = append $mistakes (printf "terminationGracePeriodSeconds is %d, and with drainTimeoutSeconds %d a drain may take %d: give at least that" $grace $drain (add $drain 5)) -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- define "pin-sidecar.checkNode" -}}
{{- $kind := include "pin-sidecar.kind" . -}}
{{- $replicas := include "pin-sidecar.replicas" . | int -}}
{{- $mistakes := list -}}
{{- if (.Values.node).alias -}}
{{- if eq $kind "DaemonSet" -}}
{{- $mistakes = append $mistakes "node.alias would be the name of every pod of a DaemonSet; leave it out, and each has its machine's name" -}}
{{- else if gt $replicas 1 -}}
{{- $mistakes = append $mistakes (printf "node.alias would be the name of all %d replicas; leave it out, and each has a name of its own" $replicas) -}}
{{- end -}}
{{- end -}}
{{- range keys (include "pin-sidecar.selector" . | fromYaml) -}}
{{- if hasKey (default dict $.Values.podLabels) . -}}
{{- $mistakes = append $mistakes (printf "podLabels: %s is what the pods are found by; nameOverride changes the name" .) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $kind "DaemonSet") (.Values.podDisruptionBudget).enabled -}}
{{- $mistakes = append $mistakes "podDisruptionBudget.enabled does nothing for a DaemonSet, which a node's drain leaves alone" -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- /* Whether a URL leads to this very pod, as the sidecar sees it: `localhost`, a name below it, or a loopback address in any
       spelling, also as IPv6 has those of IPv4. Takes the URL. */ -}}
{{- define "pin-sidecar.isHere" -}}
{{- $v4 := "127(\\.(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3}" -}}
{{- $zeros := "(0{1,4}(:0{1,4})*)?::(0{1,4}:)*" -}}
{{- $one := printf "((0{1,4}:){7}|%s)0{0,3}1" $zeros -}}
{{- $mapped := printf "((0{1,4}:){5}|%s)ffff:(%s|7f[0-9a-f]{2}:[0-9a-f]{1,4})" $zeros $v4 -}}
{{- $host := printf "([^/?@:]*\\.)?localhost\\.?|%s|\\[(%s|%s)\\]" $v4 $one $mapped -}}
{{- if regexMatch (printf "(?i)^[a-z]+://([^/?@]*@)?(%s)([:/?]|$)" $host) . }}true{{ end -}}
{{- end -}}

{{- define "pin-sidecar.checkGateway" -}}
{{- $gateway := default dict .Values.gateway -}}
{{- $url := default "" $gateway.url -}}
{{- $mistakes := list -}}
{{- if and (regexMatch "^(ws|http)://" $url) (not (include "pin-sidecar.isHere" $url)) (not $gateway.allowPlaintext) -}}
{{- $mistakes = append $mistakes "gateway.url is not encrypted: write wss:// or https://, or gateway.allowPlaintext=true if nobody can listen in between" -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- define "pin-sidecar.checkOllama" -}}
{{- $ollama := default dict .Values.ollama -}}
{{- $external := eq (include "pin-sidecar.topology" .) "external" -}}
{{- $mistakes := list -}}
{{- if and $ollama.url (not $external) -}}
{{- $mistakes = append $mistakes (printf "ollama.url is for topology external; with %s Ollama is in the pod" (include "pin-sidecar.topology" .)) -}}
{{- end -}}
{{- if and $external (gt (include "pin-sidecar.gpus" . | int) 0) -}}
{{- $mistakes = append $mistakes "ollama.gpu.count is for an Ollama of this chart; with topology external the GPUs are the model server's own affair" -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- /* What only Ollama can do. */ -}}
{{- define "pin-sidecar.checkOpenai" -}}
{{- $mistakes := list -}}
{{- if include "pin-sidecar.isOpenai" . -}}
{{- if ne (include "pin-sidecar.topology" .) "external" -}}
{{- $mistakes = append $mistakes (printf "apiMode openai is for a server of your own: with topology %s the chart runs Ollama, which is asked as apiMode ollama. Give topology external and the server as ollama.url" (include "pin-sidecar.topology" .)) -}}
{{- end -}}
{{- if (.Values.models).pull -}}
{{- $mistakes = append $mistakes "models.pull: only Ollama pulls models; leave it out with apiMode openai, and have the model server get them" -}}
{{- end -}}
{{- if ne (dig "PIN_MAX_CONTEXT" "" (default dict .Values.settings) | toString) "" -}}
{{- $mistakes = append $mistakes "settings.PIN_MAX_CONTEXT: only Ollama takes a context with each chat; leave it out with apiMode openai, and start the model server with the context that it is to have" -}}
{{- end -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- define "pin-sidecar.checkBackendKey" -}}
{{- $key := default dict .Values.backendKey -}}
{{- $mistakes := list -}}
{{- if and $key.existingSecret $key.value -}}
{{- $mistakes = append $mistakes "backendKey.existingSecret and backendKey.value are both given; keep one of them" -}}
{{- end -}}
{{- if include "pin-sidecar.hasBackendKey" . -}}
{{- if ne (include "pin-sidecar.topology" .) "external" -}}
{{- $mistakes = append $mistakes (printf "backendKey is for topology external; with %s Ollama is in the pod and wants no key" (include "pin-sidecar.topology" .)) -}}
{{- else if regexMatch "^[a-z]+://[^/?]*@" (default "" (.Values.ollama).url) -}}
{{- $mistakes = append $mistakes "ollama.url has a user and password, and backendKey is given too; a request has room for one of them" -}}
{{- end -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- define "pin-sidecar.checkModels" -}}
{{- $kept := default dict (.Values.ollama).persistence -}}
{{- $kind := include "pin-sidecar.kind" . -}}
{{- $many := or (eq $kind "DaemonSet") (gt (include "pin-sidecar.replicas" . | int) 1) -}}
{{- $shared := has "ReadWriteMany" (include "pin-sidecar.accessModes" . | fromYamlArray) -}}
{{- $mistakes := list -}}
{{- if and $kept.hostPath $kept.existingClaim -}}
{{- $mistakes = append $mistakes "ollama.persistence.hostPath and ollama.persistence.existingClaim are both given; keep one of them" -}}
{{- end -}}
{{- if and (eq (include "pin-sidecar.models" .) "claim") $many (not $shared) -}}
{{- $mistakes = append $mistakes (printf "ollama.persistence: the pods of a %s share one claim, which %s does not let them: give accessModes [ReadWriteMany], a hostPath, or enabled=false" $kind (include "pin-sidecar.accessModes" . | fromYamlArray | join ", ")) -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- define "pin-sidecar.checkObservers" -}}
{{- $budget := default dict .Values.podDisruptionBudget -}}
{{- $mistakes := list -}}
{{- if and (.Values.podMonitor).enabled (.Values.serviceMonitor).enabled -}}
{{- $mistakes = append $mistakes "podMonitor.enabled and serviceMonitor.enabled are both true: everything would be scraped and counted twice; keep one of them" -}}
{{- end -}}
{{- if not (or (kindIs "invalid" $budget.minAvailable) (kindIs "invalid" $budget.maxUnavailable)) -}}
{{- $mistakes = append $mistakes "podDisruptionBudget.minAvailable and podDisruptionBudget.maxUnavailable are both given; set the other one to null" -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- /* Takes (dict "value" "extraEnv" "env" $list). */ -}}
{{- define "pin-sidecar.checkEnv" -}}
{{- $mistakes := list -}}
{{- $seen := dict -}}
{{- range .env -}}
{{- if hasKey $seen .name -}}
{{- $mistakes = append $mistakes (printf "%s: %s is set already, by the chart or further up in the list" $.value .name) -}}
{{- end -}}
{{- $_ := set $seen .name true -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}
