#!/bin/sh
# Whether a job is in the queue of LSF, SGE or PBS: `running`, `failed`, or `success` once it's gone.
#
# How a job that is gone has ended is asked of LSF alone, as the others keep that elsewhere at each
# site. Snakemake looks for its outputs then, and a job without them has failed. A scheduler that
# doesn't answer in a minute is asked again later; meanwhile the job counts as running.
fail() {
    echo "error: job $job: $1" >&2
    echo failed
    exit
}

job=${1%%.*} # PBS adds its server.
if command -v bjobs > /dev/null; then
    job=${1#*<} # bsub said: Job <7> is submitted to queue <normal>.
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
        # SGE couldn't start it, and keeps it until somebody looks. Of PBS, E means that it ends.
        E*w)
            reason=$(timeout 60 qstat -j "$job" 2>&1 | grep -i 'error reason' | tail -n 1)
            qdel "$job" > /dev/null 2>&1
            fail "the scheduler couldn't start it (state $state): ${reason:-it gives no reason}"
            ;;
        # PBS shows jobs that have ended for a while.
        "" | C | F | X) echo success ;;
        *) echo running ;;
    esac
else
    echo "error: neither bjobs nor qstat is on PATH, so no job can be looked up" >&2
    exit 1
fi
