#!/usr/bin/env bash
# Stands for a program of which there is none without a cluster: writes down what it is called with. Where PLAY is set it
# also does, in place of kubectl, what needs no cluster: a command of a pod, in the folder that the pod would mount, and the
# Job of `papa store check`.
set -euo pipefail
name=$(basename "$0")
call=$(printf '%s\x1f' "$name" "$@")
printf '%s\x1e' "$call" >> "$RECORD/calls" # at once: the commands of a pipe write at the same time
case "$name $*" in
    kubectl*" apply --filename -"* | sudo*) cat >> "$RECORD/given" ;;
    kubectl*" get pods "*) echo pod/one ;;
    kubectl*" get secret "*) echo b2xk ;;
    kubectl*" get job "*) if [ -e "$RECORD/failed" ]; then echo FailureTarget Failed; else echo Complete; fi ;;
    redis-cli*) printf 'PONG\naof_rewrite_in_progress:0\naof_last_bgrewrite_status:ok\n' ;;
esac
if [ -n "${PLAY:-}" ]; then
    case "$name $*" in
        kubectl*" exec "*" -- "*)
            while [ "$1" != -- ]; do shift; done
            shift
            exec "${@//\/var\/lib\/papa-revisions/$REVISIONS}"
            ;;
        kubectl*" create job "*)
            "$PYTHON" -m papa_serving.cli.main store check > "$RECORD/job" 2>&1 || touch "$RECORD/failed"
            ;;
        kubectl*" wait job/"*) test ! -e "$RECORD/failed" ;;
        kubectl*" logs job/"*) cat "$RECORD/job" ;;
    esac
fi
