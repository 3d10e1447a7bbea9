{{/* What head and worker pods have in common. */}}
{{- define "headway.rayPod" -}}
serviceAccountName: {{ include "headway.fullname" . }}-ray
automountServiceAccountToken: false
securityContext:
  {{- include "headway.podSecurity" . | nindent 2 }}
{{- with include "headway.pullSecrets" . | trim }}
{{ . }}
{{- end }}
{{- end -}}

{{/*
Probes of the Ray container, in place of KubeRay's own, which ask Serve's HTTP proxy (there is none here) and Ray's
dashboard: (list . isHead). They connect to the raylet's socket, and on the head to the GCS too.
*/}}
{{- define "headway.rayProbes" -}}
{{- $test := "import glob, socket; socket.socket(socket.AF_UNIX).connect(glob.glob('/tmp/ray/session_latest/sockets/raylet')[0])" -}}
{{- if index . 1 -}}
{{- $test = printf "%s; socket.create_connection(('127.0.0.1', 6379), 2)" $test -}}
{{- end -}}
readinessProbe:
  exec:
    command: [python, -c, {{ $test | quote }}]
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
livenessProbe:
  exec:
    command: [python, -c, {{ $test | quote }}]
  initialDelaySeconds: 60
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
{{- end -}}
