#!/bin/sh
# Cancel jobs of LSF, SGE or PBS.
for job in "$@"; do
    if command -v bkill > /dev/null; then
        job=${job#*<} # bsub printed: Job <7> is submitted to queue <normal>.
        bkill "${job%%>*}"
    else
        qdel "$job"
    fi
done
