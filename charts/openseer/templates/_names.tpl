{{/* Common parts of the templates: names, labels, images, variables, the rules of operator and API. */}}

{{- define "openseer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "openseer.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "openseer.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "openseer.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "openseer.selector" -}}
app.kubernetes.io/name: {{ include "openseer.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "openseer.apiSelector" -}}
app.kubernetes.io/name: {{ include "openseer.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: api
{{- end -}}

{{- define "openseer.apiLabels" -}}
{{ include "openseer.apiSelector" . }}
{{ include "openseer.commonLabels" . }}
{{- end -}}

{{- define "openseer.labels" -}}
{{ include "openseer.selector" . }}
{{ include "openseer.commonLabels" . }}
{{- end -}}

{{- define "openseer.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "openseer.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "openseer.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the account to use, or set serviceAccount.create" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "openseer.apiServiceAccount" -}}
{{- if .Values.api.serviceAccount.create -}}
{{- default (printf "%s-api" (include "openseer.fullname" .)) .Values.api.serviceAccount.name -}}
{{- else -}}
{{- $how := "api.serviceAccount.name: name the account to use, or set api.serviceAccount.create" -}}
{{- required $how .Values.api.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The reference of an image: by its digest, else by its tag, else by the project's version. */}}
{{- define "openseer.reference" -}}
{{- with .image -}}
{{- if .digest }}{{ printf "%s@%s" .repository .digest }}{{ else }}{{ printf "%s:%s" .repository (default $.version .tag) }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "openseer.image" -}}
{{- include "openseer.reference" (dict "image" .Values.image "version" .Chart.AppVersion) -}}
{{- end -}}

{{- define "openseer.workerImage" -}}
{{- include "openseer.reference" (dict "image" .Values.workerImage "version" .Chart.AppVersion) -}}
{{- end -}}

{{- define "openseer.redisImage" -}}
{{- if not .Values.redisImage.repository -}}
{{- include "openseer.image" . -}}
{{- else if or .Values.redisImage.tag .Values.redisImage.digest -}}
{{- include "openseer.reference" (dict "image" .Values.redisImage) -}}
{{- else -}}
{{- fail "redisImage.tag: missing; name the tag of redisImage.repository, or its digest" -}}
{{- end -}}
{{- end -}}

{{/* One line for each image that no registry has (a repository without a host, or of localhost), unless it is never pulled. */}}
{{- define "openseer.unpullable" -}}
{{- $ours := list (list "image" .Values.image "image.pullPolicy" .Values.image.pullPolicy) -}}
{{- $ours = append $ours (list "workerImage" .Values.workerImage "jobImagePullPolicy" .Values.jobImagePullPolicy) -}}
{{- range $ours -}}
{{- $repository := (index . 1).repository -}}
{{- if and (ne (index . 3) "Never") (or (not (contains "/" $repository)) (hasPrefix "localhost/" $repository)) }}
  {{ first . }}.repository: found {{ $repository }}, which no registry has; allowed: a repository that nodes can pull, or any where all nodes hold the image and {{ index . 2 }} is Never
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Variables for trusted certificates; empty without caBundle.configMap. */}}
{{- define "openseer.caVariables" -}}
{{- with .Values.caBundle }}
{{- if .configMap }}
{{- $file := printf "/etc/openseer-ca/%s" .key }}
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" }}
- {name: {{ . }}, value: {{ $file | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Variables of processes that send traces, as JSON; the operator passes them to drivers. */}}
{{- define "openseer.tracesVariables" -}}
{{- $variables := .Values.traces.env -}}
{{- with .Values.traces.endpoint -}}
{{- $variables = prepend $variables (dict "name" "OTEL_EXPORTER_OTLP_ENDPOINT" "value" .) -}}
{{- end -}}
{{- toJson $variables -}}
{{- end -}}

{{/* The operator's settings for pods of jobs, as JSON. */}}
{{- define "openseer.jobs" -}}
{{- $more := dict "caBundle" .Values.caBundle "logFormat" .Values.logs.format -}}
{{- $_ := set $more "driverEnv" (include "openseer.tracesVariables" . | fromJsonArray) -}}
{{- toJson (merge $more .Values.jobs) -}}
{{- end -}}

{{- define "openseer.caMount" -}}
{{- if .Values.caBundle.configMap }}
- {name: ca, mountPath: /etc/openseer-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "openseer.caVolume" -}}
{{- with .Values.caBundle }}
{{- if .configMap }}
- name: ca
  configMap: {name: {{ .configMap | quote }}, items: [{key: {{ .key | quote }}, path: {{ .key | quote }}}]}
{{- end }}
{{- end }}
{{- end -}}

{{- define "openseer.storeKeys" -}}
{{- default (printf "%s-store-keys" (include "openseer.fullname" .)) .Values.stores.keysSecret -}}
{{- end -}}

{{/* The ServiceAccounts that a namespace may permit to read Secrets, as RBAC subjects and as kubectl's arguments. */}}
{{- define "openseer.storeReaders" -}}
- {kind: ServiceAccount, name: {{ include "openseer.serviceAccount" . }}, namespace: {{ .Release.Namespace }}}
{{- if .Values.api.enabled }}
- {kind: ServiceAccount, name: {{ include "openseer.apiServiceAccount" . }}, namespace: {{ .Release.Namespace }}}
{{- end }}
{{- end -}}

{{- define "openseer.storeReaderNames" -}}
{{- $readers := list -}}
{{- range fromYamlArray (include "openseer.storeReaders" .) -}}
{{- $readers = append $readers (printf "%s:%s" .namespace .name) -}}
{{- end -}}
{{- join "," $readers -}}
{{- end -}}

{{- define "openseer.storeEnvironment" -}}
- {name: OPENSEER_STORE_KEYS, value: /etc/openseer/store-keys}
- {name: OPENSEER_STORE_HOSTS, value: {{ join "," .Values.stores.allowedHosts | quote }}}
- {name: OPENSEER_STORE_READERS, value: {{ include "openseer.storeReaderNames" . | quote }}}
{{- end -}}

{{/* The operator's rules in namespaces of jobs: exactly the calls that it makes. It reads
existing objects to check their owner. */}}
{{- define "openseer.rules" -}}
- apiGroups: [openseer.dev]
  resources: [rolloutjobs]
  verbs: [list, watch, patch, delete]
- apiGroups: [openseer.dev]
  resources: [rolloutjobs/status]
  verbs: [patch]
# Needed for owner references that block their owner's deletion, on clusters that enforce it.
- apiGroups: [openseer.dev]
  resources: [rolloutjobs/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts, persistentvolumeclaims]
  verbs: [get, list, create, patch]
# Passwords of managed Redis. They are derived, never read.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, create, patch]
{{ include "openseer.eventRules" . }}
# To report why the StatefulSet of a Redis has no pod, and why a pod has not started for a long time.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
{{- end -}}

{{/* The gateway's rules in namespaces of jobs: it finds jobs, changes nothing, and derives the passwords of their Redis. */}}
{{- define "openseer.apiRules" -}}
- apiGroups: [openseer.dev]
  resources: [rolloutjobs]
  verbs: [get, list]
{{- end -}}

{{- define "openseer.eventRules" -}}
- apiGroups: [""]
  resources: [events]
  verbs: [get, create, patch]
{{- end -}}
