{{/* The name of a part. Arguments: the root, the part. */}}
{{- define "knocktwice.name" -}}
{{- $root := index . 0 -}}{{- $part := index . 1 -}}
{{- printf "%s-%s" ($root.Release.Name | trunc 38 | trimSuffix "-") $part -}}
{{- end -}}

{{/* What selects the pods of a part; it never changes. */}}
{{- define "knocktwice.selector" -}}
{{- $root := index . 0 -}}{{- $part := index . 1 -}}
app.kubernetes.io/name: knocktwice
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ $part }}
{{- end -}}

{{- define "knocktwice.labels" -}}
{{- $root := index . 0 -}}
{{ include "knocktwice.selector" . }}
app.kubernetes.io/version: {{ $root.Values.image.tag | default $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{/* What all pods have in common. Nothing here talks to Kubernetes itself. */}}
{{- define "knocktwice.pod" -}}
{{- $root := index . 0 -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  # Everything that lasts is in PostgreSQL and Redis.
  - name: tmp
    emptyDir: {}
{{- if $root.Values.serviceAccountFile }}
  - name: firebase
    secret:
      secretName: {{ $root.Values.secret }}
      items: [{key: service-account.json, path: service-account.json}]
{{- end }}
{{- end -}}

{{/* What all containers have in common. */}}
{{- define "knocktwice.container" -}}
{{- $root := index . 0 -}}
image: {{ printf "%s:%s" $root.Values.image.repository ($root.Values.image.tag | default $root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - secretRef: {name: {{ $root.Values.secret }}}
volumeMounts:
  - name: tmp
    mountPath: /tmp
{{- if $root.Values.serviceAccountFile }}
  - name: firebase
    mountPath: /run/secrets/firebase
    readOnly: true
{{- end }}
{{- end -}}

{{/* Environment of all containers, beyond the Secret. */}}
{{- define "knocktwice.env" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.serviceAccountFile }}
- {name: GOOGLE_APPLICATION_CREDENTIALS, value: /run/secrets/firebase/service-account.json}
{{- end }}
- {name: KNOCKTWICE_LOG_JSON, value: "true"}
- {name: KNOCKTWICE_LEASE_S, value: {{ $root.Values.leaseS | quote }}}
- {name: KNOCKTWICE_STOP_GRACE_S, value: {{ $root.Values.stopGraceS | quote }}}
{{- range $name, $value := $root.Values.settings }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end -}}

{{/* A worker or beat touches its file every few seconds while it works. Asking over the broker would call all of them sick
     when the broker is. */}}
{{- define "knocktwice.heartbeat" -}}
exec:
  command:
    - python
    - -c
    - import os, sys, time; sys.exit(time.time() - os.path.getmtime("/tmp/heartbeat") > 60)
timeoutSeconds: 5
{{- end -}}

{{/* Open rows whose time has come; those that wait for a pause, the night or a provider's pace wake later. */}}
{{- define "knocktwice.due" -}}
WHERE wake_at <= knocktwice_now() + interval '{{ .Values.leaseS }} seconds'
AND due_at <= knocktwice_now() AND state IN ('scheduled', 'reserved')
{{- end -}}
