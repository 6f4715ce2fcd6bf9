#!/bin/sh
# Print the state of a job of LSF, SGE or PBS: `running`, `failed`, or `success` if it's gone.
#
# Only LSF reports how a job ended; where the others keep this differs from site to site. Snakemake
# then checks for the job's outputs and fails if they're missing. If the scheduler doesn't answer
# within a minute, the job counts as running, and Snakemake asks again later.
fail() {
    echo "error: job $job: $1" >&2
    echo failed
    exit
}

job=${1%%.*} # PBS appends its server.
if command -v bjobs > /dev/null; then
    job=${1#*<} # bsub printed: Job <7> is submitted to queue <normal>.
    job=${job%%>*}
    said=$(timeout 60 bjobs -noheader -o stat "$job" 2>&1)
    case $said in
        DONE | *"is not found"*) echo success ;;
        EXIT | ZOMBI) fail "$(timeout 60 bjobs -noheader -o exit_reason "$job" 2>&1)" ;;
        *) echo running ;;
    esac
elif command -v qstat > /dev/null; then
    said=$(timeout 60 qstat 2> /dev/null) || { echo running && exit; }
    # The first column is the job's number, the fifth its state.
    state=$(echo "$said" | awk -v job="$job" '{ split($1, id, "."); if (id[1] == job) print $5 }')
    case $state in
        # SGE couldn't start the job, but keeps it in the queue. In PBS, E means exiting.
        E*w)
            reason=$(timeout 60 qstat -j "$job" 2>&1 | grep -i 'error reason' | tail -n 1)
            qdel "$job" > /dev/null 2>&1
            fail "the scheduler couldn't start it (state $state): ${reason:-no reason given}"
            ;;
        # PBS shows finished jobs for a while.
        "" | C | F | X) echo success ;;
        *) echo running ;;
    esac
else
    echo "error: neither bjobs nor qstat is on PATH; load your scheduler's module" >&2
    exit 1
fi
