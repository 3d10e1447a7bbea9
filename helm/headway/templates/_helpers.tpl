{{/* Names end at 42 characters: KubeRay and StatefulSets append to them, and labels end at 63. */}}
{{- define "headway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 42 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 42 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 42 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Selector labels of a component: (list . "router") */}}
{{- define "headway.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of a component: (list . "router") */}}
{{- define "headway.labels" -}}
{{- $root := index . 0 -}}
{{ include "headway.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: headway
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image of .Values.images: (list . "router") */}}
{{- define "headway.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}

{{- define "headway.rayAuthSecret" -}}
{{- default (printf "%s-ray-auth" (include "headway.fullname" .)) .Values.ray.auth.existingSecret -}}
{{- end -}}

{{- define "headway.redisSecret" -}}
{{- if .Values.redis.enabled -}}
{{- default (printf "%s-redis" (include "headway.fullname" .)) .Values.redis.auth.existingSecret -}}
{{- else -}}
{{- .Values.externalRedis.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* host:port of the Redis in use; empty when there is none. */}}
{{- define "headway.redisAddress" -}}
{{- if .Values.redis.enabled -}}
{{- printf "%s-redis:6379" (include "headway.fullname" .) -}}
{{- else -}}
{{- .Values.externalRedis.address -}}
{{- end -}}
{{- end -}}

{{- define "headway.redisDatabase" -}}
{{- if .Values.redis.enabled }}0{{ else }}{{ .Values.externalRedis.database }}{{ end -}}
{{- end -}}

{{/* Names under which pods of the cluster may ask the controller's dashboard, as a JSON list. */}}
{{- define "headway.controllerNames" -}}
{{- $service := printf "%s-controller" (include "headway.fullname" .) -}}
{{- $inside := printf "%s.%s" $service .Release.Namespace -}}
{{- list $service $inside (printf "%s.svc" $inside) | toJson -}}
{{- end -}}

{{- define "headway.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "headway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "headway.logEnv" -}}
- name: HEADWAY_LOG_LEVEL
  value: {{ .Values.logs.level | quote }}
- name: HEADWAY_LOG_FORMAT
  value: {{ .Values.logs.format | quote }}
{{- end -}}

{{/* Environment of every container that joins Ray. The root file system is read-only, so home lies in /tmp. */}}
{{- define "headway.rayEnv" -}}
- name: RAY_AUTH_MODE
  value: token
- name: RAY_AUTH_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ include "headway.rayAuthSecret" . }}
      key: token
- name: RAY_USAGE_STATS_ENABLED
  value: "0"
- name: HOME
  value: /tmp
- name: OMP_NUM_THREADS
  value: "1"
{{ include "headway.logEnv" . }}
{{- end -}}

{{/* Where a pod may run: (dict "nodeSelector" ... "tolerations" ... "affinity" ... "priorityClassName" ...) */}}
{{- define "headway.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "headway.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Scratch space, shared memory, and the model: (list . "1Gi") */}}
{{- define "headway.rayVolumes" -}}
{{- $root := index . 0 -}}
- name: tmp
  emptyDir: {}
- name: shared-mem
  emptyDir:
    medium: Memory
    sizeLimit: {{ index . 1 }}
{{- if $root.Values.model.existingClaim }}
- name: model
  persistentVolumeClaim:
    claimName: {{ $root.Values.model.existingClaim }}
    readOnly: true
{{- end }}
{{- end -}}

{{- define "headway.rayMounts" -}}
- name: tmp
  mountPath: /tmp
- name: shared-mem
  mountPath: /dev/shm
{{- if .Values.model.existingClaim }}
- name: model
  mountPath: /models
  readOnly: true
{{- end }}
{{- end -}}
