{{/* Kept apart from the names that KubeRay makes out of the RayService's: <name>-head-svc and <name>-serve-svc. */}}
{{- define "papa.generatorService" -}}{{ include "papa.fullname" . }}-generator{{- end -}}

{{/* Seconds that the slowest worker takes to drain. */}}
{{- define "papa.longestDrain" -}}{{ max (add .Values.generator.drainSeconds 10) 15 }}{{- end -}}

{{/* Two trainers reserve one CPU of Ray's count; a GPU holds one. */}}
{{- define "papa.trainersPerPod" -}}
{{- ternary 1 2 (eq .Values.trainer.device "cuda") -}}
{{- end -}}

{{/* How many pods hold so many trainers. Call with (dict "root" $ "actors" 5). */}}
{{- define "papa.trainerPods" -}}
{{- $each := include "papa.trainersPerPod" .root | int -}}
{{- div (sub (add .actors $each) 1) $each -}}
{{- end -}}

{{- define "papa.checkRange" -}}
{{- if lt (int .most) (int .least) }}
{{- fail (printf "%s.autoscaling: %s (%v) is less than %s (%v)" .component (printf "max%s" .unit) .most (printf "min%s" .unit) .least) }}
{{- end }}
{{- end -}}

{{/* Most of what is scaled: without Ray's autoscaler the pods stay as many as they are, and so does what runs in them. Call
with (dict "root" $ "least" 1 "most" 4). */}}
{{- define "papa.most" -}}
{{- ternary .most .least .root.Values.ray.autoscaler.enabled -}}
{{- end -}}

{{- define "papa.mostReplicas" -}}
{{- with .Values.generator.autoscaling }}{{ include "papa.most" (dict "root" $ "least" (int .minReplicas) "most" (int .maxReplicas)) }}{{ end -}}
{{- end -}}

{{- define "papa.mostTrainers" -}}
{{- with .Values.trainer.autoscaling }}{{ include "papa.most" (dict "root" $ "least" (int .minActors) "most" (int .maxActors)) }}{{ end -}}
{{- end -}}

{{/* Settings that running replicas take over; they travel with Serve's configuration instead of the environment. */}}
{{- define "papa.liveSettings" -}}
{{- pick (default dict .Values.config.generator) "sampler" "steps" "exploration" "teaching" "overdraw" "guidance" | toJson -}}
{{- end -}}

{{/* What Serve deploys. The places of a pod are counted by resources of our own, so that a generator pod never takes a
trainer, whatever its CPUs. */}}
{{- define "papa.serveConfig" -}}
{{- $environment := dict "env_vars" (dict "PROMETHEUS_MULTIPROC_DIR" "/var/lib/papa/metrics") -}}
proxy_location: EveryNode
# HTTP carries nothing but the proxies' health; Serve has no proxy without it.
http_options: {host: {{ .Values.service.listen | quote }}, port: 8000}
grpc_options:
  port: 9000
  grpc_servicer_functions: [papa_serving.stubs.engine.v1.engine_pb2_grpc.add_EngineServiceServicer_to_server]
  enable_reflection: false
