{{/* What the templates have in common: names, labels, images, the operator's rules. */}}

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

{{- define "openseer.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "openseer.workerImage" -}}
{{- printf "%s:%s" .Values.workerImage.repository (default .Chart.AppVersion .Values.workerImage.tag) -}}
{{- end -}}

{{- define "openseer.redisImage" -}}
{{- if .Values.redisImage.repository -}}
{{- $tag := required "redisImage.tag: missing; name the tag of redisImage.repository" .Values.redisImage.tag -}}
{{- printf "%s:%s" .Values.redisImage.repository $tag -}}
{{- else -}}
{{- include "openseer.image" . -}}
{{- end -}}
{{- end -}}

{{/* What the operator may do where jobs are: exactly the calls that it makes. To apply is to patch, and to create. */}}
{{- define "openseer.rules" -}}
- apiGroups: [openseer.dev]
  resources: [rolloutjobs]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [openseer.dev]
  resources: [rolloutjobs/status]
  verbs: [patch]
# Owner references that block their owner's deletion need this where that is enforced.
- apiGroups: [openseer.dev]
  resources: [rolloutjobs/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts, persistentvolumeclaims]
  verbs: [list, create, patch]
# Passwords of managed Redis, and the Secrets that jobs name for their own. Never listed.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [list, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, create, patch]
{{ include "openseer.eventRules" . }}
{{- end -}}

{{/* What the gateway may do where jobs are: find them, and the URL of their Redis. It changes nothing. */}}
{{- define "openseer.apiRules" -}}
- apiGroups: [openseer.dev]
  resources: [rolloutjobs]
  verbs: [get, list]
# Those of managed Redis, and those that jobs name for their own. Never listed.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end -}}

{{- define "openseer.eventRules" -}}
- apiGroups: [""]
  resources: [events]
  verbs: [get, create, patch]
{{- end -}}
