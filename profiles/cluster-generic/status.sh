#!/bin/sh
# Whether a job is in the queue of LSF, SGE or PBS: `running`, or `success` once it's gone.
#
# How a job that is gone has ended isn't asked, as each site keeps that elsewhere. Snakemake looks for
# its outputs then, and a job without them has failed.
if command -v bjobs > /dev/null; then
    job=${1#*<} # bsub said: Job <7> is submitted to queue <normal>.
    case $(bjobs -noheader -o stat "${job%%>*}" 2> /dev/null) in
        RUN | PEND | PROV | WAIT | PSUSP | USUSP | SSUSP | UNKWN) echo running ;;
        *) echo success ;;
    esac
else
    # The first column of qstat is the job's number (PBS adds its server), the fifth its state.
    # Torque shows jobs that are complete for some minutes.
    if qstat 2> /dev/null | awk -v job="${1%%.*}" \
        '{ split($1, id, "."); if (id[1] == job && $5 != "C") found = 1 } END { exit !found }'; then
        echo running
    else
        echo success
    fi
fi