logging_config: {encoding: JSON, log_level: INFO, enable_access_log: false}
applications:
  - name: generator
    import_path: papa_serving.generator.deployment:app
    route_prefix: /generator
    deployments:
      - name: generator
        autoscaling_config:
          min_replicas: {{ .Values.generator.autoscaling.minReplicas }}
          max_replicas: {{ include "papa.mostReplicas" . }}
          target_ongoing_requests: {{ .Values.generator.autoscaling.targetOngoingRequests }}
          upscale_delay_s: {{ .Values.generator.autoscaling.upscaleDelaySeconds }}
          downscale_delay_s: {{ .Values.generator.autoscaling.downscaleDelaySeconds }}
        graceful_shutdown_timeout_s: {{ add .Values.generator.drainSeconds 5 }}
        user_config: {{ include "papa.liveSettings" . }}
        ray_actor_options:
          num_cpus: 0
          num_gpus: {{ ternary .Values.generator.gpus 0 (eq .Values.generator.device "cuda") }}
          resources: {papa_generator: 1}
          runtime_env: {{ $environment | toJson }}
  {{- if not .Values.trainer.stopped }}
  - name: trainer
    import_path: papa_serving.trainer.deployment:app
    route_prefix: /trainer
    deployments:
      - name: trainers
        {{- with .Values.trainer.autoscaling }}
        user_config:
          target_age: {{ .targetAgeSeconds }}
          upscale_delay: {{ .upscaleDelaySeconds }}
          downscale_delay: {{ .downscaleDelaySeconds }}
        {{- end }}
        ray_actor_options:
          num_cpus: 0
          resources: {papa_trainer: 0.001}
          runtime_env: {{ $environment | toJson }}
  {{- end }}
{{- end -}}

{{/* Environment of every Ray container, beside the chart's. Call with (dict "root" $ "gpus" 0). */}}
{{- define "papa.rayEnvironment" -}}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: RAY_ENABLE_UV_RUN_RUNTIME_ENV, value: "0"}
- {name: RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO, value: "0"}
{{- if not .gpus }}
# A node with GPUs shows them to every container that does not say otherwise.
- {name: NVIDIA_VISIBLE_DEVICES, value: void}
{{- end }}
{{- $redis := include "papa.gcsRedis" .root | fromJson }}
{{- if and $redis.tls.enabled $redis.tls.caSecret }}
- {name: RAY_REDIS_CA_CERT, value: /etc/papa/gcs-redis-ca/{{ $redis.tls.caKey }}}
{{- end }}
{{- if and $redis.tls.enabled $redis.tls.certificateSecret }}
- {name: RAY_REDIS_CLIENT_CERT, value: /etc/papa/gcs-redis-certificate/tls.crt}
- {name: RAY_REDIS_CLIENT_KEY, value: /etc/papa/gcs-redis-certificate/tls.key}
{{- end }}
{{- end -}}

