#!/bin/sh
# Waits while training/slot.py runs, for so many seconds at most, and copies what it has written.
#   sh training/slot_poll.sh SLOT SECONDS BACK
# SLOT holds pid (its process), run.log (what it said) and out/ (what it wrote).
end=$(($(date +%s) + $2))
# A process that has ended has no command line; kill -0 would wait for ever where nothing collects it.
while [ "$(date +%s)" -lt "$end" ] && grep -qs slot.py "/proc/$(cat "$1/pid")/cmdline"; do
    sleep 2
done
tail -n 20 "$1/run.log"
for file in "$1"/out/weights/* "$1"/out/log.csv "$1"/out/acceptance.json "$1"/out/draws.npz "$1/run.log"; do
    if [ -f "$file" ]; then cp "$file" "$3"; fi
done
