#!/bin/sh
# mutate.sh NAME < journal.c (or memory.c, for those below): a planted fault, which the stepper
# must find.
set -eu
source=$(cat)
case $1 in
early-commit) # the entry is stored before the slot is filled
    script='/shk__store(&journal->kind, j.kind);/a shk__store(shk__entry_at(store, j.target), j.new_word);' ;;
late-zeroing) # the journal is cleared before the old key is wiped
    script='/if (j->old_word) {/i shk__store(\&shk__journal(store)->kind, SHK_CHANGE_NONE);' ;;
uncleared-journal) # the journal of a finished operation stays
    script='0,/shk__store(&shk__journal(store)->kind, SHK_CHANGE_NONE);/{//d}' ;;
careless-maker) # memory.c: words are stored whatever another maker has stored
    script='s/(void)shk__cas64((word_t \*)at, &seen, wanted);/if (wanted != seen) shk__store((word_t *)at, wanted);/' ;;
*) echo "mutate.sh: $1 is unknown" >&2; exit 2 ;;
esac
mutant=$(printf '%s\n' "$source" | sed "$script")
[ "$mutant" != "$source" ] || { echo "mutate.sh: $1 no longer applies" >&2; exit 2; }
printf '%s\n' "$mutant"