{{/* The container in which `ray start` runs. Call with (dict "root" $ "name" "ray-worker" "values" .Values.generator). */}}
{{- define "papa.rayContainer" -}}
{{- $redis := include "papa.gcsRedis" .root | fromJson -}}
name: {{ .name }}
image: {{ include "papa.serverImage" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{ include "papa.environment" (dict "root" .root "config" (list (include "papa.rayConfig" .root) (printf "%s-ray-observability" (include "papa.fullname" .root))) "more" (include "papa.rayEnvironment" .)) }}
securityContext: {{- toYaml .root.Values.containerSecurityContext | nindent 2 }}
volumeMounts: {{- include "papa.volumeMounts" .root | nindent 2 }}
{{- if .root.Values.backbone.existingClaim }}
  - {name: backbone, mountPath: /backbone, readOnly: true}
{{- end }}
{{- if and $redis.tls.enabled $redis.tls.caSecret }}
  - {name: gcs-redis-ca, mountPath: /etc/papa/gcs-redis-ca, readOnly: true}
{{- end }}
{{- if and $redis.tls.enabled $redis.tls.certificateSecret }}
  - {name: gcs-redis-certificate, mountPath: /etc/papa/gcs-redis-certificate, readOnly: true}
{{- end }}
{{- end -}}

{{- define "papa.rayVolumes" -}}
{{- $redis := include "papa.gcsRedis" . | fromJson -}}
{{- include "papa.volumes" . }}
{{- if .Values.backbone.existingClaim }}
- name: backbone
  persistentVolumeClaim: {claimName: {{ .Values.backbone.existingClaim }}, readOnly: true}
{{- end }}
{{- if and $redis.tls.enabled $redis.tls.caSecret }}
- name: gcs-redis-ca
  secret: {secretName: {{ $redis.tls.caSecret }}}
{{- end }}
{{- if and $redis.tls.enabled $redis.tls.certificateSecret }}
- name: gcs-redis-certificate
  secret: {secretName: {{ $redis.tls.certificateSecret }}}
{{- end }}
{{- end -}}

{{/* Serves what the processes of the Ray container have written; it must see them, to know which of them live. It runs the
server's image, which the pod has anyway: a new image of the gateway then leaves Ray's pods as they are. */}}
{{- define "papa.metricsContainer" -}}
name: metrics
image: {{ include "papa.serverImage" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [metrics]
# A native sidecar: it is started again by itself, and a pod whose metrics are away still generates.
restartPolicy: Always
envFrom:
  - configMapRef: {name: {{ include "papa.rayConfig" . }}}
  - configMapRef: {name: {{ include "papa.fullname" . }}-ray-observability}
env:
  - {name: HOME, value: /var/lib/papa}
  - {name: NVIDIA_VISIBLE_DEVICES, value: void}
ports:
  - {name: papa-metrics, containerPort: 9464}
resources: {{- toYaml .Values.metrics.resources | nindent 2 }}
securityContext: {{- toYaml .Values.containerSecurityContext | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: data, mountPath: /var/lib/papa}
{{- end -}}

{{- define "papa.rayPodMetadata" -}}
# All of a template is in the hash by which KubeRay decides to start a second cluster: nothing here may change for a trifle.
labels: {{- include "papa.podLabels" (dict "root" .root "component" .component "values" .values) | nindent 2 }}
{{- with .values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A group of worker pods. Call with (dict "root" $ "component" "generator" "values" .Values.generator "parameters" (dict …)
"gpus" 0 "minimum" 1 "maximum" 4 "drain" 65). */}}
{{- define "papa.workerGroup" -}}
groupName: {{ .component }}
replicas: {{ .minimum }}
minReplicas: {{ .minimum }}
maxReplicas: {{ .maximum }}
rayStartParams: {{- toYaml .parameters | nindent 2 }}
template:
  metadata: {{- include "papa.rayPodMetadata" . | nindent 4 }}
  spec:
    serviceAccountName: {{ include "papa.rayAccount" .root }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    {{- if .root.Values.ray.autoscaler.enabled }}
    # A worker whose Ray has ended is replaced by the autoscaler, never started again under the same identity.
    restartPolicy: Never
    {{- end }}
    shareProcessNamespace: true
    securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 6 }}
    terminationGracePeriodSeconds: {{ add .drain 30 }}
    {{- include "papa.placement" . | nindent 4 }}
    initContainers:
      - {{ include "papa.metricsContainer" .root | nindent 8 | trim }}
    containers:
      - {{ include "papa.rayContainer" (dict "root" .root "name" "ray-worker" "gpus" .gpus) | nindent 8 | trim }}
        ports:
          - {name: serve, containerPort: 8000}
          - {name: generator, containerPort: 9000}
          - {name: metrics, containerPort: 8080}
        resources:
          requests:
            {{- toYaml .values.resources.requests | nindent 12 }}
            {{- if .gpus }}
            {{ .values.gpuResource }}: {{ .gpus }}
            {{- end }}
          limits:
            {{- toYaml .values.resources.limits | nindent 12 }}
            {{- if .gpus }}
            {{ .values.gpuResource }}: {{ .gpus }}
            {{- end }}
        {{- with .readiness }}
        readinessProbe: {{- toYaml . | nindent 10 }}
        {{- end }}
        lifecycle:
          # Serve moves its replicas elsewhere and lets running work end; the trainer's leases are taken over.
          preStop:
            exec:
              command:
                - bash
                - -c
                - >-
                  ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the pod ends"
                  --deadline-remaining-seconds {{ .drain }} && sleep {{ .drain }}
    volumes: {{- include "papa.rayVolumes" .root | nindent 6 }}
{{- end -}}
